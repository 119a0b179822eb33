"""What keeps a machine from its full speed: heat, throttling, short power. Texts of sysfs -> facts.

I/O: none.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_ABSURD_CELSIUS: Final = 200.0  # a sensor that is switched off says -256 or thousands
_FIXED: Final = re.compile(r"^PMIC", re.IGNORECASE)  # of Nano, TX2 and Xavier: says 100 degrees, always
_WHOLE_BOARD: Final = ("VDD_IN", "VIN", "POM_5V_IN")
#: Cooling devices that work when the system slows itself down; a fan that turns is none of them.
_BRAKES: Final = re.compile(r"cpufreq|devfreq|^processor$|throttle-alert", re.IGNORECASE)
_PI: Final = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}  # bits, now


@dataclass(frozen=True, slots=True)
class Zone:
    """One temperature sensor."""

    name: str  # such as `tj-thermal`
    celsius: float


@dataclass(frozen=True, slots=True)
class Strain:
    """The machine at one moment. Empty where nothing can be read."""

    hottest: Zone | None = None
    brakes: tuple[str, ...] = ()  # what slows it down at this moment
    cpu_ratio: float | None = None  # busy, all cores, since the reading before
    power_mode: str | None = None  # of a Jetson (nvpmodel)


def hottest(readings: Iterable[tuple[str, str]]) -> Zone | None:
    """Of (type, temp) as thermal zones have them, in thousandths of a degree."""
    found = ((name or "unnamed", number(text)) for name, text in readings)
    zones = [Zone(name, degrees / 1000) for name, degrees in found if degrees is not None]
    sane = [zone for zone in zones if 0 < zone.celsius < _ABSURD_CELSIUS and not _FIXED.search(zone.name)]
    return max(sane, key=lambda zone: zone.celsius, default=None)


def whole_board(rails: Mapping[str, float]) -> float | None:
    """Watts of a Jetson: those of the rail that all others hang on, or the sum where there is none."""
    whole = next((rails[name] for name in _WHOLE_BOARD if name in rails), None)
    return whole if whole is not None else round(sum(rails.values()), 3) if rails else None


def slowed(cooling: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Of (type, cur_state) of cooling devices: those that hold the machine back."""
    for name, text in cooling:
        if _BRAKES.search(name) and (number(text) or 0) > 0:
            yield name


def grown(now: Mapping[str, str], before: Mapping[str, str]) -> Iterator[str]:
    """Names of event counters (over-current of a Jetson, throttling of a PC) that count on."""
    for name, text in now.items():
        was, value = number(before.get(name, "")), number(text)
        if was is not None and value is not None and value > was:
            yield name


def firmware(text: str) -> Iterator[str]:
    """Of `get_throttled` of a Raspberry Pi, a hexadecimal set of bits."""
    try:
        bits = int(text.strip(), 16)
    except ValueError:
        return
    yield from (words for bit, words in _PI.items() if bits >> bit & 1)


def power_mode(text: str) -> str | None:
    """`2` of `pmode:0002 fmode:quiet`, as nvpmodel keeps it."""
    found = re.search(r"pmode:(\d+)", text)
    return str(int(found[1])) if found else None


def busy(now: str, before: str) -> float | None:
    """Share of processor time that was used between two first lines of /proc/stat."""
    was, is_now = _ticks(before), _ticks(now)
    if was is None or is_now is None or (total := sum(is_now) - sum(was)) <= 0:
        return None
    idle = sum(is_now[3:5]) - sum(was[3:5])  # idle, waiting for disks
    return min(1.0, max(0.0, 1 - idle / total))


def _ticks(line: str) -> list[int] | None:
    words = line.split()[1:9]  # guests are part of `user`
    return [int(word) for word in words] if len(words) >= 5 and all(word.isdigit() for word in words) else None


def number(text: str) -> float | None:
    """What a file of one number says."""
    try:
        return float(text)
    except ValueError:
        return None
