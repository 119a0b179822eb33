"""The lease of the leader, on a real PostgreSQL: one leads, and who lost the lead writes nothing more."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from fleet import leadership as module
from fleet.errors import LeadLostError, OtherKeysError
from fleet.leadership import Leadership
from fleet.store import events
from fleet.store.database import Database
from tests.simulators import postgresql

NOW = datetime(2026, 11, 26, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    with postgresql.server() as folder:
        yield folder


@pytest.fixture
async def url(server: Path, request: pytest.FixtureRequest) -> str:
    name = f"test_{abs(hash(request.node.nodeid))}"
    connection = await asyncpg.connect(user=postgresql.USER, host=str(server), database="postgres", timeout=20)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgresql.url(server, name)


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Leadership, Leadership]]:
    """Two managers that did not try to lead yet."""
    databases = [Database(url), Database(url)]
    await asyncio.gather(*(database.open() for database in databases))  # both migrate: one does, one waits
    made = [
        Leadership(database, Database(url), host=host, url=f"http://{host}", keys="k")
        for database, host in zip(databases, ("one", "two"), strict=True)
    ]
    yield made[0], made[1]
    for leadership, database in zip(made, databases, strict=True):
        await leadership.close()
        await database.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", timedelta(seconds=2))
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)


async def write(database: Database) -> None:
    async with database.write() as tx:
        await events.add(tx, kind="device", level="ok", subject="cam-1", text="x", now=NOW)


async def count(database: Database) -> int:
    async with database.read() as tx:
        return int(await tx.scalar(text("SELECT count(*) FROM events")))


async def test_of_two_that_try_at_once_one_leads_and_after_its_release_the_other(two) -> None:
    tries = [asyncio.create_task(one.gain()) for one in two]
    async with asyncio.timeout(20):
        done, waiting = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == len(waiting) == 1
        first, second = sorted(two, key=lambda one: not one.leads)
        assert (first.leads, second.leads) == (True, False)
        await first.release()
        await waiting.pop()
    assert (first.leads, second.leads, second.term) == (False, True, 2)


async def test_a_leader_that_does_not_renew_is_followed_by_another_and_writes_nothing_more(two, short) -> None:
    async with asyncio.timeout(20):
        await two[0].gain()
        await write(two[0].database)
        await two[1].gain()
        await write(two[1].database)
        with pytest.raises(LeadLostError):
            await write(two[0].database)
        with pytest.raises(LeadLostError, match="could not renew"):
            await two[0].keep()
    assert await count(two[1].database) == 2
    assert two[1].term == two[0].term + 1


async def test_a_leader_that_renews_leads_on(two, short) -> None:
    async with asyncio.timeout(20):
        await two[0].gain()
        keeping, waiting = asyncio.create_task(two[0].keep()), asyncio.create_task(two[1].gain())
        await asyncio.sleep(2 * module.LEASE.total_seconds())
        assert not keeping.done()
        assert not waiting.done()
        await write(two[0].database)
        for task in (keeping, waiting):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_nobody_takes_over_in_the_middle_of_a_leaders_turn(two, short) -> None:
    async with asyncio.timeout(20):
        await two[0].gain()
        async with two[0].database.write() as tx:
            waiting = asyncio.create_task(two[1].gain())
            await asyncio.sleep(2 * module.LEASE.total_seconds())
            assert not waiting.done()  # the lease is over, the turn is not
            await events.add(tx, kind="device", level="ok", subject="cam-1", text="x", now=NOW)
        await waiting
    assert await count(two[1].database) == 1


async def test_a_turn_in_which_nothing_is_said_is_undone_so_that_a_hung_leader_is_followed(two, short) -> None:
    async with asyncio.timeout(25):
        await two[0].gain()
        with pytest.raises(DBAPIError):
            await _hang_in_a_turn(two)
    assert await count(two[1].database) == 0


async def _hang_in_a_turn(two: tuple[Leadership, Leadership]) -> None:
    async with two[0].database.write() as tx:
        await events.add(tx, kind="device", level="ok", subject="cam-1", text="x", now=NOW)
        await two[1].gain()


async def test_a_manager_with_other_keys_does_not_follow(two, url: str) -> None:
    await two[0].gain()
    database = Database(url)
    await database.open()
    other = Leadership(database, Database(url), host="three", url="http://three", keys="other")
    with pytest.raises(OtherKeysError, match="http://one"):
        await other.gain()
    await other.close()
    await database.close()


async def test_writers_of_two_managers_take_turns(two) -> None:
    """Each reads what the one before wrote: counters and the audit chain need it."""

    async def grow(leadership: Leadership) -> None:
        database = leadership._shared  # what its REST writes with
        for _ in range(20):
            async with database.write() as tx:
                found = await tx.scalar(text("SELECT count(*) FROM events"))
                await events.add(tx, kind="device", level="ok", subject=str(found), text="x", now=NOW)

    async with asyncio.timeout(20):
        await asyncio.gather(*(grow(one) for one in two for _ in range(2)))
    async with two[0].database.read() as tx:
        subjects = (await tx.scalars(text("SELECT subject FROM events"))).all()
    assert sorted(map(int, subjects)) == list(range(80))


async def test_with_sqlite_a_manager_leads_at_once(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'fleet.sqlite'}")
    await database.open()
    alone = Leadership(database, Database("sqlite+aiosqlite://"), host="one", url="http://one", keys="k")
    await alone.gain()
    await alone.keep()
    assert (alone.leads, alone.term) == (True, 0)
    async with alone.database.write() as tx:
        assert not await tx.scalar(text("SELECT count(*) FROM leadership"))
    await database.close()
