"""What passes a real broker: windows go through an agent's outbox and uplink, somebody else listens.

payloads = await captured(folder, [window, ...])        as they left the device, signed
"""

import asyncio
import contextlib
import getpass
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

from agent.identity import Keys
from agent.telemetry.outbox import Kind, Outbox
from agent.telemetry.uplink import Uplink
from agent.telemetry.window import Stamp
from shared.clock import SystemClock
from shared.messages import TelemetryWindow
from shared.mqtt_link import LinkSettings, MqttLink
from shared.topics import ALL_UP
from tests.simulators.storm import mosquitto

PATIENCE_SECONDS = 20.0


async def captured(folder: Path, told: Sequence[TelemetryWindow]) -> list[bytes]:
    """The payload of each window, in order."""
    async with _broker(folder) as url, asyncio.timeout(PATIENCE_SECONDS):
        listener = MqttLink(LinkSettings(url=url, client_id="listener"), subscriptions=[ALL_UP])
        name, keys, clock = told[0].device, Keys.make(), SystemClock()
        outbox = Outbox(folder / "outbox.sqlite", device=name, limit_bytes=2**30, clock=clock)
        link = MqttLink(LinkSettings(url=url, client_id=name), subscriptions=[])
        uplink = Uplink(
            outbox, link, device=name, sign=keys.signature, resend=timedelta(seconds=PATIENCE_SECONDS), clock=clock
        )
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part) for part in (listener.run(), link.run(), uplink.run())]
            await listener.wait_connected()
            for window in told:
                outbox.put(Kind.TELEMETRY, lambda stamp, window=window: _stamped(window, stamp))
            uplink.wake()
            heard = listener.messages()
            found = [(await anext(heard)).payload for _ in told]
            for task in running:
                task.cancel()
        outbox.close()
    return found


def _stamped(window: TelemetryWindow, stamp: Stamp) -> TelemetryWindow:
    return window.model_copy(update={"sequence": stamp.sequence, "stream": stamp.stream})


@contextlib.asynccontextmanager
async def _broker(folder: Path) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = int(door.getsockname()[1])
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser {getpass.getuser()}\n"
    )
    command = [mosquitto() or "mosquitto", "-c", str(folder / "mosquitto.conf")]
    with (folder / "broker.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220  # it starts at once
    try:
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
