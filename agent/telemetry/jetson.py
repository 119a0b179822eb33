"""What the boards of the Jetson family tell in sysfs, in jtop's words: rails, engines, fan, temperatures, brakes.

The layouts of JetPack 4 (Xavier), 5 and 6 (Xavier, Orin) and 7 (Thor). On another machine there is none of it, or
what its kernel has under the same names.

I/O: disk.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agent.telemetry import strain
from agent.telemetry.sysfs import matching, number, text
from shared.messages import MAX_PARTS

_NAME_LENGTH: Final = 32
_HWMON: Final = "sys/class/hwmon/hwmon*"
_IIO: Final = "sys/bus/i2c/drivers/ina3221x/*/iio:device*"  # JetPack 4
_RAIL_CHIPS: Final = frozenset({"ina3221", "ina238", "ina226"})
_ENGINES: Final = re.compile(r"\.(nvenc|nvdec|nvjpg|vic|ofa|pva|nvdla|dla|msenc|ape|se)(\d*)$", re.IGNORECASE)
_FANS: Final = ("pwmfan", "pwm-fan", "pwm_fan")
_PWM: Final = 255


def rails(root: Path) -> dict[str, float]:
    """Name of a rail -> watts."""
    return _bounded({**dict(_hwmon_rails(root)), **dict(_iio_rails(root))})


def engines(root: Path) -> dict[str, float]:
    """Name of an engine (NVENC, VIC, ...) -> its clock in MHz; 0 when it is switched off."""
    found = {}
    for folder in matching(root, "sys/class/devfreq/*"):
        engine = _ENGINES.search(folder.name)
        clock = number(folder / "cur_freq")
        if engine is not None and clock is not None:
            asleep = text(folder / "device/power/runtime_status") == "suspended"
            name = f"{engine[1]}{engine[2]}".upper()
            found[name if name not in found else f"{name}1"] = 0.0 if asleep else round(clock / 1e6)
    return _bounded(found)


def fan(root: Path) -> float | None:
    """How fast the fan is driven, 0 to 1."""
    driven = [number(folder / "pwm1") for folder in matching(root, _HWMON) if text(folder / "name") in _FANS] or [
        number(root / "sys/devices/pwm-fan/cur_pwm")
    ]  # JetPack 4
    known = [value for value in driven if value is not None and 0 <= value <= _PWM]
    return max(known) / _PWM if known else None


def temperatures(root: Path) -> dict[str, float]:
    """Name of a sensor -> degrees Celsius; sensors that are switched off are left out."""
    pairs = ((text(zone / "type"), text(zone / "temp")) for zone in matching(root, "sys/class/thermal/thermal_zone*"))
    zones = (strain.hottest([(name or "", degrees or "")]) for name, degrees in pairs)
    return _bounded({_short(zone.name): round(zone.celsius, 1) for zone in zones if zone is not None})


def throttled(root: Path) -> tuple[str, ...]:
    """Cooling devices that hold the machine back."""
    devices = matching(root, "sys/class/thermal/cooling_device*")
    pairs = ((text(device / "type") or "", text(device / "cur_state") or "") for device in devices)
    return tuple(dict.fromkeys(name[:_NAME_LENGTH] for name in strain.slowed(pairs)))[:MAX_PARTS]


def _hwmon_rails(root: Path) -> Iterator[tuple[str, float]]:
    for folder in matching(root, _HWMON):
        if text(folder / "name") not in _RAIL_CHIPS:
            continue
        for label in matching(folder, "in*_label"):
            place = label.name.removeprefix("in").removesuffix("_label")
            volts, amperes = number(folder / f"in{place}_input"), number(folder / f"curr{place}_input")
            name = text(label)
            if name and volts is not None and amperes is not None and volts >= 0 and amperes >= 0:
                yield name, round(volts * amperes / 1e6, 3)  # millivolts, milliamperes
        whole = number(folder / "power1_input")
        if whole is not None and whole >= 0:
            yield text(folder / "power1_label") or "VIN", round(whole / 1e6, 3)  # microwatts


def _iio_rails(root: Path) -> Iterator[tuple[str, float]]:
    for folder in matching(root, _IIO):
        for label in matching(folder, "rail_name_*"):
            watts = number(folder / f"in_power{label.name.removeprefix('rail_name_')}_input")
            if (name := text(label)) and watts is not None:
                yield name, watts / 1000


def _short(name: str) -> str:
    return name.removesuffix("-thermal").removesuffix("-therm")


def _bounded(found: Mapping[str, float]) -> dict[str, float]:
    """Names that fit into a message, in order; of too many the first."""
    named = ((re.sub(r"[,\s]+", "-", name)[:_NAME_LENGTH], value) for name, value in sorted(found.items()))
    return dict([(name, value) for name, value in named if name and value >= 0][:MAX_PARTS])
