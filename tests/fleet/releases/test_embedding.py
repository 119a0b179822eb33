"""The output that is named at publish: its axes, what is refused, what devices and older readers make of it."""

import io
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from agent.serving import worker_session
from fleet.releases import embedding, packing, reference_run
from fleet.releases.errors import EmbeddingError
from fleet.releases.reading import read_model
from fleet.releases.reference_data import read_reference
from shared import probes
from tests.fleet.releases.conftest import Workshop
from tests.fleet.releases.test_measuring import model
from tests.simulators import digits

RNG = np.random.default_rng(3)


def measured(onnx: bytes, output: str | None, **arrays: np.ndarray) -> reference_run.Measured:
    facts = read_model("m.onnx", onnx)
    file = io.BytesIO()
    np.savez(file, **arrays)
    inputs, labels = read_reference(file.getvalue(), facts.inputs)
    return reference_run.run(onnx, inputs, labels, declared=facts.inputs, golden_rows=8, embedding=output)


@pytest.fixture(scope="module")
def trained() -> digits.Trained:
    found = digits.train()
    return found._replace(onnx_bytes=digits.with_hidden(found.onnx_bytes))


@pytest.fixture(scope="module")
def found(trained: digits.Trained) -> reference_run.Measured:
    return measured(trained.onnx_bytes, "hidden", image=trained.reference_x, y=trained.reference_y)


def test_axes_are_those_of_a_principal_component_analysis() -> None:
    values = RNG.normal(size=(300, 12)) @ RNG.normal(size=(12, 12)) + 5
    along = embedding.fitted("e", values.astype(np.float32))
    _, scale, rows = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    assert along.mean == pytest.approx(values.mean(axis=0), rel=1e-5)
    assert np.abs(np.einsum("ij,ij->i", along.axes, rows[: probes.MAX_AXES])) == pytest.approx(1, abs=1e-4)
    placed = probes.embedded(values.astype(np.float32), along)
    assert placed["embedding.0"].std() == pytest.approx(scale[0] / np.sqrt(300), rel=1e-3)
    rest = (values - values.mean(axis=0)) @ rows[probes.MAX_AXES :].T
    assert placed["embedding.rest"] == pytest.approx(np.linalg.norm(rest, axis=1), rel=1e-3)


def test_a_baseline_has_the_embedding_as_a_group_of_its_own(found: reference_run.Measured) -> None:
    baseline = packing.baseline_of(packing.Label("digits", "1.0.0"), found)
    group = [feature for feature in baseline.features if feature.group == "embedding"]
    assert [feature.name for feature in group] == [*(f"embedding.{axis}" for axis in range(8)), "embedding.rest"]
    assert {sum(feature.counts) for feature in group} == {baseline.samples}
    assert {"output.confidence", "class.predicted"} <= {feature.name for feature in baseline.features}


def test_without_a_name_nothing_changes_for_anybody(trained: digits.Trained) -> None:
    plain = measured(trained.onnx_bytes, None, image=trained.reference_x, y=trained.reference_y)
    assert not [name for name in plain.features if name.startswith("embedding")]
    with np.load(io.BytesIO(plain.golden)) as golden:
        assert all(name.startswith(("input.", "output.")) for name in golden.files)


