"""What one look at a rollout costs, from a thousand devices to a hundred thousand, and a whole canary of them.

    look       evidence from the real store (SQLite on disk), the engine's step, the verdict; half of the fleet has it
    canary     the real engine over members in memory, on a virtual clock, to 100 %: 1 % fail, 0.1 % fall silent

Times are those of the processor, so that a machine that is busy with other things tells the same.
`--plot FILE` draws the cost of a look against the size of the fleet.
"""

import asyncio
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

from sqlalchemy import insert

from fleet.rollouts import engine, reading, saved, verdicts, waves
from fleet.rollouts.roster import Roster
from fleet.rollouts.states import TERMINAL, Criterion, Evidence, Limits, Member, Rollout, State
from fleet.store import tables
from fleet.store.database import Database
from shared.messages import Phase
from tests.bench.document import Result, options, tell

T0: Final = datetime(2026, 1, 1, tzinfo=UTC)
SIZES: Final = (1_000, 10_000, 100_000)
CLASSES: Final = ("orin-nano-8g", "orin-agx-64g", "x86_64")
LOOKS: Final = 5
TICK: Final = timedelta(seconds=120)
#: Beyond what any quick fleet is expected to reach, and far below what the silent ones would need to go unnoticed.
LIMITS: Final = Limits(criteria=(Criterion("any", 0.05, 100),), max_silent_ratio=0.05)


