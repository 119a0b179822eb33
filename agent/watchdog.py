"""Tell systemd that we serve, and go on telling it only while the endpoint answers.

I/O: network, tasks, disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final

from shared.durable import replace_file
from shared.notify import notify, watchdog_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from agent.serving.supervisor import Endpoints

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 30.0
_PROBE: Final = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def base_url(endpoints: Endpoints) -> str:
    """Where applications on this device find the endpoint."""
    host = f"[{endpoints.http_host}]" if ":" in endpoints.http_host else endpoints.http_host
    return f"http://{host}:{endpoints.http_port}"


def write_endpoints(path: Path, device: str, endpoints: Endpoints) -> None:
    """Put the addresses into a file for applications and tools."""
    document = {"id": device, "http": base_url(endpoints), "grpc": endpoints.grpc, "uds": str(endpoints.uds_path)}
    replace_file(path, json.dumps(document, indent=1).encode(), mode=0o644)


async def run(endpoints: Endpoints) -> None:
    """READY now, then WATCHDOG for each probe that the front answered, until cancelled."""
    notify("READY=1")
    every = watchdog_seconds()
    while True:
        if await _answers(endpoints) and every is not None:
            notify("WATCHDOG=1")
        await asyncio.sleep(every or IDLE_SECONDS)


async def _answers(endpoints: Endpoints) -> bool:
    """A request as applications make it, without the cost of a whole HTTP client."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(endpoints.http_host, endpoints.http_port)
            try:
                writer.write(_PROBE)
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:  # ValueError: a line without end
        logger.warning("endpoint does not answer error=%s", str(error) or type(error).__name__)
        return False
