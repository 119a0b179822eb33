"""Empty databases of today's form: migrated once for all tests of a run, and copied since.

What migrations do is tested where they are (tests/fleet/store); every other test would only wait for them.
"""

import asyncio
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import asyncpg

from fleet.store.database import Database
from tests.simulators import postgresql

_TEMPLATE = "migrated"


def sqlite(path: Path) -> str:
    """The URL of a new database at `path`; one that is there stays."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_migrated(), path)
    return f"sqlite+aiosqlite:///{path}"


async def on_postgresql(folder: Path, name: str) -> str:
    """The URL of a new database on the server in `folder`."""
    async with asyncio.timeout(30):
        connection = await asyncpg.connect(user=postgresql.USER, host=str(folder), database="postgres")
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", _TEMPLATE):
                await connection.execute(f"CREATE DATABASE {_TEMPLATE}")
                await _migrate(postgresql.url(folder, _TEMPLATE))
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        finally:
            await connection.close()
    return postgresql.url(folder, name)


@cache
def _migrated() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="flotilla-empty-")
    _KEPT.append(folder)
    path = Path(folder.name) / "fleet.sqlite"
    with ThreadPoolExecutor(1) as outside:  # whoever asks may be in an event loop
        outside.submit(asyncio.run, _migrate(f"sqlite+aiosqlite:///{path}")).result()
    return path


async def _migrate(url: str) -> None:
    database = Database(url)
    await database.open()
    await database.close()


_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # until the run ends
