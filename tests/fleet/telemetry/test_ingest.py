"""Ingest behind a real broker: stored before acknowledged, nothing lost, nothing twice."""

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from fleet.parts import Manager
from fleet.store import devices, events
from fleet.store.tables import Alert, Deployment, Device, Report, Rollout, Window
from fleet.telemetry.rate import Buckets
from shared.messages import Ack, DeviceState, Message, Phase, TelemetryWindow, UpdateReport
from shared.topics import Address, Channel

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def window(sequence: int, *, after: int | None = None, device: str = "cam-1", **values: object) -> TelemetryWindow:
    fields: dict[str, object] = {
        "device": device,
        "stream": "s1",
        "sequence": sequence,
        "after": sequence - 1 if after is None else after,
        "at": NOW,
        "boot": "b1",
        "model": "digits",
        "version": "1.0.0",
        "manifest": "a" * 64,
        "phase": "serving",
        "start": NOW,
        "end": NOW,
        "requests": 10,
        "errors": {"timeout": 2},
    }
    return TelemetryWindow.model_validate(fields | values)


def report(sequence: int, phase: Phase, **values: object) -> UpdateReport:
    fields: dict[str, object] = {
        "device": "cam-1",
        "stream": "s1",
        "sequence": sequence,
        "after": sequence - 1,
        "at": NOW,
        "model": "digits",
        "version": "1.1.0",
        "rollout": "ro-1",
        "assignment": 3,
        "phase": phase,
    }
    return UpdateReport.model_validate(fields | values)


class Talk:
    """A device's side: say something, wait for the manager's own ack."""

    def __init__(self, link) -> None:
        self._link = link
        self._messages = link.messages()

    async def say(self, message: Message, *, retain: bool = False) -> None:
        channel = {TelemetryWindow: Channel.TELEMETRY, UpdateReport: Channel.REPORT, DeviceState: Channel.STATE}[
            type(message)
        ]
        await self._link.publish(str(Address("cam-1", channel)), message.to_bytes(), retain=retain)

    async def acked(self, *, telemetry: int = 0, report: int = 0) -> None:
        async with asyncio.timeout(10):
            while True:
                heard = await anext(self._messages)
                heard.ack()
                if heard.topic.endswith("/ack") and Ack.parse(heard.payload) == Ack(
                    stream="s1", telemetry=telemetry, report=report
                ):
                    return


@pytest.fixture
async def ingest(manager: Manager):
    task = asyncio.create_task(manager.ingest.run())
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def talk(enrolled, device_link) -> Talk:
    await enrolled("cam-1")
    return Talk(await device_link("cam-1"))


async def stored(manager: Manager, table: type) -> int:
    async with manager.database.read() as tx:
        return await tx.scalar(select(func.count()).select_from(table)) or 0


async def test_windows_are_stored_once_and_acknowledged(manager: Manager, talk: Talk, ingest) -> None:
    for sequence in (1, 2, 2, 1, 3):
        await talk.say(window(sequence))
    await talk.acked(telemetry=3)
    async with manager.database.read() as tx:
        rows = (await tx.scalars(select(Window).order_by(Window.sequence))).all()
    assert [(row.sequence, row.requests, row.failed) for row in rows] == [(1, 10, 2), (2, 10, 2), (3, 10, 2)]
    assert TelemetryWindow.model_validate(rows[0].body) == window(1)


async def test_after_a_gap_the_device_is_told_from_where_to_send(manager: Manager, talk: Talk, ingest) -> None:
    await talk.say(window(1))
    await talk.acked(telemetry=1)
    await talk.say(window(3))
    await talk.acked(telemetry=1)
    assert await stored(manager, Window) == 1
    await talk.say(window(3, after=1))  # the device shed 2
    await talk.acked(telemetry=3)


