"""The daemon's side of the gRPC door: started where the packages are, told where to listen, kept alive.

I/O: network, tasks.
"""

import asyncio
import importlib.util
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.serving.child import Child
from agent.settings import ServingSettings

logger = logging.getLogger(__name__)

_START_SECONDS: Final = 5.0  # the start of the agent waits no longer for the door


class Door:
    """`run` keeps the door open; `address` is where, once it is."""

    def __init__(self, settings: ServingSettings, *, front: Path, leash: int) -> None:
        self._settings = settings
        self._front = front
        self._port = settings.grpc_port
        self._settled, self._open = asyncio.Event(), asyncio.Event()
        self.address: str | None = None
        self._child = Child(
            "gRPC door",
            "agent.serving.grpc_door",
            python=None,
            leash=leash,
            arguments=self._arguments,
            heard=self._heard,
            gone=self._settled.set,
        )

    async def run(self) -> None:
        """Until cancelled; ends at once where there is nothing to keep open."""
        if self._port is None:
            self._settled.set()
        elif not _installed():
            logger.info("no gRPC: grpcio or protobuf is missing; to have it: pip install 'flotilla-edge[grpc]'")
            self._settled.set()
        else:
            await self._child.run()

    async def settled(self) -> str | None:
        """The address once it is known whether there is one; None when there is none, or none in time."""
        try:
            await asyncio.wait_for(self._settled.wait(), _START_SECONDS)
        except TimeoutError:
            logger.warning("the gRPC door is not up yet; HTTP serves alone")
        return self.address

    async def opened(self) -> str:
        """The address, once the door is open for the first time, however late."""
        await self._open.wait()
        return str(self.address)

    def _arguments(self) -> tuple[Sequence[str], Sequence[int]]:
        settings = {
            "address": _joined(self._settings.grpc_host, self._port or 0),
            "uds_path": str(self._front),
            "timeout_seconds": self._settings.request_timeout_seconds,
        }
        return [json.dumps(settings)], []

    def _heard(self, message: bytes) -> None:
        news = json.loads(message)
        if "up" in news:
            self._port = int(news["up"])  # a door that is opened again is found where it was
            self.address = _joined(self._settings.grpc_host, self._port)
            self._open.set()
            logger.info("gRPC door is open address=%s", self.address)
        else:
            logger.error("gRPC door cannot open: %s; set another serving.grpc_port", news["failed"])
        self._settled.set()


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("grpc", "google.protobuf"))
    except ModuleNotFoundError:  # the package `google` itself
        return False
