"""How often the gate stops good rollouts, and how soon bad ones, beside the rules of others in the same run.

python -m tests.bench.gates [--quick] [--json] [--seed N]

50 canaries of 1000 devices, 6 results a minute each, 0.5 % of them failing, day and night +-30 %, devices that differ
(log-sd 0.8); 24 hours. A week before is simulated hour by hour: histories and phi come from it by
`fleet.rollouts.habits`, every minute is judged by `fleet.rollouts.counting` with the designs and levels of
`fleet.rollouts.trials`.
The rules of Argo Rollouts, Flagger and AWS IoT Jobs have no defaults: 95 % with failureLimit 3, 99 % with threshold 5,
20 % and 5 % after 10 devices. The seed's are `error_rate_threshold` 0.05 and a degradation of 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fleet.rollouts import counting, habits, trials
from fleet.rollouts.states import Limits
from fleet.rollouts.trials import ALL, DESIGNS, Kind
from tests.bench.document import Result, options, tell

Floats = NDArray[np.float64]
Rng = np.random.Generator

DEVICES: Final = 1000
CANARIES: Final = 50
A_MINUTE: Final = 6  # results of one device
ERRORS: Final = 0.005
DAY: Final = 1440
WEEK_HOURS: Final = 168
HETEROGENEITY: Final = 0.8
CLASSES: Final = 3  # hardware classes; each has its own test
LIMITS: Final = Limits()
NEVER: Final = math.inf


@dataclass(frozen=True)
class Outcome:
    """For each rule and rollout: the minute at which it stopped it."""

    stops: Mapping[str, Floats]

    def false(self, rule: str) -> float:
        """Percent of rollouts stopped."""
        return float(100 * np.isfinite(self.stops[rule]).mean())

    def late(self, rule: str, quantile: float = 0.5) -> float:
        """The minute by which this share was stopped."""
        return float(np.quantile(self.stops[rule], quantile, method="higher"))


def day(minutes: int, phase: Floats, size: float) -> Floats:
    """[rollouts, minutes]: the load of the hour, the same on all devices."""
    return 1 + size * np.sin(2 * np.pi * (np.arange(minutes) / DAY + phase[:, None]))


# --- errors -------------------------------------------------------------------------------------------------


def errors(  # a scenario
    rng: Rng, runs: int, minutes: int, *, sd: float, burst: int = 1, times: float = 1.0
) -> Outcome:
    """Failing requests; on the canaries `times` as often as before. They come `burst` at once."""
    rates = ERRORS * np.exp(sd * rng.standard_normal((runs, DEVICES)) - sd * sd / 2)
    phi, due, known = np.empty((runs, CLASSES + 1)), np.empty((runs, 2, CLASSES)), np.empty((runs, 2, CLASSES))
    kind = np.arange(DEVICES) % CLASSES
    arm = (np.arange(DEVICES) >= CANARIES).astype(int)  # 0: canary
    true = np.zeros((runs, 2, CLASSES))
    hours = day(WEEK_HOURS * 60, np.zeros(1), 0.3)[0].reshape(WEEK_HOURS, 60).mean(axis=1)
    exposure = np.full((DEVICES, WEEK_HOURS), 60.0 * A_MINUTE)
    for run in range(runs):
        before = burst * rng.poisson(exposure * rates[run][:, None] * hours / burst).astype(float)
        events, seen = before.sum(axis=1), exposure.sum(axis=1)
        expected = A_MINUTE * habits.rates(events, seen, habits.usual(events, seen))
        uneven = habits.spread(before, exposure)
        whole = habits.dispersion(uneven.squares.sum(), uneven.expected.sum())
        for at in range(CLASSES):
            some = kind == at
            phi[run, at] = max(whole, habits.dispersion(uneven.squares[some].sum(), uneven.expected[some].sum()))
            for side in (0, 1):
                due[run, side, at] = expected[some & (arm == side)].sum()
                known[run, side, at] = (1 + events)[some & (arm == side)].sum()
                true[run, side, at] = A_MINUTE * rates[run][some & (arm == side)].sum()
        phi[run, CLASSES] = whole
    load = day(minutes, rng.random(runs), 0.3)
    harm = np.array([times, 1.0])[None, :, None]
    counts = burst * rng.poisson(true[..., None] * harm[..., None] * load[:, None, None, :] / burst).astype(float)
    stops = {"Flotilla": sequential("errors", counts, due, phi, known)}
    sizes = np.array([CANARIES, DEVICES - CANARIES]) * A_MINUTE
    return Outcome(stops | others(counts.sum(axis=2), sizes))


def sequential(kind: Kind, counts: Floats, due: Floats, phi: Floats, known: Floats) -> Floats:
    """The product's test each minute: pooled, and one for each class. `counts` [rollouts, sides, classes, minutes]."""
    behind = 1 / np.concatenate([known, known.sum(axis=2, keepdims=True)], axis=2)
    minutes = np.arange(1, counts.shape[3] + 1)
    design, allowed = DESIGNS[kind], DESIGNS[kind].tolerance
    tolerance = LIMITS.max_degradation if allowed is None else allowed
    pooled = np.concatenate([counts, counts.sum(axis=2, keepdims=True)], axis=2)
    whole = np.concatenate([due, due.sum(axis=2, keepdims=True)], axis=2)
    share = whole[:, 0] / whole.sum(axis=1)
    first = np.full(len(counts), NEVER)
    for at in range(pooled.shape[2]):
        scope = ALL if at == CLASSES else str(at)
        more = counting.gains(
            pooled[:, 0, at],
            pooled[:, 1, at],
            np.broadcast_to(share[:, at, None], pooled[:, 0, at].shape),
            tolerance=tolerance,
            ratios=design.ratios,
            # trials.Doubt.at, for all rollouts at once
            dispersion=phi[:, at, None] * (1 + whole[:, 0, at, None] * minutes * behind[:, :, at].sum(axis=1)[:, None]),
        )
        found = counting.evidence(np.cumsum(more, axis=1))
        first = np.minimum(first, when(found >= trials.limit(LIMITS.false_abort_level, scope, CLASSES)))
    return first


