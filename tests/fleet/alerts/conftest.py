"""A manager's database, a clock that the test moves, and receivers that are told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fleet.alerts import desk
from fleet.alerts.driver import AlertDriver
from fleet.hub import Hub
from fleet.settings import FleetSettings
from fleet.store import tables
from fleet.store.database import Database
from tests.simulators import databases
from tests.simulators.receivers import MailServer, WebReceiver

T0 = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "a-secret-of-sixteen-signs"


@dataclass
class ManualClock:
    at: datetime = T0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - T0).total_seconds()


@dataclass
class World:
    settings: FleetSettings
    database: Database
    clock: ManualClock = field(default_factory=ManualClock)
    hub: Hub = field(default_factory=Hub)
    manager_url: str = "http://fleet.test"

    def after(self, **length: float) -> None:
        self.clock.at += timedelta(**length)

    def driver(self) -> AlertDriver:
        """A new one, as after a restart: it knows nothing but the database."""
        return AlertDriver(self, chance=lambda: 0.0)

    async def alert(self, **changes: Any) -> tables.Alert:
        values: dict[str, Any] = {
            "kind": "drift",
            "scope": "device:cam-1",
            "subject": "digits@1.0.0 input.brightness",
            "severity": "high",
            "text": "digits 1.0.0 on cam-1: PSI 0.83",
            "body": {"model": "digits", "version": "1.0.0", "feature": "input.brightness", "psi": 0.83, "samples": 240},
            "now": self.clock.at,
        }
        async with self.database.write() as tx:
            return await desk.open_alert(tx, **(values | changes))

    async def device(self, name: str, site: str = "", **labels: str) -> None:
        async with self.database.write() as tx:
            tx.add(
                tables.Device(
                    id=name, name=name, site=site, labels=labels, sign_key=b"s", box_key=b"b", api_key_hash="",
                    enrolled_at=T0, slots=[], serving={},
                )
            )  # fmt: skip

    async def rows(self, table: Any) -> list[Any]:
        async with self.database.read() as tx:
            return list((await tx.scalars(select(table))).all())

    async def tell(self, driver: AlertDriver | None = None) -> None:
        """One look, then every channel."""
        driver = driver or self.driver()
        await driver.look()
        for name in self.settings.channels:
            await driver.deliver(name)


Make = Callable[..., Awaitable[World]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes the world with these channels and alert settings."""
    opened: list[Database] = []

    async def world(channels: dict[str, Any] | None = None, **alerts: Any) -> World:
        told = {"notification_channels": list(channels or {}), "group_wait_seconds": 0, **alerts}
        settings = FleetSettings.model_validate({"data_dir": tmp_path, "channels": channels or {}, "alerts": told})
        database = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
        await database.open()
        opened.append(database)
        return World(settings, database)

    yield world
    for database in opened:
        await database.close()


@pytest.fixture
async def web() -> AsyncIterator[WebReceiver]:
    found = WebReceiver()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    found = MailServer()
    await found.start()
    yield found
    await found.stop()


def webhook(web: WebReceiver, **more: Any) -> dict[str, Any]:
    return {"kind": "webhook", "url": web.url, "secret": SECRET, **more}


def email(mail: MailServer, **more: Any) -> dict[str, Any]:
    return {
        "kind": "email", "host": "127.0.0.1", "port": mail.port, "security": "none", "sender": "fleet@example.org",
        "recipients": ["ana@example.org"], **more,
    }  # fmt: skip
