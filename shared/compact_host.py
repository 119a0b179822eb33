"""The host's part of a compact telemetry window: units small enough to show, numbers short enough to send.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.compact_wire import Fields, column, text

_MIB: Final = 1024 * 1024
#: Numbers in this order, each with its unit. On the wire 0 is "not read", n + 1 is n units.
NUMBERS: Final = (
    ("cpu_ratio", 0.01),
    ("memory_used_bytes", _MIB),
    ("memory_total_bytes", _MIB),
    ("disk_free_bytes", _MIB),
    ("gpu_ratio", 0.01),
    ("temperature_celsius", 0.1),
    ("swap_used_bytes", _MIB),
    ("power_watts", 0.01),
    ("fan_ratio", 0.01),
)
#: Maps in this order: names in field n, values in field n + 1, as above.
MAPS: Final = (("engines_mhz", 1, 2), ("rails_watts", 0.01, 4), ("temperatures_celsius", 1.0, 6))
_NUMBERS, _CORES, _POWER_MODE, _THROTTLED = 1, 8, 9, 10
_CORE_UNIT: Final = 0.01


def names(host: Mapping[str, Any]) -> list[str]:
    """Every name in it; the compact form keeps them with commas between."""
    return [name for key, _, _ in MAPS for name in host.get(key, {})] + list(host.get("throttled", ()))


def pack(host: Mapping[str, Any]) -> bytes:
    """The message; empty when nothing could be read."""
    numbers = [_units(host.get(name), unit) for name, unit in NUMBERS]
    parts = [text(_NUMBERS, column(numbers) if any(numbers) else b"")]
    for key, unit, field in MAPS:
        found: Mapping[str, float] = host.get(key, {})
        parts += [text(field, ",".join(found).encode())]
        parts += [text(field + 1, column(_units(value, unit) for value in found.values()))]
    parts += [text(_CORES, column(_units(value, _CORE_UNIT) for value in host.get("cores_ratio", ())))]
    parts += [text(_POWER_MODE, (host.get("power_mode") or "").encode())]
    parts += [text(_THROTTLED, ",".join(host.get("throttled", ())).encode())]
    return b"".join(parts)


def unpack(data: bytes) -> dict[str, Any]:
    """Inverse of `pack`, to the unit.

    Raises:
        ValueError: malformed.
    """
    fields = Fields(data)
    found: dict[str, Any] = _named([name for name, _ in NUMBERS], [unit for _, unit in NUMBERS], fields, _NUMBERS)
    for key, unit, field in MAPS:
        words = fields.names(field)
        if words:
            found[key] = _named(words, [unit] * len(words), fields, field + 1)
    if cores := fields.column(_CORES):
        found["cores_ratio"] = [_value(value, _CORE_UNIT) or 0.0 for value in cores]
    if mode := fields.text(_POWER_MODE):
        found["power_mode"] = mode
    if brakes := fields.names(_THROTTLED):
        found["throttled"] = brakes
    return found


def _named(words: Sequence[str], units: Sequence[float], fields: Fields, field: int) -> dict[str, Any]:
    values = map(_value, fields.column(field), units)
    return {name: value for name, value in zip(words, values, strict=False) if value is not None}


def _units(value: float | None, unit: float) -> int:
    return 0 if value is None or value < 0 else round(value / unit) + 1


def _value(units: int, unit: float) -> float | int | None:
    if units == 0:
        return None
    return (units - 1) * unit if isinstance(unit, int) else round((units - 1) * unit, 3)
