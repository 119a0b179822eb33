"""Tell systemd that we serve, and go on telling it only while requests get through (serving/probing.py).

    no answer    the front hangs: another one takes its place, some seconds after
    no worker's  one that hangs with nothing to do: it is ended as if it had a request; systemd is not told meanwhile
    not told     systemd restarts the agent when its limit is over: the last resort, also when this very loop hangs

I/O: network, tasks, disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
from enum import Enum
from typing import TYPE_CHECKING, Final

from shared.durable import replace_file
from shared.notify import notify, watchdog_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.serving.supervisor import Endpoints

logger = logging.getLogger(__name__)

MOST_SECONDS: Final = 5.0  # between two probes, and for one
LEAST_SECONDS: Final = 1.5  # for one: longer than the front itself waits for workers
PAUSE_SECONDS: Final = 0.1  # after the front was replaced
MAX_ANSWER: Final = 64 * 1024
_PROBE: Final = b"GET /v2/health/serving HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Found(Enum):
    """What a probe showed."""

    SERVES = "serves"
    FAILS = "fails"  # the front says that a worker is silent
    NOTHING = "nothing"  # no answer at all


def base_url(endpoints: Endpoints) -> str:
    """Where applications on this device find the endpoint."""
    host = f"[{endpoints.http_host}]" if ":" in endpoints.http_host else endpoints.http_host
    return f"http://{host}:{endpoints.http_port}"


def write_endpoints(path: Path, device: str, endpoints: Endpoints) -> None:
    """Put the addresses into a file for applications and tools."""
    document = {"id": device, "http": base_url(endpoints), "grpc": endpoints.grpc, "uds": str(endpoints.uds_path)}
    replace_file(path, json.dumps(document, indent=1).encode(), mode=0o644)


async def run(endpoints: Endpoints, replace_front: Callable[[], None]) -> None:
    """READY after the first good probe, WATCHDOG after each; a front that does not answer is replaced. Until cancelled.

    What heals itself (a worker that is started again) is no reason to restart the whole agent, nor is a busy one.
    """
    patience = watchdog_seconds()
    every = min(patience or MOST_SECONDS, MOST_SECONDS)
    ready = False
    while True:
        found = await probe(endpoints, max(every, LEAST_SECONDS))
        if found is Found.SERVES:
            notify("WATCHDOG=1" if ready else "READY=1")
            ready = True
        elif found is Found.NOTHING:
            replace_front()
        if found is not Found.NOTHING:  # else look at the next front at once
            await asyncio.sleep(every)
        else:
            await asyncio.sleep(PAUSE_SECONDS)


async def probe(endpoints: Endpoints, limit_seconds: float) -> Found:
    """Ask as applications do, without the cost of a whole HTTP client, through the workers of all routed models."""
    try:
        async with asyncio.timeout(limit_seconds):
            reader, writer = await asyncio.open_connection(endpoints.http_host, endpoints.http_port)
            try:
                writer.write(_PROBE)
                status = (await reader.readline()).split(b" ")[1:2]
                body = (await reader.read(MAX_ANSWER)).rpartition(b"\r\n\r\n")[2]
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:  # ValueError: a line without end
        logger.warning("endpoint does not answer error=%s", str(error) or type(error).__name__)
        return Found.NOTHING
    if status == [b"200"]:
        return Found.SERVES
    logger.warning("endpoint does not serve answer=%r", body.decode(errors="replace")[:200])
    return Found.FAILS if status else Found.NOTHING
