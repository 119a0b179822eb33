"""Builds every part of the agent and runs them in one task group, until told to stop or one fails.

    link -> inbox -> update driver -> serving -> observations -> telemetry -> outbox -> uplink -> link

Crash-only: there is no shutdown that anything depends on. A part that cannot keep its promises stops
alone (`BrokenError`) while the good slot goes on serving; any other failure ends the daemon, and
systemd starts it again.

I/O: disk, network, process, tasks, clock, chance.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx2
from pydantic import TypeAdapter

from agent import control, identity, presence, watchdog
from agent.inbox import Inbox
from agent.peers.driver import Peers
from agent.serving.supervisor import Serving
from agent.state_folder import locked
from agent.telemetry.driver import Telemetry
from agent.telemetry.gauges import Gauges
from agent.telemetry.host import hardware_class
from agent.telemetry.outbox import Kind, Outbox
from agent.telemetry.pace import Pace
from agent.telemetry.uplink import Uplink
from agent.update import installing
from agent.update.broker_source import BrokerSource
from agent.update.chunk_store import ChunkStore
from agent.update.driver import Driver
from agent.update.journal import Journal
from agent.update.standing import Standing
from agent.update.trust import Trust
from shared.clock import SystemClock
from shared.errors import BrokenError, FlotillaError
from shared.messages import DeviceState, UpdateReport
from shared.mqtt_link import LinkSettings, MqttLink
from shared.notify import notify
from shared.topics import all_down

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from agent.serving.supervisor import Endpoints, Observation
    from agent.settings import AgentSettings, TelemetrySettings
    from agent.telemetry.window import Stamp
    from agent.update.lifecycle import Draft

logger = logging.getLogger(__name__)

FETCH_TIMEOUT_SECONDS: Final = 30.0
FEATURES: Final = ("windows", "keep-versions")  # what the manager may ask of us (docs/protocol.md)
BOOT_SECONDS: Final = 10.0  # who connects before a model serves waits so long, then is told why
_STANDING: Final = TypeAdapter(tuple[Standing, ...])


class _Stopped(Exception):  # noqa: N818 (not an error: somebody asked)
    """SIGTERM or SIGINT arrived."""


@dataclass(frozen=True, slots=True)
class Beginnings:
    """What `run` and its log say about the start: seconds since the process began to build parts."""

    started_at: float

    def say(self, step: str) -> None:
        """One line for the operator's timeline."""
        logger.info("%s seconds=%.3f", step, time.monotonic() - self.started_at)


