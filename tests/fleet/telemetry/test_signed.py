"""Signed telemetry behind a real broker: whose key, and what becomes of the rest."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import func, select

from agent.identity import Keys
from fleet.parts import Manager, listening, opened
from fleet.store import devices, events
from fleet.store.tables import Window
from shared import seal
from shared.messages import Ack, TelemetryWindow
from shared.topics import Address, Channel
from tests.fleet.conftest import settings_in
from tests.fleet.telemetry.test_ingest import window

KEYS, OTHERS = Keys.make(), Keys.make()
TOPIC = str(Address("cam-1", Channel.TELEMETRY))


@pytest.fixture
async def link(manager: Manager, enrolled, device_link):
    """A device that enrolled with KEYS; the manager takes in what it says."""
    await enrolled("cam-1", sign_key=KEYS.sign_public)
    task = asyncio.create_task(manager.ingest.run())
    yield await device_link("cam-1")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def acked(link, sequence: int) -> None:
    async with asyncio.timeout(10):
        async for heard in link.messages():
            heard.ack()
            if heard.topic.endswith("/ack") and Ack.parse(heard.payload).telemetry == sequence:
                return


def signed(said: TelemetryWindow, keys: Keys = KEYS) -> bytes:
    return seal.sealed(said.to_wire(), topic=TOPIC, sign=keys.signature)


async def number(manager: Manager) -> int:
    async with manager.database.read() as tx:
        return await tx.scalar(select(func.count()).select_from(Window)) or 0


async def test_a_compact_signed_window_is_stored_as_any_other(manager: Manager, link) -> None:
    said = window(1, stream="ab12", boot="cd34")
    assert said.to_wire()[:1] == b"\x03"
    await link.publish(TOPIC, signed(said))
    await acked(link, 1)
    async with manager.database.read() as tx:
        [row] = (await tx.scalars(select(Window))).all()
    stored = TelemetryWindow.model_validate(row.body)
    assert (stored.errors, stored.requests, stored.manifest) == ({"timeout": 2}, 10, "a" * 16)


async def test_what_another_key_signed_is_refused_and_counted(manager: Manager, link, until) -> None:
    await link.publish(TOPIC, signed(window(1), OTHERS))
    await until(lambda: manager.ingest.forged == 1)
    await link.publish(TOPIC, signed(window(1)))
    await acked(link, 1)
    assert (await number(manager), manager.ingest.dropped) == (1, 1)


async def test_where_signatures_are_required_nothing_else_is_taken(manager: Manager, link, until) -> None:
    manager.ingest._signed = True
    await link.publish(TOPIC, window(1).to_bytes())
    await until(lambda: manager.ingest.forged == 1)
    await link.publish(TOPIC, signed(window(1)))
    await acked(link, 1)
    assert await number(manager) == 1


async def test_the_setting_says_whether_signatures_are_required(tmp_path) -> None:
    settings = settings_in(tmp_path / "fleet", mqtt={"embedded_port": 0, "require_signatures": True})
    async with AsyncExitStack() as stack:
        door = stack.enter_context(listening(settings))
        found, _ = await stack.enter_async_context(opened(settings, door))
        assert found.ingest._signed


async def test_what_a_device_threw_away_is_counted_and_told_once(manager: Manager, link) -> None:
    for sequence, shed in ((1, 0), (2, 5), (3, 5), (4, 9)):
        await link.publish(TOPIC, signed(window(sequence, shed=shed)))
        await acked(link, sequence)
    async with manager.database.read() as tx:
        assert await devices.shed(tx, "cam-1") == 9
        told = [row.text for row in await events.after(tx, 0, limit=20) if "threw away" in row.text]
    assert [text.split()[3] for text in told] == ["5", "4"]
