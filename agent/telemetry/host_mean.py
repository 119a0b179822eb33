"""Looks at the machine -> the machine during a window: ratios and watts on average, heat and memory at their highest.

I/O: none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from shared.messages import MAX_PARTS, HostMetrics

Fold = Callable[[Iterable[float]], float]


def mean(looks: Sequence[HostMetrics]) -> HostMetrics:
    """What a window says of the machine; what no look could read is absent."""
    if not looks:
        return HostMetrics()
    last = looks[-1]
    return last.model_copy(
        update={
            "cpu_ratio": _folded(_average, (look.cpu_ratio for look in looks)),
            "gpu_ratio": _folded(_average, (look.gpu_ratio for look in looks)),
            "fan_ratio": _folded(_average, (look.fan_ratio for look in looks)),
            "power_watts": _folded(_average, (look.power_watts for look in looks)),
            "temperature_celsius": _folded(max, (look.temperature_celsius for look in looks)),
            "memory_used_bytes": _folded(max, (look.memory_used_bytes for look in looks)),
            "swap_used_bytes": _folded(max, (look.swap_used_bytes for look in looks)),
            "cores_ratio": _each(looks),
            "engines_mhz": _named(max, [look.engines_mhz for look in looks]),
            "rails_watts": _named(_average, [look.rails_watts for look in looks]),
            "temperatures_celsius": _named(max, [look.temperatures_celsius for look in looks]),
            "throttled": tuple(dict.fromkeys(name for look in looks for name in look.throttled))[:MAX_PARTS],
        }
    )


def _average(values: Iterable[float]) -> float:
    known = list(values)
    return round(sum(known) / len(known), 4)


def _folded(fold: Fold, values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fold(known) if known else None


def _each(looks: Sequence[HostMetrics]) -> tuple[float, ...]:
    columns = zip(*(look.cores_ratio for look in looks if look.cores_ratio), strict=False)
    return tuple(_average(column) for column in columns)


def _named(fold: Fold, maps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for found in maps for name in found})[:MAX_PARTS]
    return {name: fold([found[name] for found in maps if name in found]) for name in names}
