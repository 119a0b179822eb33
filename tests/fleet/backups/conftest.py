"""A manager with a signed release and a device, and backups of it."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet.access.secrets import Pepper
from fleet.backups import restoring, sealing
from fleet.backups.resetting import Reset
from fleet.backups.writing import Maker, Written
from fleet.settings import FleetSettings
from fleet.store.database import Database
from fleet.store.tables import Deployment, Device, Rollout
from tests.fleet.releases.conftest import Workshop, founded, workshop  # noqa: F401  # fixtures
from tests.simulators import postgresql

PASSPHRASE = "correct horse battery staple"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LOCK = sealing._stretched(PASSPHRASE, b"s" * 16, 1, 8192)  # as a passphrase is stretched, but at once


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    with postgresql.server() as folder:
        yield folder


@pytest.fixture
def origin(founded: Workshop) -> Workshop:  # noqa: F811
    """A fleet of one device and one release."""
    Pepper.open(founded.folder / "fleet" / "keys" / "pepper")
    founded.publish("1.0.0")
    founded.write(_populate)
    return founded


async def _populate(tx: Any) -> None:
    device: dict[str, Any] = {"labels": {"hall": "3"}, "slots": [], "serving": {"digits": "1.0.0"}, "name": "Hall 3"}
    keys = {"sign_key": b"\x00s" * 16, "box_key": b"\xffb" * 16, "api_key_hash": "h"}
    tx.add(Device(id="cam-1", enrolled_at=NOW, assignment=7, assigned="signed", online=True, **device, **keys))
    await tx.flush()
    tx.add(
        Rollout(
            id="ro-old", model="digits", version="1.0.0", strategy="canary", state="completed", body={},
            created_by="ana", created_at=NOW, updated_at=NOW,
        )
    )  # fmt: skip
    await tx.flush()
    tx.add(Deployment(rollout_id="ro-old", device_id="cam-1", wave=0, state="committed", since=NOW,
                      sources={"manager": 2**40}, fetched_bytes=2**40))  # fmt: skip


async def write(database: Database, data_dir: Path, depot: Any, target: Path, *, chunks: bool = True) -> Written:
    written = Written(chunks=chunks, at=datetime.now(UTC))
    with target.open("wb") as file:
        async for piece in Maker(database, depot, data_dir, LOCK, "1.2.3").pieces(written):
            file.write(piece)
    return written


@pytest.fixture
def back_up(origin: Workshop) -> Callable[..., Path]:
    """Makes a backup of `origin`."""

    def make(name: str = "fleet.backup", **more: Any) -> Path:
        target = origin.folder / name
        folder = origin.folder / "fleet"
        origin.run(write(origin.manager.database, folder, origin.manager.depot, target, **more))
        return target

    return make


def settings_for(folder: Path, url: str | None = None) -> FleetSettings:
    return FleetSettings.model_validate({"data_dir": folder, "database": {"url": url}})


def restore(path: Path, settings: FleetSettings, *, replace: bool = False, **more: Any) -> Reset:
    async def work() -> Reset:
        plan = await restoring.planned(path, PASSPHRASE, settings)
        return await restoring.restored(path, plan, settings, replace=replace, now=datetime.now(UTC), **more)

    return asyncio.run(work())
