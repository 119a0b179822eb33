"""The audit's chain of hashes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from fleet.access.roles import Actor
from fleet.store import audit
from fleet.store.database import Database
from tests.simulators import databases

ANN = Actor("ann", "operator", "r-1")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
    await found.open()
    async with found.write() as tx:
        for number in range(5):
            body = {"n": number, "text": "é", "ratio": 0.25}
            now = datetime(2026, 11, 23, 10, number, 0, 123456, tzinfo=UTC)
            await audit.record(tx, actor=ANN, action="device.change", subject=f"cam-{number}", body=body, now=now)
    yield found
    await found.close()


async def first_broken(database: Database) -> int | None:
    async with database.read() as tx:
        return await audit.first_broken(tx)


async def test_an_untouched_chain_is_intact(database: Database) -> None:
    assert await first_broken(database) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET actor = 'eve' WHERE sequence = 3",
        "UPDATE audit SET subject = 'cam-9' WHERE sequence = 3",
        "UPDATE audit SET body = '{}' WHERE sequence = 3",
        "UPDATE audit SET at = '2026-11-23 10:02:01.000000' WHERE sequence = 3",
        "UPDATE audit SET hash = 'x' || substr(hash, 2) WHERE sequence = 3",
    ],
)
async def test_a_changed_row_is_found(database: Database, change: str) -> None:
    async with database.write() as tx:
        await tx.execute(text(change))
    assert await first_broken(database) == 3


async def test_a_row_taken_out_is_found_at_the_next(database: Database) -> None:
    async with database.write() as tx:
        await tx.execute(text("DELETE FROM audit WHERE sequence = 2"))
    assert await first_broken(database) == 3