def when(rings: NDArray[np.bool_]) -> Floats:
    """The first minute, from 1."""
    return np.where(rings.any(axis=1), rings.argmax(axis=1) + 1.0, NEVER)


def others(counts: Floats, sizes: NDArray[np.int64]) -> dict[str, Floats]:
    """Rules on [rollouts, sides, minutes]; rates over the last five minutes, as their queries are written."""
    total = np.cumsum(counts, axis=2)
    five = total - np.concatenate([np.zeros_like(total[..., :5]), total[..., :-5]], axis=2)
    length = np.minimum(np.arange(1, counts.shape[2] + 1), 5)
    canary, control = five[:, 0] / (sizes[0] * length), five[:, 1] / (sizes[1] * length)
    success = 1 - counts[:, 0] / sizes[0]  # one query a minute
    return {
        "seed, error rate > 0.05": when(canary > 0.05),
        "seed, degradation > 0.1": when(canary > 1.1 * control),
        "Argo Rollouts, 95 %": when(np.cumsum(success < 0.95, axis=1) > 3),
        "Flagger, 99 %": when(np.cumsum(success < 0.99, axis=1) >= 5),
    }


# --- latency ------------------------------------------------------------------------------------------------


def latency(rng: Rng, runs: int, minutes: int, *, times: float = 1.0) -> Outcome:
    """Lognormal (sd 0.3), devices differ by 0.3, each day of each device by 0.03, day and night +-15 %.

    A device's p90 is taken from its week; slow are results above it. Counts of slow ones are exact for that law.
    """
    base, days = 0.3, 0.03
    stops, fixed, control_rule = np.empty(runs), np.empty(runs), np.empty(runs)
    arm = np.arange(DEVICES) >= CANARIES
    for run in range(runs):
        shift = days * rng.standard_normal((DEVICES, 8))
        hourly = np.log(day(WEEK_HOURS * 60, np.zeros(1), 0.15)[0].reshape(WEEK_HOURS, 60).mean(axis=1))
        past = np.repeat(shift[:, :7], habits.HOURS_A_DAY, axis=1) + hourly
        edge = _p90(past, base)
        exposure = np.full(past.shape, 60.0 * A_MINUTE)
        before = rng.binomial(360, special.ndtr((past - edge[:, None]) / base)).astype(float)
        events, seen = before.sum(axis=1), exposure.sum(axis=1)
        due = habits.rates(events, seen, habits.usual(events, seen))
        uneven = habits.spread(before, exposure, daily=True)
        phi = habits.dispersion(uneven.squares.sum(), uneven.expected.sum())
        load = np.log(day(minutes, rng.random(1), 0.15)[0])
        now = shift[:, 7:] + load + np.where(arm, 0.0, math.log(times))[:, None]
        slow = rng.binomial(A_MINUTE, special.ndtr((now - edge[:, None]) / base)).astype(float)
        sides = np.stack([slow[~arm].sum(axis=0), slow[arm].sum(axis=0)])
        sizes = np.array([due[~arm].sum(), due[arm].sum()]) * A_MINUTE
        known = np.array([(1 + events)[~arm].sum(), (1 + events)[arm].sum()])
        stops[run] = sequential("slow", *_one(sides, sizes, phi, known))[0]
        # The mean of five minutes of a side, to the precision of its own noise.
        mean = np.exp(now + base * base / 2)
        noise = base / math.sqrt(5 * A_MINUTE * CANARIES)
        seen_mean = _five(mean[~arm].mean(axis=0)) * np.exp(noise * rng.standard_normal(minutes))
        history = float(np.exp(past[~arm] + base * base / 2).mean())
        fixed[run] = when((seen_mean > 1.1 * history)[None])[0]
        control_rule[run] = when((seen_mean > 1.1 * _five(mean[arm].mean(axis=0)))[None])[0]
    return Outcome({"Flotilla": stops, "seed, mean > 1.1 x own": fixed, "mean > 1.1 x control": control_rule})


