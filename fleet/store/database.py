"""Open the manager's database, bring it to today's form, hand out transactions.

SQLite by default (WAL, synchronous=FULL: what was committed survives a power cut). Another database is a URL away.
Writers take turns, on PostgreSQL also those of several managers: who holds the pen sees all that was written before,
and nobody else writes meanwhile (ADR 30). Queries live in the modules beside this one, one per subject, `tx` first.

I/O: disk, tasks.
"""

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, MetaData, event, make_url, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from shared.durable import make_folder
from shared.errors import BrokenError

logger = logging.getLogger(__name__)

#: The newest migration. A test compares it with the folder.
HEAD: Final = "0165"
BUSY_SECONDS: Final = 10
#: A writer on PostgreSQL that says nothing for so long, as one that was stopped, loses its turn and is undone.
SILENT_SECONDS: Final = 6
_TURN: Final = text(
    f"SELECT set_config('idle_in_transaction_session_timeout', '{SILENT_SECONDS * 1000}', true),"
    " pg_advisory_xact_lock(7236277)"
)
Fence = Callable[[AsyncSession], Awaitable[None]]
_PRAGMAS: Final = (
    f"busy_timeout={BUSY_SECONDS * 1000}",
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
)


class DatabaseError(BrokenError):
    """The database cannot be opened or brought to today's form."""

    code = "E_DATABASE"
    default_remedy = "check the disk and the database URL; `flotilla-fleet doctor` looks at both"


class Database:
    """One database. Transactions of SQLAlchemy's `AsyncSession`; objects stay usable after the commit."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._engine: AsyncEngine | None = None
        self._writing = asyncio.Lock()
        self._fence: Fence | None = None

    @property
    def one_process(self) -> bool:
        """True for SQLite: nobody but us writes."""
        return self._sqlite

    def fenced(self, fence: Fence) -> "Database":
        """The same, for who may write only while `fence` lets them: it comes first in each of their turns.

        Open and close the original.
        """
        twin = copy.copy(self)
        twin._fence = fence  # noqa: SLF001  # our own
        return twin

    async def open(self) -> None:
        """Connect, and migrate when the database is older than this program. A second call does nothing.

        Raises:
            DatabaseError: unreachable, damaged, or newer than this program.
        """
        if self._engine is not None:
            return
        engine = self._make_engine()
        try:
            self._make_folder()
            async with engine.connect() as connection:
                found = await revision(connection)
            if found != HEAD:
                await _migrate(engine)
                logger.info("database migrated from=%s to=%s", found, HEAD)
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise DatabaseError(f"cannot open {self._url.render_as_string()}: {error}") from error
        except BaseException:
            await engine.dispose()
            raise
        self._engine = engine

    async def close(self) -> None:
        """End every connection. A second call does nothing."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await engine.dispose()

    async def rebuild(self, at: str, fill: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """Make everything anew, in one transaction: drop what is there, make the tables of revision `at`, have `fill`
        fill them, and bring them to today's form. A second call does the same again.

        Raises:
            DatabaseError: unreachable, or nobody knows that revision.
        """
        engine = self._make_engine()
        try:
            self._make_folder()
            async with engine.execution_options(flotilla_write=True).begin() as connection:
                await connection.run_sync(_drop_all)
                await connection.run_sync(_upgrade, at)
                await fill(connection)
                await connection.run_sync(_upgrade)
        except (SQLAlchemyError, OSError) as error:
            raise DatabaseError(f"cannot make {self._url.render_as_string()} anew: {error}") from error
        finally:
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One consistent view; nothing is kept."""
        async with AsyncSession(self._opened(), expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that is durable when the block ends, and undone when the block raises. One at a time."""
        async with self._writing, self.aside() as session:
            if not self._sqlite:
                await session.execute(_TURN)
            if self._fence is not None:
                await self._fence(session)
            yield session

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[AsyncSession]:
        """As `write`, but without waiting for a turn: for what changes one row by one statement."""
        engine = self._opened().execution_options(flotilla_write=True)
        async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
            yield session

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise RuntimeError("the database is not open")
        return self._engine

    def _make_folder(self) -> None:
        if self._sqlite and self._url.database:
            make_folder(Path(self._url.database).absolute().parent)

    def _make_engine(self) -> AsyncEngine:
        engine = create_async_engine(self._url, pool_pre_ping=not self._sqlite)
        if self._sqlite:
            event.listen(engine.sync_engine, "connect", _prepare)
            event.listen(engine.sync_engine, "begin", _begin)
        return engine


async def revision(connection: AsyncConnection) -> str | None:
    """The migration that the database stands at; None when it is empty."""
    try:
        return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    except SQLAlchemyError as error:
        await connection.rollback()
        if isinstance(error, OperationalError) and "alembic_version" not in str(error.orig):
            raise
        return None


async def _migrate(engine: AsyncEngine) -> None:
    async with engine.execution_options(flotilla_write=True).begin() as connection:
        await connection.run_sync(_upgrade)


def _drop_all(connection: Connection) -> None:
    found = MetaData()
    found.reflect(connection)
    found.drop_all(connection)


def _upgrade(connection: Connection, to: str = "head") -> None:
    from alembic import command  # half a second, needed once in the life of a database
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":  # one manager migrates, the others wait and find it done
        connection.execute(_TURN)
    try:
        command.upgrade(migrations(connection), to)
    except CommandError as error:
        raise DatabaseError(
            f"no way from this database to revision {HEAD if to == 'head' else to}: {error}",
            remedy="a newer Flotilla wrote it: install that version, or restore a backup",
        ) from error


def migrations(connection: Connection | None = None) -> Any:
    """Alembic's configuration for our folder of migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; `_begin` does
    try:
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
    except BaseException:
        connection.close()  # not a database: nobody else knows of this connection yet
        raise


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("flotilla_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
