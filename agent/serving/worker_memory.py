"""What this process takes of the machine's memory. Python 3.10 syntax: also runs under the worker's interpreter.

I/O: disk.
"""

import ctypes
import re
from typing import NamedTuple

_KIB = 1024
_INTEGRATED = 18  # for cuDeviceGetAttribute


class Memory(NamedTuple):
    """Bytes. `peak_bytes` is the most that was resident since the process began."""

    resident_bytes: int
    peak_bytes: int
    private_bytes: int  # what ends with this process
    available_bytes: int  # of the machine, for everybody


def now() -> Memory:
    """0 where the kernel does not tell."""
    status = _numbers("/proc/self/status")
    pages = _numbers("/proc/self/smaps_rollup")
    private = pages.get("Private_Clean", 0) + pages.get("Private_Dirty", 0)
    machine = _numbers("/proc/meminfo")
    return Memory(status.get("VmRSS", 0), status.get("VmHWM", 0), private, machine.get("MemAvailable", 0))


def added(before: Memory, after: Memory, *, unified: bool) -> "tuple[int, int]":
    """Bytes that came on top of `before`: at most, and for good.

    Args:
        unified: the GPU shares the machine's memory, and what it takes is in no process's account. Then what the
            whole machine lost counts, if it is more.
    """
    peak = max(after.peak_bytes, after.resident_bytes) - before.resident_bytes
    lasting = (after.private_bytes or after.resident_bytes) - (before.private_bytes or before.resident_bytes)
    lost = before.available_bytes - after.available_bytes if unified else 0
    return max(peak, lost, 0), max(lasting, lost, 0)


def unified() -> bool:
    """Whether the GPU shares the machine's memory, as a Jetson's does: a card has its own. Ask after it was used.

    True where its driver does not tell.
    """
    device, shares = ctypes.c_int(), ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0)
        failed = failed or driver.cuDeviceGetAttribute(ctypes.byref(shares), _INTEGRATED, device)
    except (OSError, AttributeError):
        return True
    return bool(failed or shares.value)


def _numbers(path: str) -> "dict[str, int]":
    try:
        with open(path) as file:
            text = file.read()
    except OSError:
        return {}
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    sums: "dict[str, int]" = {}
    for name, number in found:
        sums[name] = sums.get(name, 0) + int(number) * _KIB
    return sums
