"""Beside what serves, instead of it, or not at all."""

import pytest

from agent.serving.providers import CPU, CUDA
from agent.update.reasons import NoMemoryError
from agent.update.room import GPU_CONTEXT_BYTES, Memory, Way, expected_bytes, way

MIB = 1024**2


@pytest.mark.parametrize(
    ("available", "freed", "may_stop", "found"),
    [
        (1000, 0, False, Way.BESIDE),
        (600, 0, False, Way.BESIDE),
        (599, 500, True, Way.ALONE),
        (100, 500, True, Way.ALONE),
        (None, 0, False, Way.BESIDE),  # cannot be read here
    ],
)
def test_what_serves_ends_only_where_both_do_not_fit(
    available: int | None, freed: int, may_stop: bool, found: Way
) -> None:
    memory = Memory(None if available is None else available * MIB, freed * MIB, 100 * MIB)
    assert way("it", 500 * MIB, memory, may_stop=may_stop) is found


@pytest.mark.parametrize(
    ("available", "freed", "may_stop", "remedy"),
    [
        (599, 500, False, "serving.when_memory_is_short: stop-start"),
        (599, 0, True, "free memory"),
        (50, 500, True, "free memory"),
        (50, 500, False, "free memory"),
    ],
)
def test_without_room_it_is_refused_with_what_is_needed_and_what_is_there(
    available: int, freed: int, may_stop: bool, remedy: str
) -> None:
    with pytest.raises(NoMemoryError, match=f"it needs 500 MiB and 100 MiB to spare, {available} MiB") as caught:
        way("it", 500 * MIB, Memory(available * MIB, freed * MIB, 100 * MIB), may_stop=may_stop)
    assert remedy in caught.value.remedy


def test_loading_takes_twice_the_file_and_a_gpu_its_libraries() -> None:
    assert expected_bytes(100, CPU) == 200
    assert expected_bytes(100, CUDA) == 200 + GPU_CONTEXT_BYTES