def main() -> int:
    parser = options(__doc__ or "")
    parser.add_argument("--plot", type=Path, help="write the plot there")
    asked = parser.parse_args()
    sizes = SIZES[:2] if asked.quick else SIZES
    costs = {size: asyncio.run(_look(size)) for size in sizes}
    results = list(_told(costs))
    results += _canary(sizes[-1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.append(Result("highest memory of the process", peak, "MB", goal=2048))
    if asked.plot:
        asked.plot.write_text(plot({size: sum(cost) for size, cost in costs.items()}), encoding="utf-8")
    return tell("rollout_scale", results, as_json=asked.json)


def _told(costs: dict[int, tuple[float, float]]) -> Iterator[Result]:
    for size, (load, step) in costs.items():
        yield Result(f"{size} devices: evidence from the store", 1000 * load, "ms")
        yield Result(f"{size} devices: step of the engine and verdict", 1000 * step, "ms")
        yield Result(f"{size} devices: one look", 1000 * (load + step), "ms", goal=1000)
    first, last = min(costs), max(costs)
    grown = sum(costs[last]) / sum(costs[first]) / (last / first)
    yield Result("cost per device, largest fleet over smallest", grown, "times", goal=1.5)


def rollout(size: int, classes: dict[str, str]) -> Rollout:
    return Rollout(
        id="ro-big",
        model="digits",
        version="2.0.0",
        strategy="canary",
        waves=waves.canary(("1%", "10%", "50%", "100%"), size, least=waves.least(classes)),
        since=T0,
        max_in_flight=20_000,
        bake_seconds=300,
        limits=LIMITS,
    )


def fleet(size: int) -> dict[str, str]:
    return {f"cam-{number:06}": CLASSES[number % len(CLASSES)] for number in range(size)}


# --- one look -----------------------------------------------------------------------------------------------------


async def _look(size: int) -> tuple[float, float]:
    """Seconds for the evidence, and for the step; the median of several looks."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite+aiosqlite:///{Path(folder) / 'fleet.sqlite'}")
        await database.open()
        await _fill(database, size)
        roster = Roster()
        loads: list[float] = []
        steps: list[float] = []
        for _ in range(LOOKS):
            async with database.read() as tx:
                started = time.process_time()
                row = await tx.get_one(tables.Rollout, "ro-big")
                found, known = saved.from_json(row.body), await reading.evidence(tx, row, T0, roster)
                loaded = time.process_time()
                step = engine.step(found, known, T0 + TICK)
                await verdicts.pending(tx, found, step.numbers)
            loads.append(loaded - started)
            steps.append(time.process_time() - loaded)
        await database.close()
    return statistics.median(loads), statistics.median(steps)


async def _fill(database: Database, size: int) -> None:
    classes = fleet(size)
    made = rollout(size, classes)
    made = replace(made, wave=len(made.waves) - 1)
    wave_of = waves.assign(waves.order(made.id, classes, classes_first=True), made.waves)
    device = {
        "lifecycle": "active", "labels": {}, "sign_key": b"", "box_key": b"", "api_key_hash": "", "enrolled_at": T0,
        "online": True, "seen_at": T0, "boot": "b", "agent_version": "1", "slots": [], "serving": {"digits": "1.0.0"},
        "assignment": 1, "site": "hall",
    }  # fmt: skip
    devices = [{**device, "id": name, "name": name, "hardware": kind} for name, kind in classes.items()]
    rows = [
        {
            "rollout_id": made.id, "device_id": name, "wave": wave, "since": T0, "previous": "1.0.0", "assignment": 1,
            "state": "committed" if index % 2 else "queued", "told_at": T0 if index % 2 else None,
        }
        for index, (name, wave) in enumerate(wave_of.items())
    ]  # fmt: skip
    async with database.write() as tx:
        tx.add(
            tables.Rollout(
                id=made.id, model=made.model, version=made.version, strategy=made.strategy, state=made.state.value,
                body=saved.to_json(made), created_by="ana", created_at=T0, updated_at=T0,
            )
        )  # fmt: skip
        await tx.flush()
        await tx.execute(insert(tables.Device), devices)
        await tx.execute(insert(tables.Deployment), rows)


# --- a whole canary -----------------------------------------------------------------------------------------------


def _canary(size: int) -> Iterator[Result]:
    chance, classes = Random(1), fleet(size)
    state = rollout(size, classes)
    wave_of = waves.assign(waves.order(state.id, classes, classes_first=True), state.waves)
    known = Evidence(
        tuple(
            Member(name, wave, T0, hardware=classes[name], previous="1.0.0", serving="1.0.0", seen_at=None)
            for name, wave in wave_of.items()
        )
    )
    fates = {name: _fate(chance) for name in classes}
    now, longest, started = T0, 0.0, time.process_time()
    while state.state not in TERMINAL:
        now += TICK
        known = replace(known, members=tuple(_lived(member, fates[member.device], now) for member in known.members))
        begun = time.process_time()
        step = engine.step(state, known, now)
        known = engine.apply(known, step.actions, now)
        longest = max(longest, time.process_time() - begun)
        state = step.rollout
    ends = [member.state for member in known.members]
    yield Result(f"{size} devices: whole canary to 100 %", time.process_time() - started, "s")
    yield Result(f"{size} devices: the same, virtual", (now - T0).total_seconds() / 3600, "h")
    yield Result("longest step on the way", 1000 * longest, "ms", goal=1000)
    yield Result("devices that have it", 100 * ends.count("committed") / size, "%")
    yield Result("devices that failed or fell silent", 100 * (1 - ends.count("committed") / size), "%")
    yield Result("the rollout did not complete", float(state.state is not State.COMPLETED), "", goal=0)


def _fate(chance: Random) -> tuple[str, float]:
    drawn = chance.random()
    end = "" if drawn < 0.001 else str(Phase.FAILED) if drawn < 0.011 else str(Phase.COMMITTED)
    return end, chance.uniform(60, 600)


def _lived(member: Member, fate: tuple[str, float], now: datetime) -> Member:
    end, seconds = fate
    if not end or member.told_at is None or member.ended or now - member.told_at < timedelta(seconds=seconds):
        return member
    return replace(member, state=end, reason=None if end == "committed" else "E_LOAD", owed=False, since=now)


# --- the plot -----------------------------------------------------------------------------------------------------


def plot(costs: dict[int, float]) -> str:
    """Seconds of one look over devices, both logarithmic, with a line of growth in proportion."""
    width, height, left, bottom = 560, 300, 70, 250

    def x(size: float) -> float:
        return left + (math.log10(size) - 3) * 220

    def y(seconds: float) -> float:
        return bottom - (math.log10(seconds * 1000) - 0) * 60

    points = [(x(size), y(cost)) for size, cost in sorted(costs.items())]
    size, cost = min(costs.items())
    linear: Sequence[tuple[float, float]] = [(x(it), y(cost * it / size)) for it in sorted(costs)]
    marks = "".join(
        f'<circle cx="{px:.0f}" cy="{py:.0f}" r="4"/><text x="{px:.0f}" y="{py - 10:.0f}" text-anchor="middle">'
        f"{1000 * costs[it]:.0f} ms</text>"
        for (px, py), it in zip(points, sorted(costs), strict=True)
    )
    scale = "".join(
        f'<text x="{x(it):.0f}" y="{bottom + 20}" text-anchor="middle">{it:,}</text>' for it in sorted(costs)
    )
    grid = "".join(
        f'<path d="M{left} {y(it / 1000):.0f}H{width - 20}" stroke="#ddd"/>'
        f'<text x="{left - 8}" y="{y(it / 1000) + 4:.0f}" text-anchor="end">{it:,} ms</text>'
        for it in (1, 10, 100, 1000)
    )

    def path(line: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{px:.0f} {py:.0f}" for px, py in line)

    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="12">'
        f"<title>Time of one look at a rollout over the number of its devices</title>{grid}{scale}"
        f'<path d="{path(linear)}" fill="none" stroke="#999" stroke-dasharray="4 4"/>'
        f'<path d="{path(points)}" fill="none" stroke="#222" stroke-width="2"/>{marks}'
        f'<text x="{width // 2}" y="{height - 8}" text-anchor="middle">devices (dashed: in proportion)</text></svg>\n'
    )


if __name__ == "__main__":
    sys.exit(main())
