"""Many messages in one transaction: what is stored, what is told, and that one bad record harms no other."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from sqlalchemy.event import listen

from agent.identity import Keys
from fleet.hub import Hub
from fleet.settings import MqttSettings
from fleet.store import devices, windows
from fleet.store.database import Database
from fleet.store.tables import Deployment, Device, Event, Report, Rollout, Window
from fleet.telemetry.ingest import Ingest
from shared import seal
from shared.clock import SystemClock
from shared.messages import Message, Phase, TelemetryWindow
from shared.mqtt_link import Incoming
from shared.topics import Address, Channel
from tests.fleet.telemetry.test_ingest import report, window

KEYS = Keys.make()
NAMES = ("cam-1", "cam-2", "cam-3")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
async def database(either: str) -> AsyncIterator[Database]:
    found = Database(either)
    await found.open()
    yield found
    await found.close()


@pytest.fixture
async def ingest(database: Database) -> Ingest:
    async with database.write() as tx:
        for name in NAMES:
            tx.add(
                Device(
                    id=name, name=name, labels={}, sign_key=KEYS.sign_public, box_key=b"b" * 32, api_key_hash=name,
                    enrolled_at=NOW, slots=[], serving={}, lifecycle="active",
                )
            )  # fmt: skip
    limits = MqttSettings(messages_per_second=1e6, burst_messages=10**6, require_signatures=True)
    return Ingest(database=database, link=None, announcer=None, hub=Hub(), clock=SystemClock(), limits=limits)


def incoming(message: Message, name: str = "cam-1") -> Incoming:
    channel = Channel.TELEMETRY if isinstance(message, TelemetryWindow) else Channel.REPORT
    topic = str(Address(name, channel))
    return Incoming(topic, seal.sealed(message.to_wire(), topic=topic, sign=KEYS.signature), False, lambda: None)


async def stored(database: Database) -> Sequence[tuple[str, int]]:
    async with database.read() as tx:
        query = select(Window.device_id, Window.sequence).order_by(Window.device_id, Window.sequence)
        return [(row[0], row[1]) for row in await tx.execute(query)]


async def test_a_batch_of_many_devices_is_stored_once_and_acknowledged_to_each(ingest, database: Database) -> None:
    batch = [incoming(window(number, device=name), name) for number in (1, 2, 2, 3) for name in NAMES]
    owed = await ingest.store(batch)
    assert owed.durable == {(name, "s1"): {"telemetry": 3} for name in NAMES}
    assert await stored(database) == [(name, number) for name in NAMES for number in (1, 2, 3)]
    again = await ingest.store(batch)
    assert again.durable == owed.durable
    assert len(await stored(database)) == 9


async def test_a_window_that_the_database_refuses_harms_no_other(ingest: Ingest, database: Database) -> None:
    async with database.write() as tx:
        await windows.insert_windows(tx, [window(2, requests=77)], now=NOW)  # in its place, though nothing says so
    batch = [incoming(window(number, device=name), name) for number in (1, 2, 3) for name in NAMES]
    owed = await ingest.store(batch)
    assert (ingest.stored, ingest.dropped) == (9, 1)
    assert owed.durable == {(name, "s1"): {"telemetry": 3} for name in NAMES}  # the device is not asked for it for ever
    assert await stored(database) == [(name, number) for name in NAMES for number in (1, 2, 3)]
    async with database.read() as tx:
        assert (await tx.get(Window, ("cam-1", "s1", 2))).requests == 77


async def test_a_report_that_fails_undoes_itself_alone(ingest: Ingest, database: Database) -> None:
    async with database.write() as tx:
        windows.insert_report(tx, report(1, Phase.ANNOUNCED, rollout=None), now=NOW)
    batch = [
        incoming(window(1)),
        incoming(report(1, Phase.VERIFIED, rollout=None)),  # its place is taken
        incoming(window(2)),
        incoming(window(1, device="cam-2"), "cam-2"),
    ]
    owed = await ingest.store(batch)
    assert ingest.dropped == 1
    assert owed.durable["cam-1", "s1"] == {"telemetry": 2}
    assert await stored(database) == [("cam-1", 1), ("cam-1", 2), ("cam-2", 1)]
    async with database.read() as tx:
        assert [row.phase for row in await tx.scalars(select(Report))] == ["announced"]
        assert await devices.durable(tx, "cam-1", "s1") == {"telemetry": 2}
        assert (await tx.get(Device, "cam-2")).online


async def test_reports_and_windows_of_one_batch_go_on_where_they_were(ingest: Ingest, database: Database) -> None:
    await ingest.store([incoming(window(1)), incoming(report(1, Phase.ANNOUNCED, rollout=None))])
    owed = await ingest.store([incoming(window(3)), incoming(report(2, Phase.VERIFIED, rollout=None))])
    assert owed.durable["cam-1", "s1"] == {"telemetry": 1, "report": 2}  # the third window is beyond a gap
    assert await stored(database) == [("cam-1", 1)]


async def test_reports_of_many_devices_take_few_statements_and_keep_their_order(
    ingest: Ingest, database: Database
) -> None:
    phases = (Phase.ANNOUNCED, Phase.VERIFIED, Phase.FETCHING, Phase.STAGED, Phase.PROBATION, Phase.COMMITTED)
    async with database.write() as tx:
        tx.add(
            Rollout(
                id="ro-1", model="digits", version="1.1.0", strategy="canary", state="running", body={},
                created_by="ana", created_at=NOW, updated_at=NOW,
            )
        )  # fmt: skip
        await tx.flush()
        tx.add_all(Deployment(rollout_id="ro-1", device_id=name, wave=0, state="queued", since=NOW) for name in NAMES)
    batch = [
        incoming(report(number, phase, device=name, rollout="ro-1", assignment=0), name)
        for number, phase in enumerate(phases, 1)
        for name in NAMES
    ]
    asked: list[str] = []
    listen(database._opened().sync_engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    owed = await ingest.store(batch)
    assert owed.durable == {(name, "s1"): {"report": len(phases)} for name in NAMES}
    others = [text for text in asked if not text.startswith("INSERT INTO events")]  # SQLite gives numbers one by one
    assert len(others) <= 12, others  # whatever the number of reports
    async with database.read() as tx:
        assert set(await tx.scalars(select(Deployment.state))) == {"committed"}
        lines = (await tx.scalars(select(Event.text).where(Event.kind == "deployment").order_by(Event.sequence))).all()
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("cam-1")] == [str(phase) for phase in phases]