async def test_reports_and_telemetry_count_apart_and_a_new_outbox_starts_anew(manager, talk: Talk, ingest) -> None:
    await talk.say(window(1))
    await talk.say(report(1, Phase.ANNOUNCED))
    await talk.acked(telemetry=1, report=1)
    async with manager.database.read() as tx:
        assert await devices.durable(tx, "cam-1", "s1") == {"report": 1, "telemetry": 1}
    await talk.say(window(1, stream="s2"))
    async with asyncio.timeout(5):
        seen = -1
        while await stored(manager, Window) < 2:
            seen = await manager.hub.wait(seen, 5)


async def test_killing_ingest_in_full_flow_loses_nothing(manager: Manager, talk: Talk) -> None:
    """The device keeps the rules of the outbox: it sends on until the manager's own ack."""
    manager.ingest._buckets = Buckets(rate=1e9, burst=1e9)
    total, done = 60, asyncio.Event()

    async def device() -> None:
        acked = 0
        acks = asyncio.create_task(_acks())
        while acked < total:
            for sequence in range(acked + 1, total + 1):
                await talk.say(window(sequence))
            with contextlib.suppress(TimeoutError):  # no word from the manager: send again
                async with asyncio.timeout(0.3):
                    acked = max(acked, await acks_seen.get())
            while not acks_seen.empty():
                acked = max(acked, acks_seen.get_nowait())
        acks.cancel()
        done.set()

    acks_seen: asyncio.Queue[int] = asyncio.Queue()

    async def _acks() -> None:
        async for heard in talk._link.messages():
            heard.ack()
            acks_seen.put_nowait(Ack.parse(heard.payload).telemetry)

    sender = asyncio.create_task(device())
    for round_ in range(200):
        task = asyncio.create_task(manager.ingest.run())
        await asyncio.wait([sender], timeout=0.03 if round_ < 20 else 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if done.is_set():
            break
    await sender
    async with manager.database.read() as tx:
        sequences = (await tx.scalars(select(Window.sequence).order_by(Window.sequence))).all()
    assert list(sequences) == list(range(1, total + 1))


async def test_a_state_updates_the_device_and_asks_for_what_it_missed(manager, talk: Talk, ingest, monkeypatch) -> None:
    told: list[str] = []

    async def announce(device_id: str) -> None:
        told.append(device_id)

    monkeypatch.setattr(manager.announcer, "announce", announce)
    async with manager.database.write() as tx:
        device = await tx.get(Device, "cam-1")
        device.assignment, device.assigned = 4, "signed"
    slots = [{"slot": "a", "state": "good", "model": "digits", "version": "1.0.0"}]
    base = {"device": "cam-1", "boot": "b", "agent_version": "0.1.0", "hardware": "x" * 500, "slots": slots}
    state = DeviceState.model_validate(base | {"online": True, "assignment": 3, "serving": {"digits": "1.0.0"}})
    await talk.say(state, retain=True)
    await talk.say(state.model_copy(update={"assignment": 4}))
    await talk.say(window(1))
    await talk.acked(telemetry=1)
    assert told == ["cam-1"]
    async with manager.database.read() as tx:
        device = await tx.get(Device, "cam-1")
    assert device.online
    assert device.seen_at is not None
    assert (device.slots, device.serving, device.hardware) == (slots, {"digits": "1.0.0"}, "x" * 64)


async def test_reports_move_the_deployment_but_an_older_assignment_does_not(manager, talk: Talk, ingest) -> None:
    async with manager.database.write() as tx:
        times = {"created_at": NOW, "updated_at": NOW}
        tx.add(
            Rollout(
                id="ro-1",
                model="digits",
                version="1.1.0",
                strategy="canary",
                state="running",
                body={},
                created_by="x",
                **times,
            )
        )
        await tx.flush()
        tx.add(Deployment(rollout_id="ro-1", device_id="cam-1", wave=0, state="queued", since=NOW, assignment=3))
    await talk.say(report(1, Phase.FETCHING, fetched_bytes=10, total_bytes=100))
    await talk.say(report(2, Phase.FETCHING, fetched_bytes=60, total_bytes=100, sources={"peer": 60}))
    await talk.say(report(3, Phase.ROLLED_BACK, assignment=2, reason="E_CANCELLED"))
    await talk.say(report(4, Phase.COMMITTED, detail="y" * 2000))
    await talk.acked(report=4)
    async with manager.database.read() as tx:
        row = await tx.get(Deployment, ("ro-1", "cam-1"))
        lines = [line.text for line in await events.newest(tx, rollout_id="ro-1")]
    assert (row.state, row.reason, row.fetched_bytes, row.total_bytes, len(row.detail)) == (
        "committed",
        None,
        60,
        100,
        500,
    )
    assert row.sources == {"peer": 60}
    assert lines == [
        "cam-1: digits 1.1.0 committed",
        "cam-1: digits 1.1.0 rolled-back (E_CANCELLED)",
        "cam-1: digits 1.1.0 fetching",
    ]


@pytest.mark.parametrize("reason", ["E_SIGNATURE", "E_REPLAYED", "E_WRONG_DEVICE", "E_CHUNK_DAMAGED"])
async def test_a_refusal_that_smells_of_tampering_raises_an_alert(manager, talk: Talk, ingest, reason: str) -> None:
    await talk.say(report(1, Phase.REFUSED, reason=reason, rollout=None))
    await talk.acked(report=1)
    async with manager.database.read() as tx:
        alerts = (await tx.scalars(select(Alert))).all()
    assert [(alert.kind, alert.scope, alert.severity) for alert in alerts] == [("security", "device:cam-1", "high")]


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        window(1, device="cam-2").to_bytes(),
        window(2**60, after=0).to_bytes(),
        window(1, requests=2**70).to_bytes(),
        window(1, stream="x" * 65).to_bytes(),
        window(1, boot="b" * 65).to_bytes(),
        window(1, errors={f"e{number}": 1 for number in range(40)}).to_bytes(),
        window(1, errors={"e" * 100: 1}).to_bytes(),
    ],
)
async def test_bad_messages_are_dropped_and_hold_nobody_up(manager: Manager, talk: Talk, ingest, bad: bytes) -> None:
    await talk._link.publish(str(Address("cam-1", Channel.TELEMETRY)), bad)
    await talk.say(window(1))
    await talk.acked(telemetry=1)
    assert await stored(manager, Window) == 1