def _one(sides: Floats, due: Floats, phi: float, known: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """One rollout whose classes are empty but one: pooled and that one."""
    counts, expected = np.zeros((1, 2, CLASSES, sides.shape[1])), np.zeros((1, 2, CLASSES))
    counts[0, :, 0], expected[0, :, 0] = sides, due
    expected[0, :, 1:] = 1e-9  # nobody there
    past = np.ones((1, 2, CLASSES))
    past[0, :, 0] = known
    return counts, expected, np.full((1, CLASSES + 1), phi), past


def _p90(past: Floats, base: float) -> Floats:
    """Of the mixture of a week's hours, for each device, by bisection."""
    low, high = past.min(axis=1), past.max(axis=1) + 2 * base
    for _ in range(20):
        middle = (low + high) / 2
        above = special.ndtr((past - middle[:, None]) / base).mean(axis=1) > 1 - habits.SLOW_QUANTILE
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray(high)


def _five(values: Floats) -> Floats:
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - 5)
    return np.asarray((total[ends] - total[starts]) / (ends - starts))


# --- crash loops --------------------------------------------------------------------------------------------


def crashes(rng: Rng, runs: int, minutes: int, *, looping: int) -> Outcome:
    """Every device restarts once in 30 days, one in 100 loops anyway; `looping` canaries crash every 2 minutes."""
    usual, every = 1 / 30 / DAY, 2.0
    stops, jobs5, jobs20 = np.empty(runs), np.empty(runs), np.empty(runs)
    arm = (np.arange(DEVICES) >= CANARIES).astype(int)
    for run in range(runs):
        flaky = rng.random(DEVICES) < 0.01
        before = rng.poisson(np.where(flaky, 50.0, usual * 7 * DAY)).astype(float)
        counted, seen_before = before <= habits.LOOPED, np.full(DEVICES, 7.0 * DAY)
        rates = habits.rates(before, seen_before, habits.usual(before[counted], seen_before[counted]))
        rate = np.where(flaky, 50 / 7 / DAY, usual)
        rate[:looping] = 1 / every
        times = rng.exponential(1 / rate, (2, DEVICES)).cumsum(axis=0)  # of the two restarts that count
        place = np.minimum(np.ceil(times), minutes + 1).astype(int)  # the minute of each
        due, seen = np.zeros((2, minutes)), np.zeros((2, minutes))
        for side in (0, 1):
            some = counted & (arm == side)
            seen[side] = np.bincount(place[:, some].ravel(), minlength=minutes + 2)[1 : minutes + 1]
            gone = np.bincount(place[1, some], weights=rates[some], minlength=minutes + 2)
            due[side] = rates[some].sum() - np.concatenate([[0.0], np.cumsum(gone[1:minutes])])
        design = DESIGNS["crashes"]
        share = due[0] / due.sum(axis=0)
        more = counting.gains(seen[0], seen[1], share, tolerance=LIMITS.max_degradation, ratios=design.ratios)
        found = counting.evidence(np.cumsum(more, axis=0))
        stops[run] = when((found >= trials.limit(LIMITS.false_abort_level, ALL, CLASSES))[None])[0]
        # For IoT Jobs a device that has restarted three times in its update has failed; the others succeed at once.
        failed = rng.exponential(every, (looping, 3)).sum(axis=1)
        share = (failed[:, None] <= np.arange(1, minutes + 1)).sum(axis=0) / CANARIES
        jobs20[run], jobs5[run] = when((share > 0.2)[None])[0], when((share > 0.05)[None])[0]
    return Outcome({"Flotilla": stops, "IoT Jobs, 20 %": jobs20, "IoT Jobs, 5 %": jobs5})


