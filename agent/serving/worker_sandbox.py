"""A process that is about to open a model shuts itself in: what it may read, what it may ask of the kernel.

    limits -> no new privileges -> Landlock (worker_landlock) -> seccomp (worker_seccomp), by ctypes alone

No privileges are needed and nothing can be undone. What this kernel lacks is said, not hidden: the caller logs it.
Descriptors that are already open, or arrive later from the daemon or the front, go on working. Python 3.10 syntax.

I/O: disk, process.
"""

import ctypes
import glob
import os
import re
import resource
import sys
from collections.abc import Iterator, Sequence

from agent.serving import worker_landlock, worker_seccomp

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_NO_NEW_PRIVILEGES = 38  # for prctl(2)
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # for unshare(2)
_DESCRIPTORS = (1024, 16384)  # without and with an accelerator, whose driver opens one for each allocation

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_SYSTEM = (
    *("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/etc/localtime", "/usr/share/zoneinfo"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems"),
    *("/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu", "/sys/devices/system/node"),
)
#: What GPU drivers look at: their settings, their devices, where those hang.
_ACCELERATOR = (
    *("/usr/local/cuda*", "/opt/nvidia", "/etc/nvidia*", "/usr/share/nvidia*", "/etc/nv_tegra_release"),
    *("/proc/driver", "/proc/devices", "/proc/modules", "/proc/sys/kernel", "/proc/sys/vm"),
    *("/proc/device-tree", "/sys/firmware/devicetree", "/sys/bus", "/sys/class", "/sys/devices", "/sys/module"),
    *("/sys/dev", "/sys/kernel/mm"),
)
_LIBRARY_CACHE = "/etc/ld.so.cache"  # where the system finds libraries: a driver's may lie anywhere
_GPU_LIBRARY = re.compile(rb"/[^\0]*/lib(?:cu|nv)[^/\0]*\.so[^/\0]*(?=\0)")
_THREADS = "/proc/self/task"  # CUDA gives up where it may not write the names of its threads there
_DEVICES = ("/dev/nv*", "/dev/dri", "/dev/dri/*", "/dev/host1x*", "/dev/dma_heap")


def enter(*, readable: Sequence[str], writable: Sequence[str] = (), accelerator: bool = False) -> Sequence[str]:
    """Give up, for good, all that answering needs not. What could not be had, as texts for one line of a log.

    Args:
        readable: folders or files of the model. Interpreter, libraries and a few facts of the machine are added.
        writable: folders in which files may be made (compiled engines); with none, nothing on disk can be changed.
        accelerator: also the devices, libraries and settings of GPU drivers.

    Best called while the process has one thread: older kernels shut in only the caller and the threads it starts.
    """
    missing: list[str] = []
    _limit(accelerator=accelerator, may_write=bool(writable), missing=missing)
    if accelerator and writable:  # else the driver would keep what it compiles in the home folder
        os.environ.setdefault("CUDA_CACHE_PATH", os.path.join(writable[0], "driver"))
        os.environ["TMPDIR"] = writable[0]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    threads = len(os.listdir("/proc/self/task"))
    try:
        version = worker_landlock.restrict(
            readable=[*readable, *writable, *_needed(readable, accelerator=accelerator)],
            writable=writable,
            devices=[*_found(_DEVICES), "/dev/null", _THREADS] if accelerator else (),
        )
        if threads > 1 and version < 8:
            missing.append(f"Landlock for {threads - 1} threads that run already (needs Linux 7)")
    except worker_landlock.NoLandlockError as error:
        reach = "read any file of this user" + (", or change one through the rights of its GPU's driver" * accelerator)
        missing.append(f"Landlock ({error}): a model could make onnxruntime {reach}")
    try:
        worker_seccomp.restrict(may_write=bool(writable), devices=accelerator)
    except worker_seccomp.NoSeccompError as error:
        lost = "processes and the machine's settings stay in reach"
        if accelerator or not _leave_network(libc):
            lost = "the network, " + lost
        missing.append(f"seccomp ({error}): {lost}")
    return missing


def _limit(*, accelerator: bool, may_write: bool, missing: list[str]) -> None:
    """No core files, no files at all unless asked for, a bound on descriptors.

    Processes are not counted here: the kernel counts them per user, with the daemon's. seccomp refuses new ones.
    """
    wanted = [
        ("core files", resource.RLIMIT_CORE, 0),
        ("descriptors", resource.RLIMIT_NOFILE, _DESCRIPTORS[accelerator]),
    ]
    if not may_write:
        wanted.append(("file sizes", resource.RLIMIT_FSIZE, 0))
    for name, kind, value in wanted:
        try:
            limit(kind, value)
        except (OSError, ValueError) as error:
            missing.append(f"the limit of {name} ({error})")


def limit(kind: int, value: int) -> None:
    """Never more than `value` of this resource, also when less was allowed before. Raises OSError or ValueError."""
    hard = resource.getrlimit(kind)[1]
    # The first limit of processor time ends the process by a signal of its own name, the last by SIGKILL.
    last = value + 1 if kind == resource.RLIMIT_CPU else value
    if hard != resource.RLIM_INFINITY:
        value, last = min(value, hard), min(last, hard)
    resource.setrlimit(kind, (value, last))


def _leave_network(libc: ctypes.CDLL) -> bool:
    """An empty network namespace, where the kernel allows it."""
    return any(libc.unshare(views) == 0 for views in (_NEW_NETWORK, _NEW_NETWORK | _NEW_USER))


def _needed(readable: Sequence[str], *, accelerator: bool) -> Iterator[str]:
    """What every process of ours reads: interpreter, packages, libraries, the machine."""
    yield from _LIBRARIES
    yield from _SYSTEM
    yield from (_OURS, os.path.join(os.path.dirname(_OURS), "shared"))
    for prefix in {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}:
        yield from (os.path.join(prefix, "lib"), os.path.join(prefix, "lib64"))
    closed = [os.path.realpath(path) for path in readable]
    drivers = _gpu_libraries() if accelerator else ()
    for path in (*sys.path, *os.environ.get("LD_LIBRARY_PATH", "").split(":"), *drivers):
        # A folder that holds the models holds keys, too: whoever put it on the path did not mean that.
        if path and not any(_holds(os.path.realpath(path), model) for model in closed):
            yield path
    if accelerator:
        yield from _found(_ACCELERATOR)


def _gpu_libraries() -> Iterator[str]:
    """Folders with libraries of GPUs, by the system's own list of them."""
    try:
        with open(_LIBRARY_CACHE, "rb") as file:
            found = {os.fsdecode(path) for path in _GPU_LIBRARY.findall(file.read())}
    except OSError:
        return
    yield from sorted({os.path.dirname(place) for path in found for place in (path, os.path.realpath(path))})


def _holds(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _found(patterns: Sequence[str]) -> list[str]:
    return [path for pattern in patterns for path in glob.glob(pattern)]
