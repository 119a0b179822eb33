"""The manager's process: one task group; it ends when one of its tasks breaks, and is started again.

    parts -> tasks -> listening -> endpoints.json -> READY
               '-> follow -> lead: link, ingest, drivers      (ADR 30; with SQLite at once)

Crash-only: nothing is put in order at the end that the start would not put in order.

I/O: disk, network, process, tasks.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import ssl
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import uvicorn

from fleet.alerts.driver import AlertDriver
from fleet.alerts.watch import AlertWatch
from fleet.devices.watch import LivenessWatch
from fleet.errors import TlsError
from fleet.parts import Manager as Manager
from fleet.parts import listening, opened
from fleet.reports.driver import ReportDriver
from fleet.rollouts.driver import RolloutDriver
from fleet.rollouts.gate_driver import GateDriver
from fleet.rollouts.hook_driver import HookDriver
from fleet.schedules.driver import ScheduleDriver
from fleet.schedules.sweep import Sweep
from fleet.telemetry.driver import DriftDriver
from fleet.telemetry.performance_driver import PerformanceDriver
from shared.durable import replace_file
from shared.errors import FlotillaError
from shared.notify import notify, watchdog_seconds

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    from fleet.broker.embedded import EmbeddedBroker
    from fleet.settings import FleetSettings

logger = logging.getLogger(__name__)

#: Requests under way get this long when the manager is told to end; live streams are cut.
GRACE_SECONDS: Final = 2
START_SECONDS: Final = 30
REFRESH_SECONDS: Final = 60.0
#: How old the pages of a manager that follows may be.
FOLLOW_SECONDS: Final = 2.0


async def run(settings: FleetSettings, *, announce: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGTERM or SIGINT. `announce` gets lines for the person who started it.

    Raises:
        FlotillaError: it could not start.
        ExceptionGroup: a task broke; the service manager starts the process again.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        door = stack.enter_context(listening(settings))
        manager, broker = await stack.enter_async_context(opened(settings, door, announce=announce))
        await serve(manager, broker, door, stop)


class _Http(uvicorn.Server):
    """uvicorn inside our event loop; signals are ours."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


async def serve(
    manager: Manager,
    broker: EmbeddedBroker | None,
    door: socket.socket,
    stop: asyncio.Event,
    *,
    ready: Callable[[], object] = lambda: notify("READY=1"),
) -> None:
    """Run every task until `stop` is set or one of them breaks. `ready` is called when it answers."""
    http = _http(manager)
    async with asyncio.TaskGroup() as group:
        web = group.create_task(http.serve(sockets=[door]), name="http")
        tasks = [group.create_task(work, name=name) for name, work in _tasks(manager, broker)]
        async with asyncio.timeout(START_SECONDS):
            await http.listens.wait()
        _write_endpoints(manager)
        ready()
        logger.info("manager serves url=%s mqtt=%s", manager.manager_url, manager.mqtt_url)
        await stop.wait()
        notify("STOPPING=1")
        logger.info("manager ends")
        http.should_exit = True
        manager.hub.wake()
        await asyncio.wait([web], timeout=GRACE_SECONDS + 1)
        for task in (web, *tasks):
            task.cancel()


def _tasks(manager: Manager, broker: EmbeddedBroker | None) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    if broker is not None:
        yield "broker", broker.run()
    yield "role", _follow_then_lead(manager)
    yield "watchdog", _watchdog(manager)


async def _follow_then_lead(manager: Manager) -> None:
    """Wait for the lead, then do what one manager of the fleet does. Whoever loses the lead ends."""
    try:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(_follow(manager), name="follow")
            await manager.leadership.gain()
            following.cancel()
        async with asyncio.TaskGroup() as group:
            for name, work in _leading(replace(manager, database=manager.leadership.database)):
                group.create_task(work, name=name)
    finally:
        await manager.leadership.release()


async def _follow(manager: Manager) -> None:
    """Show what the leader stores: nobody tells us of its commits, so look again and again."""
    performance = PerformanceDriver(manager)
    manager.standings.attach(performance.standings)
    while not manager.leadership.leads:
        await performance.count(keep=False)
        manager.hub.wake()
        await asyncio.sleep(FOLLOW_SECONDS)


def _leading(manager: Manager) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """What only one manager does; its turns in the database are fenced."""
    yield "lead", manager.leadership.keep()
    yield "link", manager.link.run()
    yield "ingest", manager.ingest.run()
    yield "courier", manager.courier.run()
    yield "rollouts", RolloutDriver(manager).run()
    yield "schedules", ScheduleDriver(manager).run()
    yield "sweep", Sweep(manager).run()
    yield "gate", GateDriver(manager).run()
    yield "gate-hooks", HookDriver(manager).run()
    yield "drift", DriftDriver(manager).run()
    yield "alerts", AlertDriver(manager).run()
    yield "alert-watch", AlertWatch(manager).run()
    performance = PerformanceDriver(manager)
    manager.standings.attach(performance.standings)
    yield "performance", performance.run()
    yield "reports", ReportDriver(manager).run()
    yield "metadata", _refresh(manager)
    patience = replace(manager.patience, listening_since=manager.clock.now())
    yield "liveness", LivenessWatch(manager.database, manager.hub, manager.clock, patience).run()


def _http(manager: Manager) -> _Http:
    from fleet.api.app import create_app

    server = manager.settings.server
    if server.tls_certificate is not None:
        _check_tls(server.tls_certificate, server.tls_key)
    return _Http(
        uvicorn.Config(
            create_app(manager),
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ssl_certfile=server.tls_certificate,
            ssl_keyfile=server.tls_key,
        )
    )


def _check_tls(certificate: Path, key: Path | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # that of TLS is one, too
        raise TlsError(f"cannot use {certificate} with {key}: {error.strerror or error}") from None


def _write_endpoints(manager: Manager) -> None:
    said = {"manager": manager.manager_url, "mqtt": manager.mqtt_url}
    replace_file(manager.settings.data_dir / "endpoints.json", json.dumps(said).encode(), mode=0o644)


async def _refresh(manager: Manager) -> None:
    """Keep snapshot and timestamp fresh; a manager without trust has nothing to sign."""
    while True:
        try:
            async with manager.database.write() as tx:
                signed = await manager.repository.refresh(tx, manager.clock.now())
            if signed:
                manager.hub.wake()
        except FlotillaError as error:
            logger.warning("metadata not refreshed error=%s detail=%s", error.code, error.detail)
        await asyncio.sleep(REFRESH_SECONDS)


async def _watchdog(manager: Manager) -> None:
    """Tell systemd that the database still answers."""
    every = watchdog_seconds()
    while every is not None:
        async with asyncio.timeout(every * 2), manager.database.write():
            notify("WATCHDOG=1")
        await asyncio.sleep(every)
