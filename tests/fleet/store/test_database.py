"""The database: migrations, transactions, durability settings."""

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select, text

from fleet.store import events
from fleet.store.database import HEAD, Database, DatabaseError, migrations
from fleet.store.tables import Base, Event

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'deep' / 'fleet.sqlite'}"


async def add(database: Database, text_: str) -> None:
    async with database.write() as tx:
        await events.add(tx, kind="device", level="ok", subject="cam-1", text=text_, now=NOW)


async def count(database: Database) -> int:
    async with database.read() as tx:
        return await tx.scalar(select(func.count()).select_from(Event)) or 0


def difference(connection: Connection) -> list[object]:
    return compare_metadata(MigrationContext.configure(connection), Base.metadata)


async def test_migrations_from_empty_lead_to_the_tables(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    await database.open()
    async with database.read() as tx:
        connection = await tx.connection()
        assert await connection.run_sync(difference) == []
        assert (await tx.execute(text("SELECT version_num FROM alembic_version"))).scalar() == HEAD
    await database.close()


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(migrations()).get_current_head() == HEAD


async def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    for expected in (1, 2):
        database = Database(url(tmp_path))
        await database.open()
        await add(database, "one")
        assert await count(database) == expected
        await database.close()


async def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    await database.open()
    with pytest.raises(ValueError, match="no"):
        await _fail_half_way(database)
    assert await count(database) == 0
    await database.close()


async def _fail_half_way(database: Database) -> None:
    async with database.write() as tx:
        await events.add(tx, kind="device", level="ok", subject="x", text="x", now=NOW)
        raise ValueError("no")


async def test_writers_take_turns_and_readers_do_not_wait(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    await database.open()
    async with asyncio.timeout(20):
        await asyncio.gather(*(add(database, str(number)) for number in range(40)))
        async with database.write() as tx:
            await events.add(tx, kind="device", level="ok", subject="x", text="x", now=NOW)
            assert await count(database) == 40  # the writer holds the pen, and is not seen yet
    assert await count(database) == 41
    await database.close()


async def test_commits_survive_a_power_cut(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    await database.open()
    async with database.read() as tx:
        assert (await tx.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await tx.execute(text("PRAGMA synchronous"))).scalar() == 2  # FULL
        assert (await tx.execute(text("PRAGMA foreign_keys"))).scalar() == 1
    await database.close()


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    database = Database(url(tmp_path))
    await database.open()
    await database.close()
    with sqlite3.connect(tmp_path / "deep" / "fleet.sqlite") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(DatabaseError) as refused:
        await Database(url(tmp_path)).open()
    assert "newer" in refused.value.remedy


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "fleet.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(DatabaseError):
        await Database(url(tmp_path)).open()
