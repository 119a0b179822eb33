"""Processor time of the gate's evidence for a large fleet: a minute of windows of every device, taken in at once.

python -m tests.bench.gate_evidence [--quick] [--json]

100,000 devices of three hardware classes, 5 % of them on the release, each with one window in that minute and three in
the days before, in SQLite; the queries and sums are those of the manager (`fleet.rollouts.gathering`).
"""

import asyncio
import json
import resource
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fleet.rollouts import gathering, saved
from fleet.rollouts.states import Rollout, Wave
from fleet.store import evidence as store
from fleet.store import gates, tables
from fleet.store.database import Database
from tests.bench.document import Result, arguments, tell

T0: Final = datetime(2026, 1, 8, tzinfo=UTC)
HARDWARE: Final = ("orin", "pi", "x86_64")
BEFORE: Final = (T0 - timedelta(hours=30), T0 - timedelta(hours=20), T0 - timedelta(hours=3))
BINS: Final = {str(100 + at): 4 for at in range(90)}


async def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    devices = 10_000 if asked.quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.sqlite"
        database = Database(f"sqlite+aiosqlite:///{path}")
        await database.open()
        await asyncio.to_thread(fill, path, devices)
        results = await measured(database, devices)
        await database.close()
    return tell("gate evidence", results, as_json=asked.json)


async def measured(database: Database, devices: int) -> list[Result]:
    async with database.read() as tx:
        row = await tx.get_one(tables.Rollout, "ro-1")
    learnt = await seconds(lambda: learn(database, row))
    slices = -(-devices // gathering.SLICE)
    async with database.write() as tx:  # the others at once, as the slices would have left them
        connection = await tx.connection()
        await connection.exec_driver_sql(
            "insert into habits select 'ro-1', id, hardware, 1, 186, 0.005, 0.1, 1e-7, 0.1, 1, 1, 1, 1, 1, 0, 0, 0 "
            "from devices where id not in (select device_id from habits)"
        )
        await gathering.begin(tx, row)
    until = T0 + timedelta(minutes=1)
    took: dict[str, float] = {}

    async def interval() -> None:
        async with database.read() as tx:
            came = await gathering.interval(tx, row, T0, until)
            doubt = await gathering.doubts(tx, row)
        took["read"] = time.process_time() - began
        async with database.write() as tx:
            assert await gathering.take(tx, row, came, doubt, since=T0, until=until)

    began = time.process_time()
    whole = await seconds(interval)

    async def rails() -> None:
        async with database.read() as tx:
            for candidate in (True, False):
                await store.side(tx, row, candidate=candidate)

    async with database.read() as tx:
        state = await gates.trials(tx, row.id)
    seen = gathering.trials_of(state).tests["errors"]["all"].seen
    assert seen.candidate_exposure + seen.control_exposure == devices * 361
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        Result(f"a minute of {devices} devices", whole, "s", 10.0),
        Result("  of that in a write transaction", whole - took["read"], "s", 5.0),
        Result(f"habits of {gathering.SLICE} devices, once ({slices} times in all)", learnt, "s", 2.0),
        Result("guard rails, both sides", await seconds(rails), "s", 1.0),
        Result("memory of the process", memory, "MB", 2000.0),
    ]


async def learn(database: Database, row: tables.Rollout) -> None:
    async with database.read() as tx:
        found = await gathering.first_look(tx, row, T0)
    async with database.write() as tx:
        await gates.put_habits(tx, found)
    async with database.read() as tx:
        rates = await gathering.second_look(tx, row, found)
    async with database.write() as tx:
        await gates.complete_habits(tx, rates)


async def seconds(work: Callable[[], Awaitable[Any]]) -> float:
    began = time.process_time()  # SQLite works in this process; a machine that does other things as well takes longer
    await work()
    return time.process_time() - began


def text(at: datetime) -> str:
    """As SQLAlchemy writes a time into SQLite."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def fill(path: Path, devices: int) -> None:
    rollout = Rollout("ro-1", "digits", "2.0.0", "canary", (Wave("Canary", "5 %", devices // 20),), T0, wave=0)
    with sqlite3.connect(path) as base:
        base.execute("pragma synchronous=off")
        put(base, "devices", (device(at) for at in range(devices)))
        put(base, "rollouts", [
            {"id": "ro-1", "model": "digits", "version": "2.0.0", "strategy": "canary", "state": "running",
             "body": json.dumps(saved.to_json(rollout)), "created_by": "ana", "created_at": text(T0),
             "updated_at": text(T0)},
        ])  # fmt: skip
        put(base, "deployments", (
            {"rollout_id": "ro-1", "device_id": f"cam-{at}", "wave": 0, "state": "committed", "since": text(T0),
             "assignment": 1, "told_at": text(T0)}
            for at in range(0, devices, 20)
        ))  # fmt: skip
        put(base, "windows", windows(devices))


def put(base: sqlite3.Connection, table: str, rows: Any) -> None:
    walk = iter(rows)
    first = next(walk)
    names = ", ".join(f'"{name}"' for name in first)
    places = ", ".join("?" for _ in first)
    statement = f"insert into {table} ({names}) values ({places})"
    base.execute(statement, tuple(first.values()))
    base.executemany(statement, (tuple(row.values()) for row in walk))


def device(at: int) -> dict[str, Any]:
    serving = "2.0.0" if at % 20 == 0 else "1.0.0"
    return {
        "id": f"cam-{at}", "name": f"cam-{at}", "site": "", "labels": "{}", "hardware": HARDWARE[at % 3],
        "lifecycle": "active", "sign_key": b"s", "box_key": b"b", "api_key_hash": "", "enrolled_at": text(T0),
        "online": 1, "seen_at": text(T0), "boot": "", "agent_version": "", "slots": "[]",
        "serving": json.dumps({"digits": serving}), "assignment": 0,
    }  # fmt: skip


def windows(devices: int) -> Iterator[dict[str, Any]]:
    features = {f"input.{at}": {"edges": "0" * 12, "counts": [20] * 18} for at in range(20)}
    for sequence, ends in enumerate((*BEFORE, T0 + timedelta(seconds=30)), start=1):
        for at in range(devices):
            version = "2.0.0" if at % 20 == 0 and sequence > len(BEFORE) else "1.0.0"
            body = {"requests": 361, "errors": {"internal": 1}, "latency": BINS, "features": features,
                    "restarts": 0, "labelled": 4, "correct": 3, "phase": "serving"}  # fmt: skip
            yield {
                "device_id": f"cam-{at}", "stream": "s", "sequence": sequence, "model": "digits", "version": version,
                "start": text(ends - timedelta(minutes=1)), "end": text(ends), "received_at": text(ends),
                "requests": 361, "failed": 1, "body": json.dumps(body), "counted": 1,
            }  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
