"""Devices of a site around a real manager: what leaves him, what goes between them, what when something fails."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import update

from agent.identity import Keys
from fleet.api.app import create_app
from fleet.parts import Manager, listening, opened
from fleet.peers import desk
from fleet.peers.desk import PeerDesk
from fleet.peers.ledger import Rules
from fleet.store.tables import Device
from fleet.telemetry.rate import Buckets
from shared import seal
from shared.peers import TOPIC, Ask
from tests.fleet.conftest import settings_in
from tests.simulators import sharing_site
from tests.simulators.sharing_site import Counted, SharingDevice, chunks_of, sealed

FILES = sealed(8)
WANTED = chunks_of(FILES)
TOTAL = sum(map(len, FILES.values()))
Join = Callable[..., Awaitable[SharingDevice]]


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    """One that shares in the hall, without its link: nothing here needs a broker."""
    settings = settings_in(tmp_path / "fleet", peers={"sites": ["hall"]})
    async with AsyncExitStack() as stack:
        door = stack.enter_context(listening(settings))
        found, _ = await stack.enter_async_context(opened(settings, door))
        for name, data in FILES.items():
            found.depot.put(name, data)
        yield found


@pytest.fixture
async def way(manager: Manager) -> Counted:
    return Counted(httpx2.ASGITransport(app=create_app(manager)))


@pytest.fixture
async def join(tmp_path: Path, way: Counted, enrolled: Callable[..., Awaitable[Device]]) -> AsyncIterator[Join]:
    """Makes a device that is enrolled, and runs its sharing."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=way))

        async def made(name: str, site: str = "hall", **more: object) -> SharingDevice:
            device = SharingDevice(name, tmp_path, http, settings=sharing_site.settings(**more))
            await enrolled(name, site=site, sign_key=device.keys.sign_public)
            return await stack.enter_async_context(device.share())

        yield made


def heard(device: SharingDevice) -> dict[str, int]:
    return {name: count for name, count in device.sources.received.items() if count}


async def test_one_copy_leaves_the_manager_however_many_devices_fetch(join: Join, way: Counted) -> None:
    devices = [await join(f"cam-{number}") for number in range(6)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(device.fetch(WANTED) for device in devices))
    assert all(device.has_all(WANTED) for device in devices)
    assert way.loaded == dict.fromkeys(FILES, 1)
    came = [heard(device) for device in devices]
    assert sum(one.get("manager", 0) for one in came) == TOTAL
    assert sum(one.get("peer", 0) for one in came) == 5 * TOTAL
    assert {sum(one.values()) for one in came} == {TOTAL}  # every byte once, as planned


async def test_without_the_manager_a_remembered_peer_gives_everything(join: Join, way: Counted) -> None:
    first = await join("cam-1")
    await first.fetch(WANTED)
    first.journal.save_manifest("a" * 64, b"whatever")
    second = await join("cam-2")
    way.cut, way.loaded = True, way.loaded.__class__()
    async with asyncio.timeout(20):
        await second.fetch(WANTED)
    assert second.has_all(WANTED)
    assert heard(second) == {"peer": TOTAL}
    assert not way.loaded


async def test_a_site_that_does_not_share_goes_to_the_manager_each_for_itself(join: Join, way: Counted) -> None:
    devices = [await join(f"cam-{number}", site="yard") for number in range(2)]
    await asyncio.gather(*(device.fetch(WANTED) for device in devices))
    assert set(way.loaded.values()) == {2}
    assert all(heard(device) == {"manager": TOTAL} for device in devices)
    assert all(device.peers.door.address is None for device in devices)


async def test_devices_that_take_and_serve_nowhere_are_not_held_up(join: Join, way: Counted) -> None:
    first, second = [await join(f"cam-{number}", address=None) for number in range(2)]
    async with asyncio.timeout(30):
        await asyncio.gather(first.fetch(WANTED), second.fetch(WANTED))
    assert set(way.loaded.values()) == {2}


async def test_a_peer_that_is_busy_for_ever_costs_a_second_copy_and_no_more(join: Join, way: Counted) -> None:
    first = await join("cam-1")
    await first.fetch(WANTED)
    first.busy = "85 C at GPU"
    second = await join("cam-2", wait_seconds=1)
    async with asyncio.timeout(30):
        await second.fetch(WANTED)
    assert second.has_all(WANTED)
    assert heard(second) == {"manager": TOTAL}
    assert set(way.loaded.values()) == {2}