async def test_a_waiting_device_is_seen_but_nothing_of_it_is_stored(manager, enrolled, device_link, ingest) -> None:
    await enrolled("cam-1", lifecycle="pending")
    talk = Talk(await device_link("cam-1"))
    await talk.say(window(1))
    await talk.say(DeviceState(device="cam-1", online=True))
    async with asyncio.timeout(5):
        seen = -1
        while not await _online(manager):
            seen = await manager.hub.wait(seen, 5)
    assert await stored(manager, Window) == 0


async def _online(manager: Manager) -> bool:
    async with manager.database.read() as tx:
        device = await tx.get(Device, "cam-1")
    return device is not None and device.online


async def test_a_device_that_speaks_too_fast_is_slowed_down_and_loses_nothing(manager, talk: Talk, ingest) -> None:
    manager.ingest._buckets = Buckets(rate=4, burst=3)
    for sequence in range(1, 7):
        await talk.say(window(sequence))
    await talk.acked(telemetry=3)
    assert manager.ingest.dropped > 0
    acked = 3
    async with asyncio.timeout(10):
        while acked < 6:
            await asyncio.sleep(0.3)  # the bucket's own pace
            await talk.say(window(acked + 1))
            await talk.acked(telemetry=acked + 1)
            acked += 1
    assert await stored(manager, Window) == 6
    assert await stored(manager, Report) == 0


def test_buckets_fill_up_again() -> None:
    buckets = Buckets(rate=2, burst=2)
    assert [buckets.take("a", 0), buckets.take("a", 0), buckets.take("a", 0), buckets.take("b", 0)] == [
        True,
        True,
        False,
        True,
    ]
    assert [buckets.take("a", 0.5), buckets.take("a", 0.5)] == [True, False]
    for number in range(5000):
        assert buckets.take(str(number), 10 + number)
    assert len(buckets._buckets) <= 1024
