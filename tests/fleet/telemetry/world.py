"""A manager's drift driver with a real database and a clock that the test turns."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from fleet.hub import Hub
from fleet.settings import FleetSettings
from fleet.store import alerts, tables
from fleet.store.database import Database
from fleet.telemetry.driver import DriftDriver
from shared.sketches import Baseline, FeatureBaseline, count, quantile_edges

T0 = datetime(2026, 1, 1, tzinfo=UTC)
REFERENCE = np.random.default_rng(7).normal(0.5, 0.1, 2000)
EDGES = quantile_edges(list(REFERENCE))
FEATURE = FeatureBaseline(
    name="input.brightness", group="input", kind="quantity", edges=EDGES, counts=tuple(count(EDGES, REFERENCE)[0])
)


@dataclass
class ManualClock:
    at: datetime = T0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


@dataclass
class World:
    settings: FleetSettings
    database: Database
    clock: ManualClock = field(default_factory=ManualClock)
    hub: Hub = field(default_factory=Hub)
    sequence: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))  # its own: no test moves another

    def __post_init__(self) -> None:
        self.driver = DriftDriver(self)

    async def open(self) -> None:
        """Two releases with the same baseline."""
        await self.database.open()
        async with self.database.write() as tx:
            for counter, version in enumerate(("1.0.0", "2.0.0"), start=1):
                baseline = Baseline(model="digits", version=version, samples=2000, features=(FEATURE,))
                tx.add(
                    tables.Release(
                        model="digits", version=version, counter=counter, manifest_digest=str(counter), manifest=b"",
                        escrow_key="", baseline=baseline.model_dump(mode="json"), published_by="ana", published_at=T0,
                    )
                )  # fmt: skip

    async def device(self, name: str, version: str = "1.0.0", **more: Any) -> None:
        async with self.database.write() as tx:
            tx.add(
                tables.Device(
                    id=name, name=name, labels={}, sign_key=b"", box_key=b"", api_key_hash="", enrolled_at=T0,
                    slots=[], serving={"digits": version}, **more,
                )
            )  # fmt: skip

    async def serve(self, name: str, version: str) -> None:
        async with self.database.write() as tx:
            (await tx.get_one(tables.Device, name)).serving = {"digits": version}

    async def send(self, device: str, mean: float, samples: int = 200, minutes: float = 1, **more: Any) -> None:
        """One window, some time after the one before; then a look."""
        self.clock.at += timedelta(minutes=minutes)
        await self.deliver(device, mean, samples, self.clock.at, **more)
        await self.driver.evaluate()

    async def deliver(
        self, device: str, mean: float, samples: int, at: datetime, missing: int = 0, **more: Any
    ) -> None:
        """One window that the device measured `at`, stored now."""
        self.sequence += 1
        counts = count(EDGES, self.rng.normal(mean, 0.1, samples))[0]
        body = {
            "device": device, "stream": "s", "sequence": self.sequence, "at": T0.isoformat(), "boot": "b",
            "model": "digits", "version": "1.0.0", "manifest": "0" * 64, "phase": "serving",
            "start": at.isoformat(), "end": at.isoformat(), "requests": samples,
            "features": {"input.brightness": {"edges": FEATURE.digest, "counts": counts, "missing": missing}}, **more,
        }  # fmt: skip
        async with self.database.write() as tx:
            tx.add(
                tables.Window(
                    device_id=device, stream="s", sequence=self.sequence, model="digits", version=body["version"],
                    start=at, end=at, received_at=self.clock.at,
                    requests=samples, failed=0, body=body,
                )
            )  # fmt: skip

    async def state(self, scope: str, version: str = "1.0.0") -> tables.DriftState | None:
        async with self.database.read() as tx:
            return await tx.get(tables.DriftState, (scope, "digits", version, "input.brightness"))

    async def alerts(self) -> list[tables.Alert]:
        async with self.database.read() as tx:
            return list(await alerts.live(tx, kind="drift"))
