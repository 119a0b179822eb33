"""Make a manager from a backup: everything is staged beside what is there, then swapped in.

    examined -> chunks into the depot -> keys and database staged -> marker -> swapped -> marker gone

Killed before the marker: what was there is untouched. Killed after it: no manager starts (E_RESTORING), and the same
restore again brings it to its end. With PostgreSQL the database is filled in one transaction after the marker.

I/O: disk, tasks.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fleet.backups import rows
from fleet.backups.errors import BackupNewerError, NotEmptyError
from fleet.backups.examining import Contents, examined
from fleet.backups.form import Reader
from fleet.backups.resetting import Reset, reset
from fleet.backups.writing import CONFIG
from fleet.errors import DataFolderError, RunningError
from fleet.parts import RESTORING, claim, depot_of
from fleet.releases import floors
from fleet.store import leadership, rollouts
from fleet.store.database import HEAD, Database, DatabaseError, revision
from shared.durable import make_folder, replace_file, sync_folder
from shared.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from fleet.settings import FleetSettings

_STAGED: Final = "restoring"
_SCHEDULES: Final = ("waiting", "queued", "running")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore would do, or did."""

    contents: Contents
    data_dir: Path
    database: str
    occupied: str | None  # what is there already, in words
    rollouts: tuple[str, ...]  # that are stopped
    schedules: tuple[str, ...]  # that are paused

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "backup": self.contents.document(),
            "data_dir": str(self.data_dir),
            "database": self.database,
            "occupied": self.occupied,
            "rollouts_stopped": list(self.rollouts),
            "schedules_paused": list(self.schedules),
        }


async def planned(
    path: Path, passphrase: str, settings: FleetSettings, *, progress: Callable[[int], None] = lambda _: None
) -> Plan:
    """What restoring the backup at `path` would do. Changes nothing.

    Raises:
        FlotillaError: it cannot be restored; see `examined`.
    """
    contents = await asyncio.to_thread(examined, path, passphrase, progress=progress)
    if contents.head["revision"] > HEAD:
        raise BackupNewerError(f"its tables are of revision {contents.head['revision']}; this program knows {HEAD}")
    return Plan(
        contents,
        settings.data_dir,
        make_url(settings.database_url).render_as_string(),
        await _occupied(settings),
        tuple(row["id"] for row in contents.kept["rollouts"] if row["state"] in rollouts.ACTIVE),
        tuple(row["id"] for row in contents.kept["schedules"] if row["state"] in _SCHEDULES),
    )


async def restored(
    path: Path,
    plan: Plan,
    settings: FleetSettings,
    *,
    replace: bool,
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
    checkpoint: Callable[[str], None] = lambda _: None,
) -> Reset:
    """Do it. `checkpoint` hears the name of each thing done, for tests that kill.

    Raises:
        NotEmptyError: there is a manager's data, and `replace` was not said.
        RunningError: a manager works on this folder.
        DatabaseError, DataFolderError, StoreError: the place cannot be written.
    """
    lock = claim(settings.data_dir)
    try:
        if plan.occupied is not None and not replace:
            raise NotEmptyError(f"{plan.occupied} is there already")
        if now < plan.contents.created:
            raise RefusedError(
                f"this machine's clock is before the backup, which is of {plan.contents.created:%Y-%m-%d %H:%M} UTC",
                remedy="set the clock: timedatectl set-ntp true",
            )
        await _nobody_leads(settings)
        return await _Restore(path, plan, settings, now, progress, checkpoint).done()
    except OSError as error:
        raise DataFolderError(f"cannot write below {settings.data_dir}: {error}") from error
    finally:
        lock.close()


