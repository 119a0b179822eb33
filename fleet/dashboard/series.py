"""Windows of many devices to one line over time.

A window stands where the device's clock, moved by the smallest delay seen from that device, puts it: what an
outbox delivers late goes to its own place.

I/O: none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleet.dashboard import facts
from shared.sketches import merge_latency

POINTS: Final = 40
SETTLE_SECONDS: Final = 30.0  # windows may be this late
_CHART_POINTS: Final = 120


@dataclass(frozen=True, slots=True)
class Placed:
    """A window on the manager's clock, in seconds."""

    start: float
    end: float
    window: facts.Window


def placed(windows: Mapping[str, Sequence[facts.Window]]) -> tuple[Placed, ...]:
    """Every window that covers any time, on the manager's clock."""
    found: list[Placed] = []
    for many in windows.values():
        delay = min((one.received_at - one.end for one in many), default=timedelta(0)).total_seconds()
        found += [
            Placed(one.start.timestamp() + delay, one.end.timestamp() + delay, one)
            for one in many
            if one.length > timedelta(0)
        ]
    return tuple(found)


def _step(every: Iterable[Placed]) -> float:
    return max((one.end - one.start for one in every), default=0.0)


def throughput(windows: Mapping[str, Sequence[facts.Window]], now: datetime) -> tuple[float, ...]:
    """Requests per second of the whole fleet, oldest first, at points one window apart.

    The newest point is old enough for every device to have reported; empty when nobody reported lately.
    """
    every = placed(windows)
    step = _step(every)
    if step <= 0 or now.timestamp() - max(one.end for one in every) > 2 * step + SETTLE_SECONDS:
        return ()
    last = min(now.timestamp() - step * 1.5, max(one.end for one in every) - step / 2)
    moments = [last - (POINTS - 1 - place) * step for place in range(POINTS)]
    rates, seen = [0.0] * POINTS, [False] * POINTS
    for one in every:
        for place in range(max(0, int((one.start - moments[0]) // step)), POINTS):
            if moments[place] >= one.end:
                break
            if moments[place] >= one.start:
                rates[place] += one.window.requests / (one.end - one.start)
                seen[place] = True
    return tuple(rates[seen.index(True) :]) if any(seen) else ()


def latency(
    windows: Mapping[str, Sequence[facts.Window]], model: str, version: str, previous: Iterable[str]
) -> tuple[list[int], list[float | None], list[float | None]]:
    """Times, and the p95 in ms of `version` and of the `previous` ones: None where nothing was asked."""
    older = set(previous) - {version}
    every = [one for one in placed(windows) if one.window.model == model]
    every = [one for one in every if one.window.version == version or one.window.version in older]
    step = max(_step(every), 1.0)
    if not every:
        return [], [], []
    last = max(one.end for one in every)
    first = max(min(one.end for one in every), last - (_CHART_POINTS - 1) * step)
    count = int((last - first) // step) + 1
    buckets: list[tuple[list[Mapping[int, int]], list[Mapping[int, int]]]] = [([], []) for _ in range(count)]
    for one in every:
        place = count - 1 - int((last - one.end) // step)
        if place >= 0:
            buckets[place][one.window.version != version].append(one.window.latency.bins)
    times = [round(last - (count - 1 - place) * step) for place in range(count)]
    return times, [_p95(new) for new, _ in buckets], [_p95(old) for _, old in buckets]


def _p95(bins: Sequence[Mapping[int, int]]) -> float | None:
    value = merge_latency(bins).quantile_ms(0.95)
    return None if value is None else round(value, 3)
