"""Is there memory for what is about to be loaded: beside the version that serves, instead of it, or not at all?

I/O: none.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.serving.providers import CPU
from agent.update.reasons import NoMemoryError

LOADING_FACTOR: Final = 2  # of the file's size, at the peak of loading (ONNX Runtime from a path: 1.8 to 2.1)
GPU_CONTEXT_BYTES: Final = 300 * 1024**2  # of the machine's, that CUDA takes in each process
_MIB: Final = 1024**2


class Way(StrEnum):
    """How a version comes into memory."""

    BESIDE = "beside"  # what serves stays loaded
    ALONE = "alone"  # it is ended first


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. None: cannot be read here, so it is no reason against anything."""

    available: int | None
    freed: int  # that come back when the version which serves ends
    margin: int  # to be left over


def expected_bytes(file_bytes: int, provider: str) -> int:
    """What loading a file takes, before it was ever tried."""
    return LOADING_FACTOR * file_bytes + (0 if provider == CPU else GPU_CONTEXT_BYTES)


def way(what: str, needed: int, memory: Memory, *, may_stop: bool) -> Way:
    """For `what`, which needs so many bytes at its peak.

    Args:
        may_stop: the operator lets the version that serves end before (serving.when_memory_is_short).

    Raises:
        NoMemoryError: neither way.
    """
    if memory.available is None or memory.available >= needed + memory.margin:
        return Way.BESIDE
    alone = memory.available + memory.freed >= needed + memory.margin
    if alone and memory.freed > 0 and may_stop:
        return Way.ALONE
    detail = (
        f"{what} needs {_mib(needed)} and {_mib(memory.margin)} to spare, {_mib(memory.available)} are available"
        f" and {_mib(memory.freed)} more when the version that serves is ended first"
    )
    if alone and memory.freed > 0:
        raise NoMemoryError(detail, remedy="serving.when_memory_is_short: stop-start ends it first (requests wait)")
    raise NoMemoryError(detail)


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB"