@dataclass
class _Restore:
    path: Path
    plan: Plan
    settings: FleetSettings
    now: datetime
    progress: Callable[[int], None]
    checkpoint: Callable[[str], None]
    result: Reset | None = None

    async def done(self) -> Reset:
        folder, url = self.settings.data_dir, make_url(self.settings.database_url)
        staged = folder / _STAGED
        await asyncio.to_thread(self._chunks)
        self.checkpoint("chunks")
        shutil.rmtree(staged, ignore_errors=True)
        await asyncio.to_thread(self._keys, staged)
        self.checkpoint("keys")
        own = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
        if own is not None:
            await self._database(f"sqlite+aiosqlite:///{staged / own.name}")
            sync_folder(staged)
        self.checkpoint("staged")
        marker = folder / RESTORING
        aside = _aside(marker, self.now)
        replace_file(marker, json.dumps({"aside": aside, "backup": self.path.name}).encode())
        self.checkpoint("marked")
        if own is None:
            await self._database(self.settings.database_url)
            self.checkpoint("database")
        self._swap(staged, folder / aside, own)
        (folder / RESTORING).unlink()
        sync_folder(folder)
        shutil.rmtree(staged, ignore_errors=True)
        if self.result is None:
            raise RuntimeError("the database was not filled")
        return self.result

    def _chunks(self) -> None:
        depot = depot_of(self.settings)
        with self.path.open("rb") as file:
            for part in Reader(file).parts():
                if part.kind == "chunk":
                    depot.put(part.header["name"], part.payload)
                self.progress(len(part.payload))

    def _keys(self, staged: Path) -> None:
        for name, data in self.plan.contents.secrets.items():
            make_folder((staged / name).parent)
            replace_file(staged / name, data)

    async def _database(self, url: str) -> None:
        await Database(url).rebuild(self.plan.contents.head["revision"], self._fill)
        database = Database(url)
        await database.open()
        try:
            async with database.write() as tx:
                floor = floors.floor_at(self.now)
                self.result = await reset(tx, backup_at=self.plan.contents.created, floor=floor, now=self.now)
        finally:
            await database.close()

    async def _fill(self, connection: AsyncConnection) -> None:
        with self.path.open("rb") as file:
            for part in Reader(file).parts():
                if part.kind == "rows":
                    form = rows.Form.read(part.header)
                    if found := list(form.rows(part.payload)):
                        await connection.execute(insert(form.clause()), found)

    def _swap(self, staged: Path, aside: Path, own: Path | None) -> None:
        """Everything staged into its place; what was there goes aside, once."""
        places = {staged / "keys": self.settings.data_dir / "keys"}
        if not (self.settings.data_dir / CONFIG).exists():
            places[staged / CONFIG] = self.settings.data_dir / CONFIG
        if own is not None:
            for suffix in ("-wal", "-shm"):
                _set_aside(own.with_name(own.name + suffix), aside)
            places[staged / own.name] = own
        for new, place in places.items():
            if not new.exists():
                continue
            _set_aside(place, aside)
            make_folder(place.parent)
            shutil.move(new, place)
            sync_folder(place.parent)
            self.checkpoint(f"swapped {place.name}")


async def _nobody_leads(settings: FleetSettings) -> None:
    """Several managers may share a PostgreSQL: none of them may run."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        return
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            if await revision(connection) != HEAD:
                return
            async with AsyncSession(connection) as tx:
                leader = await leadership.leader(tx)
        if leader is not None:
            raise RunningError(
                f"{leader.holder} ({leader.url}) works on this database", remedy="end all managers first"
            )
    except SQLAlchemyError as error:
        raise DatabaseError(f"cannot open {url.render_as_string()}: {error}") from error
    finally:
        await engine.dispose()


def _aside(marker: Path, now: datetime) -> str:
    """The folder for what was there; that of the attempt before, where there was one."""
    try:
        return str(json.loads(marker.read_text())["aside"])
    except (OSError, ValueError, KeyError):
        return f"replaced-{now:%Y%m%dT%H%M%SZ}"


def _set_aside(place: Path, aside: Path) -> None:
    if not place.exists():
        return
    make_folder(aside)
    if (aside / place.name).exists():  # an attempt before set the old one aside; this is its own
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    else:
        shutil.move(place, aside / place.name)
    sync_folder(aside)


async def _occupied(settings: FleetSettings) -> str | None:
    if (settings.data_dir / RESTORING).exists():
        return None  # of an attempt that did not end
    url = make_url(settings.database_url)
    found = _files(settings.data_dir, Path(url.database) if url.database else None)
    if url.get_backend_name() == "sqlite" or found is not None:
        return found
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return None if await revision(connection) is None else f"a database at {url.render_as_string()}"
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseError(f"cannot open {url.render_as_string()}: {error}") from error
    finally:
        await engine.dispose()


def _files(data_dir: Path, database: Path | None) -> str | None:
    if database is not None and database.is_file():
        return f"a database at {database}"
    keys = data_dir / "keys"
    return f"a folder of keys at {keys}" if keys.exists() else None
