"""Compiled engines on disk: complete or not there, whatever was interrupted."""

import json
from pathlib import Path

import pytest

from agent.serving.engines import Engines, Place, Setup
from agent.serving.providers import CPU, CUDA, TENSORRT
from agent.settings import ServingSettings

ALL = (TENSORRT, CUDA, CPU)
ONE, TWO = "1" * 64, "2" * 64
RUNTIME = ("libnvinfer.so.10.3.0", "onnxruntime 1.23.0")


def setup(folder: Path, digest: str = ONE, **changes: object) -> Setup:
    engines = Engines(folder, ServingSettings.model_validate(changes.pop("settings", {})))
    asked = {"half": False, "runtime": RUNTIME, **changes}
    return engines.setup(ALL, digest=digest, **asked)  # type: ignore[arg-type]


def place_of(found: Setup) -> Place:
    assert found.place is not None
    return found.place


def made(folder: Path, digest: str = ONE, **changes: object) -> Place:
    place = place_of(setup(folder, digest, **changes))
    place.prepare()
    (place.made / "graph.engine").write_bytes(b"engine")
    assert Engines(folder, ServingSettings()).finish(place, seconds=1.0)
    return place


def test_what_is_finished_is_read_and_no_longer_written(tmp_path: Path) -> None:
    before = setup(tmp_path)
    place = place_of(before)
    place.prepare()
    assert before.building
    assert before.writable == [str(place.scratch), str(place.made)]
    made(tmp_path)
    after = setup(tmp_path)
    assert after.place == place
    assert not after.building
    assert (after.readable, after.writable) == ([str(place.made)], [])
    assert after.options[TENSORRT]["trt_engine_cache_path"] == str(place.made)
    assert not place.scratch.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": TWO},
        {"runtime": ("libnvinfer.so.10.7.0", "onnxruntime 1.23.0")},
        {"half": True},
        {"settings": {"gpu_memory_bytes": 2**30}},
    ],
)
def test_another_model_runtime_or_way_to_compute_has_engines_of_its_own(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    assert setup(tmp_path, **changes).place != setup(tmp_path).place  # type: ignore[arg-type]


def test_half_precision_is_off_where_the_operator_says_so(tmp_path: Path) -> None:
    found = setup(tmp_path, half=True, settings={"fp16": "off"})
    assert found.options[TENSORRT]["trt_fp16_enable"] is False
    assert found.place == setup(tmp_path).place


def test_no_engines_are_kept_where_nothing_is_compiled(tmp_path: Path) -> None:
    engines = Engines(tmp_path, ServingSettings())
    for fit, digest in (((CUDA, CPU), ONE), (ALL, "")):
        found = engines.setup(fit, digest=digest, half=False, runtime=RUNTIME)
        assert found.place is None
        assert not found.building
        assert found.readable == found.writable == []


def cut_short(place: Place) -> None:
    (place.made / "graph.engine").write_bytes(b"eng")


def unmarked(place: Place) -> None:
    (place.folder / "complete.json").unlink()


def half_a_word(place: Place) -> None:
    mark = place.folder / "complete.json"
    mark.write_bytes(mark.read_bytes()[:20])


def one_more(place: Place) -> None:
    (place.made / "other.engine").write_bytes(b"engine")


def no_list(place: Place) -> None:
    (place.folder / "complete.json").write_text(json.dumps([1]))


@pytest.mark.parametrize("damage", [cut_short, unmarked, half_a_word, one_more, no_list])
def test_what_is_not_as_it_was_finished_is_made_again(tmp_path: Path, damage: object) -> None:
    place = made(tmp_path)
    damage(place)  # type: ignore[operator]
    assert setup(tmp_path).building
    place.prepare()
    assert list(place.made.iterdir()) == []
    assert not place.complete()


def test_a_provider_that_left_nothing_is_told_of(tmp_path: Path) -> None:
    place = place_of(setup(tmp_path))
    place.prepare()
    assert not place.finish(seconds=1.0)
    assert not place.complete()


def test_preparing_what_is_complete_touches_nothing(tmp_path: Path) -> None:
    place = made(tmp_path)
    place.prepare()
    assert place.complete()


def test_engines_go_with_their_model_and_with_their_runtime(tmp_path: Path) -> None:
    old = made(tmp_path, runtime=("libnvinfer.so.8.6.2",))
    place, other = made(tmp_path), made(tmp_path, TWO)
    assert not old.folder.exists()
    engines = Engines(tmp_path, ServingSettings())
    engines.prune(lambda: {ONE})
    assert place.complete()
    assert not other.folder.exists()
    engines.prune(set)
    assert list((tmp_path / "engines").iterdir()) == []
    engines.prune(lambda: pytest.fail("there are none"))