async def test_a_peer_that_gives_other_bytes_spoils_nothing(join: Join, way: Counted) -> None:
    liar = await join("cam-1")
    await liar.fetch(WANTED)
    liar.peers.door._chunk = lambda _: b"x" * 2000
    honest = await join("cam-2")
    async with asyncio.timeout(30):
        await honest.fetch(WANTED)
    assert honest.has_all(WANTED)
    assert {name: honest.store.get(name) for name in FILES} == FILES
    assert heard(honest)["manager"] == TOTAL
    assert set(way.loaded.values()) == {2}


async def test_a_device_that_dies_with_its_turns_holds_nobody_up(join: Join, way: Counted, manager: Manager) -> None:
    manager.peers.ledger._rules = Rules(turn_seconds=0.5)
    dead, other = await join("cam-1"), await join("cam-2")
    turns = await dead.peers._desk.ask([chunk.id for chunk in WANTED])
    assert turns is not None
    assert len(turns.turns) == 4  # and it never comes back
    async with asyncio.timeout(30):
        await other.fetch(WANTED)
    assert other.has_all(WANTED)
    assert set(way.loaded.values()) == {1}


async def test_a_manager_that_forgot_is_told_again(join: Join, way: Counted, manager: Manager) -> None:
    first, second = await join("cam-1"), await join("cam-2")
    await first.fetch(WANTED)
    fresh = PeerDesk(manager.settings.peers, manager.pepper, manager.clock)
    manager.peers.ledger, manager.peers._epoch = fresh.ledger, fresh._epoch
    for _ in range(2):  # the first answer says that he forgot
        await first.peers._desk.ask()
    async with asyncio.timeout(30):
        await second.fetch(WANTED)
    assert heard(second) == {"peer": TOTAL}


async def test_chunks_stay_for_others_after_the_update_and_go_when_their_time_is_over(join: Join) -> None:
    device = await join("cam-1")
    await device.fetch(WANTED)
    device.store.let_go()
    assert device.has_all(WANTED)
    for path in device.store._files():
        os.utime(path, (1, 1))
    device.store.let_go()
    assert device.store.names() == ()


async def test_who_was_revoked_or_moved_away_is_named_no_more(
    join: Join, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MEMBERS_SECONDS", 0.0)
    first, second, third = [await join(f"cam-{number}") for number in range(3)]
    await first.fetch(WANTED[:1])
    await second.fetch(WANTED[:1])
    async with manager.database.write() as tx:
        for name, change in (("cam-0", {"lifecycle": "revoked"}), ("cam-1", {"site": "yard"})):
            await tx.execute(update(Device).where(Device.id == name).values(**change))
    answer = await third.peers._desk.ask([WANTED[0].id])
    assert answer is not None
    assert answer.peers == ()
    assert answer.turns == (WANTED[0].id,)


async def test_a_device_that_asks_without_end_is_held_back(join: Join, manager: Manager) -> None:
    device = await join("cam-1")
    manager.peers._buckets = Buckets(rate=1, burst=3)
    answers = [await device.peers._desk.ask() for _ in range(5)]
    assert [answer is not None for answer in answers[:3]] == [True] * 3
    assert answers[4] is None


async def test_the_more_devices_wait_the_longer_each_of_them_waits(manager: Manager) -> None:
    waits = [manager.peers._again(f"cam-{number}", waits=True) for number in range(2000)]
    assert waits[0] == waits[99] == 2
    assert waits[499] == 10
    assert waits[-1] == 30
    assert [manager.peers._again(f"cam-{number}", waits=False) for number in range(2000)][-1] == 2


async def test_nobody_asks_in_the_name_of_another(join: Join, way: Counted, manager: Manager) -> None:
    device = await join("cam-1")
    ask = Ask(device="cam-1", key="0" * 64, wanted=(WANTED[0].id,)).to_bytes()
    bodies = {
        "not signed": ask,
        "signed by another": seal.sealed(ask, topic=TOPIC, sign=Keys.make().signature),
        "signed for something else": seal.sealed(ask, topic="flotilla/v1/cam-1/up/want", sign=device.keys.signature),
        "nobody we know": seal.sealed(ask.replace(b"cam-1", b"cam-9"), topic=TOPIC, sign=device.keys.signature),
        "nothing": b"",
        "no ask": seal.sealed(b"{}", topic=TOPIC, sign=device.keys.signature),
    }
    async with httpx2.AsyncClient(transport=way) as http:
        for why, body in bodies.items():
            answer = await http.post("http://fleet/api/v1/peers", content=body)
            assert answer.status_code in {409, 422}, why
            assert answer.json()["code"] in {"E_SEAL", "E_PEERS", "E_BAD_INPUT"}, why
    assert manager.peers.ledger.turns == 0
