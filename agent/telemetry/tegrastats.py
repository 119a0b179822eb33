"""One line of NVIDIA's tegrastats -> what it says of the machine. Orin, Xavier, Thor and older boards.

    RAM 2269/7620MB ... CPU [1%@729,off] GR3D_FREQ 14%@[420] cpu@50.1C tj@50.5C VDD_IN 6626mW/6625mW

Words that it does not know are passed over: they differ from board to board and from release to release.

I/O: none.
"""

import re
from collections.abc import Iterator
from typing import Final

from agent.telemetry import strain
from shared.messages import MAX_CORES, MAX_PARTS, HostMetrics

MAX_LINE: Final = 4096
_MIB: Final = 1024 * 1024
_NAME_LENGTH: Final = 32
_MEMORY: Final = re.compile(r"\b(RAM|SWAP) (\d+)/(\d+)MB")
_CORES: Final = re.compile(r"\bCPU \[([^\]]*)\]")
_GPU: Final = re.compile(r"\bGR3D(?:_FREQ)? (\d+)%")  # Thor gives the clocks alone: `GR3D_FREQ @[314,314,314]`
_ENGINE: Final = re.compile(
    r"\b(NVENC\d?|NVDEC\d?|NVJPG\d?|MSENC|VIC|OFA|PVA\d|NVDLA\d|APE|SE)(?:_FREQ)? (?:\d+%)?@?(\d+|off)\b"
)
_TEMPERATURE: Final = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
#: Now, on average and, from JetPack 7.2 on, at most; without a unit up to JetPack 4.
_RAIL: Final = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?(?:/\d+(?:mW)?){1,2}(?=\s|$)")
_NO_RAILS: Final = frozenset({"RAM", "SWAP", "IRAM", "NC"})


def parse(line: str) -> HostMetrics:
    """Everything that the line says; nothing of it is an error."""
    line = line[:MAX_LINE]
    memory = {name: (int(used), int(total)) for name, used, total in _MEMORY.findall(line)}
    cores = tuple(_ratios(line))[:MAX_CORES]
    gpu = _GPU.search(line)
    zones = dict(_zones(line))
    rails = _first({name: int(now) / 1000 for name, now in _RAIL.findall(line) if name not in _NO_RAILS})
    return HostMetrics(
        cpu_ratio=sum(cores) / len(cores) if cores else None,
        cores_ratio=cores,
        memory_used_bytes=memory["RAM"][0] * _MIB if "RAM" in memory else None,
        memory_total_bytes=memory["RAM"][1] * _MIB if "RAM" in memory else None,
        swap_used_bytes=memory["SWAP"][0] * _MIB if "SWAP" in memory else None,
        gpu_ratio=min(1.0, int(gpu[1]) / 100) if gpu is not None else None,
        engines_mhz=_first({name: 0.0 if mhz == "off" else float(mhz) for name, mhz in _ENGINE.findall(line)}),
        rails_watts=rails,
        power_watts=strain.whole_board(rails),
        temperatures_celsius=_first(zones),
        temperature_celsius=max(zones.values(), default=None),
    )


def _ratios(line: str) -> Iterator[float]:
    """Each core; one that is switched off does nothing."""
    found = _CORES.search(line)
    for core in found[1].split(",") if found is not None else ():
        busy = re.match(r"\s*(\d+)%", core)
        yield min(1.0, int(busy[1]) / 100) if busy is not None else 0.0


def _zones(line: str) -> Iterator[tuple[str, float]]:
    for name, degrees in _TEMPERATURE.findall(line):
        zone = strain.hottest([(name, str(float(degrees) * 1000))])
        if zone is not None:
            yield zone.name, round(zone.celsius, 1)


def _first(found: dict[str, float]) -> dict[str, float]:
    return {name[:_NAME_LENGTH]: value for name, value in sorted(found.items())[:MAX_PARTS]}
