"""False alarms and delays of the drift alarm on a simulated fleet, beside the thresholds of fixed distances.

python -m tests.bench.drift_alarms [--quick] [--json]

1000 devices x 20 features, an hour at a time through the manager's own memory (`fleet.telemetry.board`): a reference of
7 days, 7 ordinary days, then days that are counted. Drift is put into one feature of 50 devices, or into one of all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

from fleet.settings import FleetSettings
from fleet.telemetry.baselines import Reference
from fleet.telemetry.board import Board
from fleet.telemetry.layout import Layout
from fleet.telemetry.looking import Needs
from fleet.telemetry.verdict import Rule
from shared.sketches import QUANTILE_BINS
from tests.bench.document import Result, arguments, tell

DEVICES: Final = 1000
FEATURES: Final = 20
PER_HOUR: Final = 42  # 1000 a day
ORDINARY: Final = 7  # days
EDGES: Final = stats.norm.ppf([0.001, *np.arange(1, QUANTILE_BINS) / QUANTILE_BINS, 0.999])
BINS: Final = len(EDGES) + 1
SHARES: Final = np.diff([0.0, *stats.norm.cdf(EDGES), 1.0])
REFERENCE: Final = 7000

Ints = NDArray[np.int64]
Source = Callable[[int], Ints]  # hour -> [devices, features, bins]


@dataclass
class Outcome:
    """`device` alarms a day; the same for each fixed threshold at one look a day; hours to alarms that were due."""

    alarms: float
    fixed: dict[str, float]
    hours: list[float]
    fleet_hours: float | None


def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    devices, days = (200, 1) if asked.quick else (DEVICES, 3)
    share = DEVICES / devices / days  # to alarms a day of 1000 devices
    iid = play(independent(devices, 1), devices, days)
    ar = play(autocorrelated(devices, 2), devices, days)
    one = play(independent(devices, 3, shift=0.5, first=50), devices, 1, watched=50)
    fleet = play(independent(devices, 4, shift=0.05, first=devices), devices, 1, watched=devices)
    late = float(np.median(one.hours))
    blind = {name: round(max(0.0, 1 - number / 50), 2) for name, number in one.fixed.items()}
    results = [
        Result("false alarms a day, independent samples", iid.alarms * share, "alarms", 1.0, scaled(iid, share)),
        Result("false alarms a day, AR(1) 0.98", ar.alarms * share, "alarms", 20.0, scaled(ar, share)),
        Result("+0.5 sigma, 1000 samples a day: median delay", late, "h", 6.0),
        Result("+0.5 sigma: not found in a day", sum(hours > 24 for hours in one.hours) / 50, "of 1", 0.0, blind),
        Result("+0.05 sigma of the whole fleet: delay", fleet.fleet_hours or 99.0, "h", 24.0),
        Result("memory of the newest hours", devices_bytes() / 1e3, "kB a device"),
    ]
    return tell("drift_alarms", results, as_json=asked.json)


def scaled(outcome: Outcome, share: float) -> dict[str, float]:
    return {name: round(number * share, 1) for name, number in outcome.fixed.items()}


def independent(devices: int, seed: int, *, shift: float = 0.0, first: int = 0) -> Source:
    """Multinomial counts; from the first counted hour on, feature 0 of the `first` devices moves by `shift` sigma."""
    rng = np.random.default_rng(seed)
    moved = np.diff([0.0, *stats.norm.cdf(EDGES - shift), 1.0])

    def hour(number: int) -> Ints:
        counts = rng.multinomial(PER_HOUR, SHARES, (devices, FEATURES))
        if number >= ORDINARY * 24 and first:
            counts[:first, 0] = rng.multinomial(PER_HOUR, moved, first)
        return counts

    return hour


def autocorrelated(devices: int, seed: int, rho: float = 0.98) -> Source:
    """Every feature of every device an AR(1) series of its own, sampled `PER_HOUR` times an hour."""
    rng = np.random.default_rng(seed)
    last = rng.normal(size=(devices * FEATURES, 1))

    def hour(_: int) -> Ints:
        nonlocal last
        noise = rng.normal(scale=np.sqrt(1 - rho**2), size=(devices * FEATURES, PER_HOUR))
        values, _ = signal.lfilter([1.0], [1.0, -rho], noise, axis=1, zi=rho * last)
        last = values[:, -1:]
        places = np.searchsorted(EDGES, values, side="right") + BINS * np.arange(len(values))[:, None]
        return np.bincount(places.ravel(), minlength=len(values) * BINS).reshape(devices, FEATURES, BINS)

    return hour


def board_of(rng: np.random.Generator) -> Board:
    references = {
        f"f{number}": Reference(
            group="input",
            kind="quantity",
            digest="",
            edges=tuple(EDGES),
            counts=tuple(rng.multinomial(REFERENCE, SHARES).tolist()),
            widths=(0.1,) * BINS,
        )
        for number in range(FEATURES)
    }
    return Board("m", "1", Layout.of(references), ORDINARY)


def devices_bytes() -> int:
    size = board_of(np.random.default_rng(0)).layout.size
    return 168 * size * 4


def play(source: Source, devices: int, days: int, *, watched: int = 0) -> Outcome:
    """Ordinary days, then `days` with one look an hour; each (scope, feature) rings at most once a day."""
    board, rule = board_of(np.random.default_rng(99)), Rule.of(FleetSettings())
    limits = rule.limits({"device": devices * FEATURES, "site": FEATURES * 50, "hardware": FEATURES, "fleet": FEATURES})
    needs = Needs(min_samples=rule.min_samples, significance=rule.significance, limits=limits)
    names = [f"device:{number}" for number in range(devices)]
    rang: dict[tuple[str, str], int] = {}
    false, fixed, fleet_hours = 0, dict.fromkeys(("PSI>.2", "KL>.1", "JSD>.1"), 0.0), None
    for number in range((ORDINARY + days) * 24):
        board.advance(number)
        counts = flat(source(number), board.layout)
        for name, vector in zip(names, counts, strict=True):
            board.add([name], number, vector)
        board.add(["fleet"], number, counts.sum(axis=0))
        if number < ORDINARY * 24:
            continue
        after = number - ORDINARY * 24 + 1
        found = board.look([*names, "fleet"], needs, ())
        for one in found:
            due = int(one.scope.removeprefix("device:")) < watched if one.scope != "fleet" else bool(watched)
            due = due and one.feature == "f0"
            if one.alarm is None or (one.scope, one.feature) in rang:
                continue
            rang[one.scope, one.feature] = after
            false += not due
            if one.scope == "fleet" and due:
                fleet_hours = float(after)
        if after % 24 == 0:
            rang = {key: hours for key, hours in rang.items() if watched}
            for one in found:
                known = one.statistics
                fixed["PSI>.2"] += known.psi > 0.2
                fixed["KL>.1"] += known.kl > 0.1
                fixed["JSD>.1"] += known.jsd > 0.1
    hours = [float(rang.get((name, "f0"), 99)) for name in names[:watched]]
    return Outcome(float(false), fixed, hours, fleet_hours)


def flat(counts: Ints, layout: Layout) -> Ints:
    """[devices, features, bins] -> [devices, vector]; nothing is missing."""
    found = np.zeros((len(counts), FEATURES, BINS + 1), dtype=np.int64)
    found[:, :, :BINS] = counts
    return found.reshape(len(counts), layout.size)


if __name__ == "__main__":
    raise SystemExit(main())
