"""A device whose endpoint is the real one: front, fork server and workers, and applications that may ask them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.serving.observations import Observation, WorkerDied
from agent.serving.supervisor import Serving
from agent.settings import ServingSettings
from tests.simulators.updating_device import Device


@dataclass
class ServingDevice(Device):
    """As `Device`; what the endpoint sees goes to the driver, as in the agent's daemon."""

    serving_settings: ServingSettings = field(default_factory=lambda: ServingSettings(http_port=0, grpc_port=None))
    died: list[WorkerDied] = field(default_factory=list)
    address: str = ""

    @asynccontextmanager
    async def _endpoint(self) -> AsyncIterator[None]:
        self.serving = Serving(self.serving_settings, state_dir=self.folder, observe=self._observe)  # type: ignore[assignment]
        running = asyncio.create_task(self.serving.run(), name="endpoint")  # type: ignore[attr-defined]
        try:
            where = await asyncio.wait_for(self.serving.started(), 60)  # type: ignore[attr-defined]
            self.address = f"127.0.0.1:{where.http_port}"
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    def serves(self, version: str | None, model: str = "digits") -> bool:
        return dict(self.serving.serving()).get(model) == version

    def _observe(self, found: Sequence[Observation]) -> None:
        self.died += [each for each in found if isinstance(each, WorkerDied)]
        self.driver.observe(found)
