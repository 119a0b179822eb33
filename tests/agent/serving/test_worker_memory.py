"""What a model takes: of the process, and of the machine where the GPU shares its memory."""

import ctypes

import pytest

from agent.serving import worker_memory
from agent.serving.worker_memory import Memory

BEFORE = Memory(resident_bytes=100, peak_bytes=150, private_bytes=80, available_bytes=1000)
AFTER = Memory(resident_bytes=140, peak_bytes=190, private_bytes=110, available_bytes=400)


def test_what_the_machine_lost_counts_only_where_the_gpu_shares_its_memory() -> None:
    assert worker_memory.added(BEFORE, AFTER, unified=False) == (90, 30)
    assert worker_memory.added(BEFORE, AFTER, unified=True) == (600, 600)


def test_this_process_takes_something() -> None:
    found = worker_memory.now()
    assert 0 < found.resident_bytes <= found.peak_bytes
    assert found.available_bytes > 0


def test_memory_is_taken_for_shared_where_no_driver_tells() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert worker_memory.unified()
    else:
        pytest.skip("an NVIDIA driver is installed here (test_real_gpu.py asks it)")
