"""Numbers about inputs and answers, beside what they are defined as."""

import colorsys

import numpy as np
import pytest

from shared import probes, sketches

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("axis", [1, 3])
def test_saturation_is_the_mean_distance_of_the_highest_from_the_lowest_colour(axis: int) -> None:
    picture = RNG.random((2, 4, 5, 3))
    found = probes.probe({"x": np.moveaxis(picture, 3, axis)}, {})["input.saturation"]
    for row in range(2):
        pixels = [colorsys.rgb_to_hsv(*pixel) for pixel in picture[row].reshape(-1, 3)]
        assert found[row] == pytest.approx(np.mean([saturation * value for _, saturation, value in pixels]))


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 1, 8, 8), (2, 4, 8, 8), (2, 3), (2, 3, 3)])
def test_without_three_colours_there_is_no_saturation(shape: tuple[int, ...]) -> None:
    assert "input.saturation" not in probes.probe({"x": RNG.random(shape)}, {})


def test_grey_pictures_have_none_and_colourful_ones_do() -> None:
    grey = np.repeat(RNG.random((1, 1, 8, 8)), 3, axis=1)
    assert probes.probe({"x": grey}, {})["input.saturation"] == [0.0]
    red = np.zeros((1, 3, 8, 8))
    red[:, 0] = 1
    assert probes.probe({"x": red}, {})["input.saturation"] == [1.0]


def test_missing_values_are_counted_and_left_out_of_mean_and_spread() -> None:
    table = np.array([[1.0, 2.0, 3.0, np.nan], [4.0, 4.0, 4.0, 4.0], [np.nan] * 4, [np.inf, 1.0, 1.0, 3.0]])
    found = probes.probe({"x": table}, {})
    assert found["input.missing"].tolist() == [0.25, 0.0, 1.0, 0.25]
    assert found["input.mean"].tolist() == pytest.approx([2.0, 4.0, np.nan, 5 / 3], nan_ok=True)
    assert found["input.spread"][:2].tolist() == pytest.approx([np.std([1, 2, 3]), 0.0])


def test_whole_tables_have_the_plain_mean_and_spread() -> None:
    table = RNG.normal(size=(6, 9)).astype(np.float32)
    found = probes.probe({"x": table}, {})
    assert found["input.mean"] == pytest.approx(table.mean(axis=1), abs=1e-6)
    assert found["input.spread"] == pytest.approx(table.std(axis=1), abs=1e-6)
    assert found["input.missing"].tolist() == [0.0] * 6


def test_a_value_that_never_missed_before_is_seen_when_it_does() -> None:
    """The reference has no missing value at all: its only value has a bin of its own."""
    edges = sketches.quantile_edges([0.0] * 100)
    assert sketches.count(edges, [0.0] * 10) == ([0, 10, 0], 0)
    assert sketches.count(edges, [0.25, 1.0, -1.0]) == ([1, 0, 2], 0)


CORNERS = np.array([[[0, 0, 2, 3], [1, 1, 3, 3], [0, 0, 9, 9]], [[0, 0, 1, 1]] * 3], np.float32)
SCORES = np.array([[0.9, 0.6, 0.2], [0.1, 0.5, 0.0]], np.float32)


@pytest.mark.parametrize(
    "outputs",
    [
        {"boxes": CORNERS, "scores": SCORES},
        {"scores": SCORES, "boxes": CORNERS, "labels": np.zeros((2, 3), np.int64)},
        {"all": np.concatenate([CORNERS, SCORES[:, :, None], np.zeros((2, 3, 1), np.float32)], axis=2)},
    ],
)
def test_a_detector_is_known_by_its_shapes(outputs: dict[str, np.ndarray]) -> None:
    found = probes.probe({}, outputs)
    assert set(found) == {"output.count", "output.area"}  # scores of boxes are not scores of classes
    assert found["output.count"].tolist() == [2, 0]
    assert found["output.area"].tolist() == pytest.approx([(6 + 4) / 2, np.nan], nan_ok=True)
    assert probes.class_scores(outputs) is None


def test_scores_of_classes_are_those_of_a_classifier() -> None:
    outputs = {"embedding": np.zeros((2, 3, 5), np.float32), "scores": SCORES}
    assert probes.class_scores(outputs) is SCORES
    assert probes.probe({}, outputs)["class.predicted"].tolist() == [0, 1]
