"""The machine: load, memory, disk, GPU, power, temperatures, and which class of hardware it is.

Reads psutil and, on a Jetson, sysfs as jtop does. What cannot be read is None, never an error.

I/O: disk.
"""

import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from agent.telemetry import jetson, strain
from agent.telemetry.strain import Strain
from agent.telemetry.sysfs import matching, number, text
from shared.messages import MAX_CORES, HostMetrics

ROOT: Final = Path("/")
_GPU_LOADS: Final = (  # in thousandths; JetPack 4, 5, 6
    "sys/devices/gpu.0/load",
    "sys/devices/platform/gpu.0/load",
    "sys/devices/platform/bus@0/*.gpu/load",
    "sys/devices/platform/*.gpu/load",
    "sys/class/devfreq/*gpu*/device/load",
)
_BOARDS: Final = (  # device tree model -> class
    (r"orin nano", "orin-nano"),
    (r"orin nx", "orin-nx"),
    (r"agx orin", "agx-orin"),
    (r"agx thor|jetson thor", "thor"),
    (r"xavier nx", "xavier-nx"),
    (r"agx xavier", "agx-xavier"),
    (r"jetson nano", "nano"),
    (r"raspberry pi (\d+)", r"raspberry-pi-\1"),
)
_GIB: Final = 1024**3
_EVENTS: Final = (  # counters: over-current on a Jetson, heat on a PC
    "sys/class/hwmon/hwmon*/oc*_event_cnt",
    "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count",
)
_FIRMWARE: Final = "sys/devices/platform/soc/soc:firmware/get_throttled"  # Raspberry Pi
_POWER_MODE: Final = "var/lib/nvpmodel/status"  # Jetson
_KIB: Final = 1024


def measure(folder: Path, root: Path = ROOT) -> HostMetrics:
    """The host now. `cpu_ratio` is since the call before; `disk_free_bytes` is of `folder`."""
    memory = _memory()
    rails = jetson.rails(root)
    return HostMetrics(
        cpu_ratio=_cpu(),
        memory_used_bytes=memory[0],
        memory_total_bytes=memory[1],
        disk_free_bytes=_disk_free(folder),
        gpu_ratio=_gpu(root),
        temperature_celsius=_temperature(root),
        swap_used_bytes=_swap(),
        power_watts=strain.whole_board(rails),
        fan_ratio=jetson.fan(root),
        power_mode=strain.power_mode(text(root / _POWER_MODE) or ""),
        cores_ratio=_cores(),
        engines_mhz=jetson.engines(root),
        rails_watts=rails,
        temperatures_celsius=jetson.temperatures(root),
        throttled=jetson.throttled(root),
    )


def hardware_class(root: Path = ROOT) -> str:
    """Such as `orin-nano-8g`, `raspberry-pi-5-8g`, or the machine's architecture."""
    board = (text(root / "proc/device-tree/model") or "").replace("\0", "").lower()
    for pattern, name in _BOARDS:
        found = re.search(pattern, board)
        if found is not None:
            total = _memory()[1] or 0
            return f"{found.expand(name)}-{_marketed(total / _GIB)}g" if total else found.expand(name)
    return platform.machine() or "unknown"


def _marketed(gibibytes: float) -> int:
    """The size on the box: the next power of two, since firmware keeps a part for itself."""
    size = 1
    while size < gibibytes:
        size *= 2
    return size


def _cpu() -> float | None:
    try:
        return min(1.0, max(0.0, psutil.cpu_percent(interval=None) / 100))
    except (OSError, psutil.Error):
        return None


def _cores() -> tuple[float, ...]:
    try:
        ratios = psutil.cpu_percent(interval=None, percpu=True)
    except (OSError, psutil.Error):
        return ()
    return tuple(min(1.0, max(0.0, ratio / 100)) for ratio in ratios[:MAX_CORES])


def _swap() -> int | None:
    try:
        return int(psutil.swap_memory().used)
    except (OSError, psutil.Error):
        return None


def _memory() -> tuple[int | None, int | None]:
    try:
        memory = psutil.virtual_memory()
    except (OSError, psutil.Error):
        return None, None
    return int(memory.total - memory.available), int(memory.total)


def _disk_free(folder: Path) -> int | None:
    try:
        return int(psutil.disk_usage(str(folder)).free)
    except (OSError, psutil.Error):
        return None


def _gpu(root: Path) -> float | None:
    for pattern in _GPU_LOADS:
        for path in matching(root, pattern):
            load = number(path)
            if load is not None and 0 <= load <= 1000:
                return load / 1000
    return None


def _temperature(root: Path) -> float | None:
    zone = _hottest(root)
    return None if zone is None else zone.celsius


def _hottest(root: Path) -> strain.Zone | None:
    return strain.hottest(_pairs(root, "sys/class/thermal/thermal_zone*", "type", "temp"))


def _pairs(root: Path, pattern: str, first: str, second: str) -> Iterator[tuple[str, str]]:
    """Two files of each folder."""
    for folder in matching(root, pattern):
        yield text(folder / first) or "", text(folder / second) or ""


class Machine:
    """What an update asks of the machine before it loads something. Remembers counters from one look to the next."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._counted: dict[str, str] = {}
        self._ticks = ""

    def strain(self) -> Strain:
        """Heat, throttling, power and load now."""
        root = self._root
        counted = {str(path.relative_to(root)): text(path) or "" for name in _EVENTS for path in matching(root, name)}
        ticks = (text(root / "proc/stat") or "").partition("\n")[0]
        found = Strain(
            hottest=_hottest(root),
            brakes=(
                *strain.slowed(_pairs(root, "sys/class/thermal/cooling_device*", "type", "cur_state")),
                *strain.grown(counted, self._counted),
                *strain.firmware(text(root / _FIRMWARE) or ""),
            ),
            cpu_ratio=strain.busy(ticks, self._ticks),
            power_mode=strain.power_mode(text(root / _POWER_MODE) or ""),
        )
        self._counted, self._ticks = counted, ticks
        return found

    def available_bytes(self) -> int | None:
        """Memory that can be had without pushing anything out."""
        return self._kibibytes("proc/meminfo", r"MemAvailable")

    def private_bytes(self, pid: int) -> int | None:
        """Memory that comes back when this process ends."""
        return self._kibibytes(f"proc/{pid}/smaps_rollup", r"Private_(?:Clean|Dirty)")

    def _kibibytes(self, name: str, label: str) -> int | None:
        found = re.findall(rf"^{label}:\s+(\d+) kB$", text(self._root / name) or "", re.MULTILINE)
        return sum(map(int, found)) * _KIB if found else None
