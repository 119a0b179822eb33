"""Two managers as real processes: data folders of their own with the same keys, one PostgreSQL, one mosquitto."""

import asyncio
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from fleet.demo.household import MANAGER_SETTINGS, Household
from fleet.doctor import examine
from fleet.settings import FleetSettings
from shared.configuration import load
from tests.simulators import postgresql

DATABASE = "two_managers"


@dataclass
class TwoManagers:
    """`households[0]` starts first, so it leads; agents live in its folder."""

    folder: Path
    postgres: Path
    mosquitto: int
    households: list[Household] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    token: str = ""

    def start(self) -> None:
        self.sql_in("postgres", f"CREATE DATABASE {DATABASE}")
        settings = {
            **MANAGER_SETTINGS,
            "mqtt": {"url": f"mqtt://127.0.0.1:{self.mosquitto}"},
            "database": {"url": postgresql.url(self.postgres, DATABASE)},
        }
        for name in ("first", "second"):
            home = self.folder / name
            home.mkdir(parents=True)
            household = Household(home, settings=settings)
            self.households.append(household)
            if name == "second":
                self._share()
            url, token = household.start_manager()
            self.urls.append(url)
            self.token = self.token or token
            if name == "first":
                self.await_lead(0)

    def _share(self) -> None:
        """What an operator does for a second manager: the keys copied, chunks and reports on shared storage."""
        first, second = (household.manager_folder for household in self.households)
        second.mkdir()
        shutil.copytree(first / "keys", second / "keys")
        (second / "admin-token").write_bytes((first / "admin-token").read_bytes())
        for name in ("depot", "reports"):
            (first / name).mkdir(exist_ok=True)
            (second / name).symlink_to(first / name)

    def role(self, number: int) -> str | None:
        """What /readyz says; None without an answer, and "not ready" while it has no broker."""
        try:
            answer = httpx2.get(f"{self.urls[number]}/readyz", timeout=2)
        except httpx2.TransportError:
            return None
        return str(answer.json()["role"]) if answer.status_code == 200 else "not ready"

    def await_lead(self, number: int, seconds: float = 30.0) -> float:
        """Seconds until it leads and is connected to the broker."""
        start = time.monotonic()
        while self.role(number) != "leader":
            if time.monotonic() - start > seconds:
                raise AssertionError(f"no leader within {seconds} s\n{self.households[number].log('fleet', 30)}")
            time.sleep(0.05)
        return time.monotonic() - start

    def signal(self, number: int, which: signal.Signals) -> None:
        os.kill(self.process(number), which)

    def process(self, number: int) -> int:
        return self.households[number].pid("fleet")

    def doctor(self, number: int) -> dict[str, str]:
        """What it finds of what managers share."""
        household = self.households[number]
        settings = load(FleetSettings, household.folder / "fleet.yaml").settings
        findings = {one.what: one.state for one in asyncio.run(examine(settings))}
        return {what: findings[what] for what in ("keys", "managers", "depot") if what in findings}

    def sql(self, query: str, *arguments: object) -> list[Any]:
        return self.sql_in(DATABASE, query, *arguments)

    def sql_in(self, database: str, query: str, *arguments: object) -> list[Any]:
        async def ask() -> list[Any]:
            connection = await asyncpg.connect(user=postgresql.USER, host=str(self.postgres), database=database)
            try:
                return [tuple(row) for row in await connection.fetch(query, *arguments)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def stop(self) -> None:
        for number, household in enumerate(self.households):
            if household.runs("fleet"):
                self.signal(number, signal.SIGCONT)
            household.stop()
