"""Rows of the days before a rollout to what is usual for each device: rates, unevenness, what counts as slow.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleet.rollouts import habits
from fleet.store.evidence import Hour

Floats = NDArray[np.float64]

#: Beyond every latency bin: no result of this device is slow.
NOTHING_SLOW: Final = 1_000_000
#: With results in fewer hours, a device's own percentile is that of one mood.
SLOW_HOURS: Final = 6


def slow_above(devices: Sequence[str], rows: Sequence[tuple[str, int, int]]) -> Mapping[str, int]:
    """Device -> latency bin above which its results are slow, from (device, bin, results)."""
    places = np.array(sorted({row[1] for row in rows}), dtype=np.int64)
    if not len(places):
        return dict.fromkeys(devices, NOTHING_SLOW)
    line = {device: index for index, device in enumerate(devices)}
    counts = np.zeros((len(devices), len(places)))
    at = np.searchsorted(places, [row[1] for row in rows])
    np.add.at(counts, (np.array([line[row[0]] for row in rows]), at), [row[2] for row in rows])
    found = habits.slow_bins(places, counts)
    return {device: int(it) if it >= 0 else NOTHING_SLOW for device, it in zip(devices, found, strict=True)}


def rates(devices: Sequence[str], hours: Sequence[Hour], slow_hours: range) -> list[dict[str, Any]]:
    """Columns of `tables.Habit` for each device; `slow_hours` are those whose results were looked at for slow ones."""
    line = {device: index for index, device in enumerate(devices)}
    first = min((it.hour for it in hours), default=0)
    last = max((it.hour for it in hours), default=0)
    table = np.zeros((7, len(devices), last - first + 1))
    where = ([line[it.device] for it in hours], [it.hour - first for it in hours])
    for place, column in enumerate(("requests", "failed", "slow", "seconds", "restarts", "labelled", "wrong")):
        np.add.at(table[place], where, [float(getattr(it, column)) for it in hours])
    requests, failed, slow, seconds, restarts, labelled, wrong = table
    recent = [at for at in range(table.shape[2]) if first + at in slow_hours]
    results = (requests - failed)[:, recent]
    errors, slowness = habits.spread(failed, requests), habits.spread(slow[:, recent], results, daily=True)
    looped = restarts.sum(axis=1) > habits.LOOPED
    steady = np.where(looped[:, None], 0.0, restarts), np.where(looped[:, None], 0.0, seconds)
    columns = {
        "error_rate": _rates(failed, requests),
        "slow_rate": np.where((results > 0).sum(axis=1) >= SLOW_HOURS, _rates(slow[:, recent], results), 0.0),
        "wrong_rate": _rates(wrong, labelled),
        "crash_rate": _rates(*steady),
        "error_squares": errors.squares,
        "error_expected": errors.expected,
        "slow_squares": slowness.squares,
        "slow_expected": slowness.expected,
        "wrong_expected": wrong.sum(axis=1),
    }
    return [
        {"device_id": device, "looped": bool(looped[at]), **{name: float(it[at]) for name, it in columns.items()}}
        for at, device in enumerate(devices)
    ]


def _rates(events: Floats, exposure: Floats) -> Floats:
    mine, seen = events.sum(axis=1), exposure.sum(axis=1)
    return habits.rates(mine, seen, habits.usual(mine, seen))