def test_a_worker_measures_what_was_measured_at_publish(
    trained: digits.Trained, found: reference_run.Measured, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(trained.onnx_bytes)
    (tmp_path / "golden.npz").write_bytes(found.golden)
    along = worker_session.projection(str(tmp_path / "model.onnx"))
    assert along is not None
    session = worker_session.load(str(tmp_path / "model.onnx"), providers=[worker_session.CPU], threads=1)
    features = probes.probe({}, session.run({"image": trained.reference_x[:64]}), along)
    for name in ("embedding.0", "embedding.7", "embedding.rest", "output.confidence"):
        assert features[name] == pytest.approx(found.features[name][:64], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("golden", [b"", b"no archive", None])
def test_a_golden_file_that_cannot_be_read_costs_features_and_no_worker(tmp_path: Path, golden: bytes | None) -> None:
    if golden is not None:
        (tmp_path / "golden.npz").write_bytes(golden)
    assert worker_session.projection(str(tmp_path / "model.onnx")) is None


@pytest.mark.parametrize(
    "change",
    [
        {probes.AXES: np.zeros((9, 4), np.float32)},
        {probes.AXES: np.zeros((2, 5), np.float32)},
        {probes.MEAN: np.zeros(probes.MAX_WIDTH + 1, np.float32)},
        {probes.MEAN: np.zeros(4, np.int64)},
        {probes.OUTPUT: np.array(["two", "names"])},
        {probes.OUTPUT: np.array(7)},
    ],
)
def test_a_projection_of_another_form_is_none(change: dict[str, np.ndarray]) -> None:
    good = {
        probes.OUTPUT: np.array("e"),
        probes.MEAN: np.zeros(4, np.float32),
        probes.AXES: np.eye(2, 4, dtype=np.float32),
    }
    assert probes.projection(good) is not None
    assert probes.projection(good | change) is None


def test_values_that_are_not_finite_or_of_another_width_are_missing_or_left_out() -> None:
    along = probes.Projection("e", np.zeros(4, np.float32), np.eye(2, 4, dtype=np.float32))
    bad = np.array([[1, 2, 3, 4], [np.nan, 0, 0, 0], [0, 0, 0, np.inf]], np.float32)
    placed = probes.embedded(bad, along)
    assert placed["embedding.0"][0] == 1
    assert placed["embedding.rest"][0] == 5
    assert not np.isfinite(placed["embedding.rest"][1:]).any()
    for other in (None, np.zeros((3, 5), np.float32), np.zeros((3, 4), np.int64), np.zeros(4, np.float32)):
        assert probes.embedded(other, along) == {}


def test_an_embedding_that_comes_first_is_not_taken_for_scores() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    outputs = {"e": np.array([[9, 1, 2, 3]] * 2, np.float32), "scores": scores}
    along = probes.Projection("e", np.zeros(4, np.float32), np.eye(2, 4, dtype=np.float32))
    assert probes.probe({}, outputs, along)["class.predicted"].tolist() == [1, 0]
    assert probes.class_scores(probes.answers(outputs, along)) is scores


def branch(*nodes: object, shape: list[object], initializers: tuple[object, ...] = ()) -> bytes:
    """`x` [n, 3] -> `y`, the soft-max of it, and `e`, made by `nodes`."""
    softmax = helper.make_node("Softmax", ["x"], ["y"])
    return model([softmax, *nodes], {"x": ["n", 3]}, {"y": ["n", 3], "e": shape}, initializers)


ROWS = RNG.random((40, 3)).astype(np.float32)
BAD = {
    "three dimensions": (branch(helper.make_node("Unsqueeze", ["x", "one"], ["e"]), shape=["n", 1, 3],
        initializers=(numpy_helper.from_array(np.array([1], np.int64), "one"),)), r"shape \[40, 1, 3\]"),
    "no row for each": (branch(helper.make_node("ReduceMean", ["x"], ["e"], keepdims=0), shape=[]), r"shape \[\]"),
    "not finite": (branch(helper.make_node("Log", ["below"], ["e"]), helper.make_node("Sub", ["x", "half"], ["below"]),
        shape=["n", 3], initializers=(numpy_helper.from_array(np.array(0.5, np.float32), "half"),)), "NaN or infinity"),
    "always the same": (branch(helper.make_node("Mul", ["x", "nil"], ["e"]), shape=["n", 3],
        initializers=(numpy_helper.from_array(np.array(0, np.float32), "nil"),)), "same for every row"),
}  # fmt: skip


@pytest.mark.parametrize("what", [name for name in BAD if name != "not finite"])
def test_an_output_that_cannot_be_one_is_refused_with_the_reason(what: str) -> None:
    onnx, said = BAD[what]
    with pytest.raises(EmbeddingError, match=said):
        measured(onnx, "e", x=ROWS)


def test_values_that_are_not_finite_beyond_the_golden_rows_are_refused() -> None:
    node = helper.make_node("Div", ["x", "x"], ["e"])
    rows = ROWS.copy()
    rows[30] = 0  # 0 / 0, in no golden row
    with pytest.raises(EmbeddingError, match="NaN or infinity"):
        measured(branch(node, shape=["n", 3]), "e", x=rows)


def test_a_width_that_only_the_run_tells_is_as_good_as_a_declared_one() -> None:
    node = helper.make_node("Mul", ["x", "x"], ["e"])
    found = measured(branch(node, shape=["n", "width"]), "e", x=ROWS)
    assert {"embedding.0", "embedding.1", "embedding.2"} <= found.features.keys()
    assert "embedding.rest" not in found.features  # three axes span three values


def test_a_wrong_name_is_refused_before_anything_runs_and_the_outputs_are_told(founded: Workshop) -> None:
    file, data = founded.files(digits.train())
    words = ("publish", "digits", "1.0.0", file, "--reference", data, "--embedding", "hiden")
    result = founded.flotilla("model", *words)
    assert result.exit_code == 1
    assert "E_EMBEDDING: the model has no output 'hiden'; it has scores" in result.output


def test_the_command_publishes_a_release_whose_embedding_is_watched(founded: Workshop, trained: digits.Trained) -> None:
    assert founded.publish("1.0.0", trained, "--embedding", "hidden")["published"]
    shown = founded.flotilla("model", "show", "digits@1.0.0")
    assert "16 features" in shown.output  # 3 of the input, 3 of the output, the class, 8 axes and the rest
