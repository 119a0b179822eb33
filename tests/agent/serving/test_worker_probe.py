import numpy as np
import pytest

from agent.serving import worker_wire
from agent.serving.worker_probe import MAX_KEPT, Prober
from shared import probes


def request(rows: int, seed: int, side: int = 8) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    chance = np.random.default_rng(seed)
    scores = chance.random((rows, 10), dtype=np.float32)
    images = chance.random((rows, 1, side, side), dtype=np.float32)
    return {"image": images}, {"scores": scores / scores.sum(axis=1, keepdims=True)}


def test_together_or_alone_gives_the_same_features() -> None:
    prober = Prober()
    asked = [request(rows, seed, side) for seed, (rows, side) in enumerate([(1, 8), (3, 8), (1, 9), (2, 8), (1, 600)])]
    for number, (inputs, results) in enumerate(asked):
        assert prober.add(number, inputs, results) == (inputs["image"].size > 16 * 1024)
    prober.add(99, {}, {})  # one that failed
    found = dict(prober.flush())
    assert found.pop(99) == b""
    assert prober.empty
    assert sorted(found) == [0, 1, 2, 3, 4]
    for number, (inputs, results) in enumerate(asked):
        alone = probes.probe(inputs, results)
        together = worker_wire.unpack_features(found[number])
        assert list(together) == list(alone)
        for name, values in alone.items():
            assert together[name] == pytest.approx(values.tolist(), rel=1e-6), name


def test_many_rows_are_thinned_out_evenly() -> None:
    prober = Prober()
    inputs, results = request(1000, 1)
    prober.add(1, inputs, results)
    ((_, packed),) = prober.flush()
    classes = worker_wire.unpack_features(packed)["class.predicted"]
    assert list(classes) == results["scores"][::4].argmax(axis=1).tolist()


def test_it_is_full_after_so_many() -> None:
    prober = Prober()
    for number in range(MAX_KEPT):
        assert not prober.full
        prober.add(number, {}, {})
    assert prober.full
    prober.clear()
    assert prober.empty
    assert not prober.full


def test_large_inputs_are_not_copied_and_probed_at_once() -> None:
    prober = Prober()
    inputs, results = request(1, 1, 400)
    assert prober.add(1, inputs, results)
    assert prober.full
    expected = probes.probe(inputs, results)["input.brightness"][0]
    inputs["image"][:] = 0.25
    ((_, packed),) = prober.flush()
    assert worker_wire.unpack_features(packed)["input.brightness"][0] == 0.25 != expected


def test_small_inputs_are_copied() -> None:
    prober = Prober()
    inputs, results = request(1, 1)
    expected = probes.probe(inputs, results)["input.brightness"][0]
    assert not prober.add(1, inputs, results)
    inputs["image"][:] = 0.25
    ((_, packed),) = prober.flush()
    assert worker_wire.unpack_features(packed)["input.brightness"][0] == expected


def test_after_a_large_input_only_answers_are_probed_for_a_while() -> None:
    prober = Prober()
    inputs, results = request(1, 1, 400)
    assert prober.add(1, inputs, results)
    list(prober.flush())
    assert not prober.add(2, inputs, results)
    assert prober.own(inputs) == {}
    small, scores = request(1, 2)
    assert not prober.add(3, small, scores)
    found = dict(prober.flush())
    assert "input.brightness" not in worker_wire.unpack_features(found[2])
    assert "output.confidence" in worker_wire.unpack_features(found[2])
    assert "input.brightness" in worker_wire.unpack_features(found[3])
    prober._rests_until = 0.0
    assert prober.add(4, inputs, results)


def test_what_is_lent_is_looked_at_in_a_copy() -> None:
    prober = Prober()
    inputs, results = request(1, 1, 400)
    own = prober.own(inputs)
    inputs["image"][:] = 0.25
    prober.add(1, own, results)
    ((_, packed),) = prober.flush()
    assert worker_wire.unpack_features(packed)["input.brightness"][0] != 0.25


def test_switched_off_it_only_tells_who_was_answered() -> None:
    prober = Prober(on=False)
    for number, side in enumerate((8, 400)):
        assert not prober.add(number, *request(1, 1, side))  # nobody waits for a look at the arena
    assert list(prober.flush()) == [(0, b""), (1, b"")]