# --- the run ------------------------------------------------------------------------------------------------


def main() -> int:
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--seed", type=int, default=20261126)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    many, few = (60, 20) if asked.quick else (1000, 200)
    results: list[Result] = []

    def falsely(what: str, found: Outcome, goal: float | None = 1.0) -> None:
        peers = {rule: round(found.false(rule), 1) for rule in found.stops if rule != "Flotilla"}
        results.append(Result(f"false aborts in 24 h, {what}", found.false("Flotilla"), "%", goal, peers))

    def late(what: str, found: Outcome, goal: float, quantile: float = 0.5) -> None:
        peers = {rule: found.late(rule, quantile) for rule in found.stops if rule != "Flotilla"}
        word = "median" if quantile == 0.5 else f"p{100 * quantile:.0f}"
        results.append(Result(f"{what}, {word}", found.late("Flotilla", quantile), "min", goal, peers))

    falsely("devices alike", errors(rng, many, DAY, sd=0.0))
    falsely("devices differ", errors(rng, many, DAY, sd=HETEROGENEITY))
    falsely("devices differ, bursts of 3", errors(rng, many, DAY, sd=HETEROGENEITY, burst=3))
    for times, goals, length in ((2, (15, 70), 360), (4, (5, 25), 120), (10, (1, 5), 60)):
        for burst, goal in zip((1, 3), goals, strict=True):
            found = errors(rng, many // 4, length, sd=HETEROGENEITY, burst=burst, times=times)
            late(f"errors x{times}" + (f", bursts of {burst}" if burst > 1 else ""), found, goal)
    falsely("latency", latency(rng, few, DAY))
    late("latency +5 %", latency(rng, few, 120, times=1.05), 10)
    late("latency +20 %", latency(rng, few, 60, times=1.2), 2)
    falsely("crashes", crashes(rng, many, DAY, looping=0))
    late("2 canaries crash-looping", crashes(rng, many // 4, 240, looping=2), 10)
    late("5 canaries crash-looping", crashes(rng, many // 4, 240, looping=5), 5)
    return tell("gates", results, as_json=asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
