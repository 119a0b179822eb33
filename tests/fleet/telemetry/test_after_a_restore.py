"""A manager that came back from a backup, and devices that lived on: lines go on, and nobody's number is lower."""

import pytest
from sqlalchemy import select

from fleet.parts import Manager
from fleet.store import releases
from fleet.store.tables import Device, Window
from fleet.telemetry.gaps import Gaps
from fleet.telemetry.ingest import MOST_ASSIGNMENTS
from shared.messages import DeviceState
from shared.mqtt_link import Incoming
from shared.topics import Address, Channel
from tests.fleet.telemetry.test_ingest import window

LINE = ("cam-1", "s1", "telemetry")


def incoming(message) -> Incoming:
    channel = Channel.STATE if isinstance(message, DeviceState) else Channel.TELEMETRY
    payload = message.to_bytes() if isinstance(message, DeviceState) else message.to_wire()
    return Incoming(str(Address("cam-1", channel)), payload, False, lambda: None)


async def sequences(manager: Manager) -> list[int]:
    async with manager.database.read() as tx:
        return list(await tx.scalars(select(Window.sequence).order_by(Window.sequence)))


@pytest.fixture
async def restored(manager: Manager, enrolled) -> Manager:
    """It had window 1; the device has forgotten all up to 50, which the lost manager acknowledged."""
    await enrolled("cam-1", assignment=100)
    await manager.ingest.store([incoming(window(1))])
    async with manager.database.write() as tx:
        await releases.save_document(tx, releases.RESTORED, 100, b"", keep=None)
    manager.ingest._begun = False  # it is another process
    return manager


async def test_a_line_goes_on_with_the_oldest_message_that_the_device_still_has(restored: Manager) -> None:
    queued = [window(53), window(54)]  # the middle of what was under way when the manager was lost
    await restored.ingest.store([incoming(one) for one in queued])
    oldest = [window(51), window(52), window(53), window(54)]
    await restored.ingest.store([incoming(one) for one in oldest])
    assert await sequences(restored) == [1]
    await restored.ingest.store([incoming(one) for one in oldest])
    assert await sequences(restored) == [1, 51, 52, 53, 54]


async def test_a_manager_that_was_never_restored_waits_for_what_is_missing(manager: Manager, enrolled) -> None:
    await enrolled("cam-1")
    for _ in range(4):
        await manager.ingest.store([incoming(window(1)), incoming(window(3))])
    assert await sequences(manager) == [1]


async def test_the_devices_number_wins_and_an_older_order_is_not_told_again(manager: Manager, enrolled) -> None:
    await enrolled("cam-1", assignment=7, assigned="signed")
    owed = await manager.ingest.store([incoming(DeviceState(device="cam-1", online=True, assignment=9))])
    assert owed.announce == set()
    await manager.ingest.store([incoming(DeviceState(device="cam-1", online=True, assignment=MOST_ASSIGNMENTS))])
    async with manager.database.read() as tx:
        found = await tx.get_one(Device, "cam-1")
    assert (found.assignment, found.assigned) == (9, None)


def test_a_gap_is_over_when_its_lowest_message_comes_again() -> None:
    gaps = Gaps()
    said = [(5, False), (6, False), (4, False), (5, False), (4, True), (9, False), (9, True)]
    assert [gaps.over(LINE, sequence) for sequence, _ in said] == [over for _, over in said]
    assert not gaps.over(("cam-2", "s1", "report"), 4)