class Agent:
    """All parts, wired. `run` it once."""

    def __init__(self, settings: AgentSettings, http: httpx2.AsyncClient, checkpoint: Callable[[str], None]) -> None:
        state_dir = settings.state_dir
        enrolled, keys = identity.enrolment(state_dir), identity.keys(state_dir)
        self._settings, self._clock, self._boot = settings, SystemClock(), secrets.token_hex(8)
        self._device, self._manager_url = enrolled.device_id, enrolled.manager_url
        self._hardware = settings.hardware or hardware_class()
        self._endpoints: Endpoints | None = None
        self._booted = False
        self._begin = Beginnings(time.monotonic())
        self._outbox = Outbox(
            state_dir / "outbox.sqlite",
            device=self._device,
            limit_bytes=settings.telemetry.outbox_bytes,
            clock=self._clock,
        )
        self._serving = Serving(
            settings.serving,
            state_dir=state_dir,
            observe=self._observe,
            build_seconds=settings.update.engine_build_timeout_seconds,
        )
        journal = self._journal = Journal(state_dir / "update.sqlite")
        sharing = settings.peers.share == "on"
        store = ChunkStore(
            state_dir,
            keep_seconds=settings.peers.keep_hours * 3600 if sharing and settings.peers.address is not None else 0.0,
            keep_free_bytes=settings.update.minimum_free_bytes,
        )
        trust = Trust(
            journal,
            root=enrolled.root.encode(),
            device=self._device,
            manager_url=self._manager_url,
            box_key=keys.box,
            clock=self._clock,
        )
        self._driver = Driver(
            settings=settings.update,
            state_dir=state_dir,
            trust=trust,
            journal=journal,
            serving=self._serving,
            report=self._report,
            clock=self._clock,
            http=http,
            hardware=self._hardware,
            manager_url=self._manager_url,
            serving_settings=settings.serving,
            store=store,
            checkpoint=checkpoint,
        )
        self._peers: Peers | None = None
        if sharing:
            self._peers = Peers(
                settings.peers,
                state_dir=state_dir,
                journal=journal,
                store=store,
                sources=self._driver.sources,
                hindered=self._driver.hindrance,
                http=http,
                manager_url=self._manager_url,
                device=self._device,
                seed=keys.sign,
                sign=keys.signature,
            )
        self._link = MqttLink(
            LinkSettings(
                url=enrolled.mqtt.url,
                client_id=self._device,
                username=enrolled.mqtt.username,
                password=enrolled.mqtt.password,
            ),
            subscriptions=[all_down(self._device)],
            will=presence.last_will(self._device, self._boot),
            on_connect=self._connected,
        )
        through_broker = BrokerSource(self._link, device=self._device, sign=keys.signature)
        if settings.update.mqtt_chunks == "on":
            self._driver.sources.fall_back_on(through_broker, after_seconds=settings.update.mqtt_after_seconds)
            trust.fall_back_on(through_broker.metadata)
        self._uplink = Uplink(
            self._outbox,
            self._link,
            device=self._device,
            sign=keys.signature,
            resend=timedelta(seconds=settings.telemetry.resend_seconds),
            clock=self._clock,
        )
        self._presence = presence.Presence(
            self._link,
            self._describe,
            heartbeat=timedelta(seconds=settings.heartbeat_seconds),
            clock=self._clock,
        )
        self._gauges = Gauges(timedelta(seconds=settings.telemetry.window_seconds), clock=self._clock)
        self._telemetry = Telemetry(
            self._outbox,
            state_dir=state_dir,
            boot=self._boot,
            pace=_pace(settings.telemetry),
            slots=self._driver.slots,
            serving=self._serving.serving,
            stored=self._uplink.wake,
            clock=self._clock,
            measure=self._gauges.measure,
        )
        self._inbox = Inbox(
            self._link, device=self._device, driver=self._driver, uplink=self._uplink, piece=through_broker.take
        )

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until a part fails."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._serving.run(closed=True), name="serving")
                tasks.create_task(self._stop(stopping), name="stop")
                tasks.create_task(self._alone("update", self._driver.run()), name="update")
                self._endpoints = await self._serving.started()
                self._begin.say("endpoint listens")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BOOT_SECONDS):
                        await self._driver.booted()
                await self._serving.open()
                await self._driver.booted()
                self._booted = True
                self._begin.say("serving")
                for name, part in self._parts(self._endpoints).items():
                    tasks.create_task(self._alone(name, part), name=name)
        except* _Stopped:
            logger.info("stopped device=%s", self._device)
        finally:
            self._telemetry.cut()
            self._gauges.close()
            self._outbox.close()

    def _parts(self, endpoints: Endpoints) -> dict[str, Coroutine[None, None, None]]:
        actions = {"status": self._status, "slots": self._slots, "rollback": self._rollback, "install": self._install}
        sharing = {"peers": self._peers.run()} if self._peers is not None else {}
        return {
            **sharing,
            "link": self._link.run(),
            "inbox": self._inbox.run(),
            "presence": self._presence.run(),
            "telemetry": self._telemetry.run(),
            "uplink": self._uplink.run(),
            "control": control.serve(self._settings.state_dir, actions),
            "watchdog": watchdog.run(endpoints, self._serving.replace_front),
            "endpoints": self._write_endpoints(endpoints),
        }

    async def _write_endpoints(self, endpoints: Endpoints) -> None:
        """For applications; again when the gRPC door opens late."""
        path = self._settings.state_dir / "endpoints.json"
        watchdog.write_endpoints(path, self._device, endpoints)
        if endpoints.grpc is None:
            self._endpoints = replace(endpoints, grpc=await self._serving.grpc_opened())
            watchdog.write_endpoints(path, self._device, self._endpoints)

    async def _alone(self, name: str, part: Coroutine[None, None, None]) -> None:
        """Let `part` fail by itself if the machine is at fault: what serves goes on serving."""
        try:
            await part
        except BrokenError as error:
            if not self._booted:
                raise
            logger.error("part stopped part=%s code=%s reason=%s", name, error.code, error)
            notify(f"STATUS={name} stopped: {error.code} {error}")

    async def _stop(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        notify("STOPPING=1")
        await self._serving.leave()
        raise _Stopped

    # -- between the parts

    def _observe(self, observations: Sequence[Observation]) -> None:
        self._driver.observe(observations)
        self._telemetry.observe(observations)

    def _report(self, draft: Draft) -> None:
        def stamped(stamp: Stamp) -> UpdateReport:
            return UpdateReport(
                device=stamp.device, stream=stamp.stream, sequence=stamp.sequence, at=stamp.at, **asdict(draft)
            )

        self._outbox.put(Kind.REPORT, stamped)
        self._telemetry.boundary()
        self._uplink.wake()
        self._presence.poke()

    async def _connected(self) -> None:
        self._uplink.connected()
        await self._presence.birth()

    def _describe(self) -> DeviceState:
        return DeviceState(
            device=self._device,
            online=True,
            boot=self._boot,
            agent_version=identity.agent_version(),
            assignment=self._driver.assignment(),
            features=FEATURES,
            hardware=self._hardware,
            slots=self._driver.slots(),
            serving=dict(self._serving.serving()),
            troubles=dict(self._driver.troubles()),
        )

    # -- control

    async def _status(self, _: control.Document) -> control.Document:
        state = self._describe().model_dump(mode="json", exclude_none=True)
        return state | {
            "manager": self._manager_url,
            "connected": self._link.connected,
            "link_failure": None if self._link.connected else self._link.failure,
            "http": watchdog.base_url(self._endpoints) if self._endpoints else None,
            "models": _STANDING.dump_python(self._driver.standing(), mode="json"),
            "outbox": {kind.value: asdict(self._outbox.depth(kind)) for kind in Kind},
        }

    async def _slots(self, _: control.Document) -> control.Document:
        return {
            "slots": [slot.model_dump(mode="json") for slot in self._driver.slots()],
            "models": _STANDING.dump_python(self._driver.standing(), mode="json"),
        }

    async def _install(self, asked: control.Document) -> control.Document:
        folder = Path(str(asked["bundle"]))
        return await installing.install(self._driver, self._journal, device=self._device, folder=folder)

    async def _rollback(self, asked: control.Document) -> control.Document:
        model = asked.get("model")
        back = await self._driver.rollback(None if model is None else str(model))
        detail = f"{back.model}: {back.left} was left, {back.version or 'nothing'} serves"
        return {"model": back.model, "from": back.left, "to": back.version, "detail": detail}


def _pace(settings: TelemetrySettings) -> Pace:
    every, quiet = settings.window_seconds, settings.quiet_window_seconds
    return Pace(
        every=timedelta(seconds=every),
        quiet=timedelta(seconds=max(every, quiet)),
        settle=timedelta(minutes=settings.settle_minutes),
    )


async def run(settings: AgentSettings, *, checkpoint: Callable[[str], None] = lambda _: None) -> None:
    """The agent's life. `checkpoint` is called after each effect of an update (tests kill there).

    Raises:
        FlotillaError: a leaf that says why the agent cannot work here.
    """
    with locked(settings.state_dir):
        async with httpx2.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS) as http:
            try:
                await Agent(settings, http, checkpoint).run()
            except BaseExceptionGroup as group:
                leaf = _first(group)
                if leaf is None:
                    raise
                logger.error("agent ends code=%s reason=%s", leaf.code, leaf)
                raise leaf from group


def _first(group: BaseExceptionGroup[BaseException]) -> FlotillaError | None:
    for error in group.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, FlotillaError):
            return found
    return None
