"""The real daemon, as systemd would start it: a process, a broker, a notify socket."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from amqtt.broker import Broker

from agent import control, identity
from agent.errors import AlreadyRunningError
from agent.identity import BrokerAccount, Enrolment
from agent.state_folder import locked
from shared.messages import DeviceState
from shared.mqtt_link import LinkSettings, MqttLink
from tests.simulators.systemd import Systemd

pytestmark = pytest.mark.flow
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture
async def watcher() -> AsyncIterator[MqttLink]:
    """A broker, and a link that hears what devices say."""
    port = free_port()
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    link = MqttLink(LinkSettings(f"mqtt://127.0.0.1:{port}", "watcher"), subscriptions=["flotilla/v1/+/up/+"])
    task = asyncio.create_task(link.run())
    async with asyncio.timeout(10):
        await link.wait_connected()
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await broker.shutdown()


class Agent:
    """One enrolled device and its daemon."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        self.state_dir, self.systemd = folder / "state", Systemd(folder / "notify")
        self.process: asyncio.subprocess.Process | None = None
        identity.keys(self.state_dir)
        identity.save(
            self.state_dir,
            Enrolment(
                device_id="dev-a",
                lifecycle="accepted",
                api_key="k",
                mqtt=BrokerAccount(url=broker_url),
                root="{}",
                manager_url=f"http://127.0.0.1:{free_port()}",
            ),
        )
        self.environment = os.environ | {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "600000",
            "FLOTILLA_SERVING__HTTP_PORT": "0",
            "FLOTILLA_SERVING__GRPC_PORT": "0",
            "FLOTILLA_STATE_DIR": str(self.state_dir),
        }

    async def start(self) -> asyncio.subprocess.Process:
        self.process = await asyncio.create_subprocess_exec(
            *self.systemd.command(["-m", "agent", "run"]),
            cwd=ROOT,
            env=self.environment,
            stderr=subprocess.PIPE,
            pass_fds=[entry.descriptor for entry in self.systemd.store],
        )
        return self.process

    async def ends(self) -> tuple[int, str]:
        assert self.process is not None
        async with asyncio.timeout(30):
            _, words = await self.process.communicate()
        return self.process.returncode or 0, words.decode()


@pytest.fixture
async def agent(watcher: MqttLink, tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path, watcher.settings.url)
    try:
        yield agent
    finally:
        agent.systemd.close()
        if agent.process is not None and agent.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                agent.process.kill()
            await agent.ends()


async def states(watcher: MqttLink) -> AsyncIterator[DeviceState]:
    async with asyncio.timeout(30):
        async for incoming in watcher.messages():
            if incoming.topic.endswith("/state"):
                yield DeviceState.parse(incoming.payload)


async def told(watcher: MqttLink, online: bool) -> DeviceState:
    async for state in states(watcher):
        if state.online is online:
            return state
    raise AssertionError("the link ended")


async def test_it_is_ready_when_it_listens_and_feeds_the_watchdog(agent: Agent, watcher: MqttLink) -> None:
    await agent.start()
    assert await agent.systemd.hears("READY=1") == ["READY=1"]
    assert set(await agent.systemd.hears("WATCHDOG=1")) == {"WATCHDOG=1"}
    endpoints = json.loads((agent.state_dir / "endpoints.json").read_text())
    assert endpoints["id"] == "dev-a"
    assert endpoints["grpc"].startswith("127.0.0.1:")
    async with httpx2.AsyncClient() as http:
        assert (await http.get(f"{endpoints['http']}/v2/health/live")).status_code == 200
        assert (await http.post(f"{endpoints['http']}/v2/models/none/infer", json={})).status_code in {404, 503}


async def test_it_says_that_it_came_and_that_it_went(agent: Agent, watcher: MqttLink) -> None:
    process = await agent.start()
    birth = await told(watcher, online=True)
    assert (birth.device, birth.assignment, birth.serving) == ("dev-a", 0, {})
    assert birth.boot
    assert birth.hardware
    await agent.systemd.hears("READY=1")
    process.send_signal(signal.SIGTERM)
    assert (await told(watcher, online=False)).boot == birth.boot
    assert "STOPPING=1" in await agent.systemd.hears("STOPPING=1")
    code, words = await agent.ends()
    assert code == 0, words
    assert "Traceback" not in words


async def test_killed_it_is_missed_and_comes_back_under_another_boot(agent: Agent, watcher: MqttLink) -> None:
    process = await agent.start()
    first = await told(watcher, online=True)
    process.kill()
    await agent.ends()
    assert (await told(watcher, online=False)).boot == first.boot
    await agent.start()
    assert (await told(watcher, online=True)).boot != first.boot


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_who_connects_while_it_restarts_waits_and_is_answered(
    number: signal.Signals, agent: Agent, watcher: MqttLink
) -> None:
    process = await agent.start()
    await agent.systemd.hears("READY=1")
    before = json.loads((agent.state_dir / "endpoints.json").read_text())
    process.send_signal(number)
    await agent.ends()
    agent.systemd.listen()
    assert len(agent.systemd.store) == 2
    async with (
        httpx2.AsyncClient(timeout=20) as http,
        httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=before["uds"]), timeout=20) as unix,
        asyncio.TaskGroup() as group,
    ):
        url = before["http"] + "/v2/health/live"
        asked = [group.create_task(client.get(url)) for client in (http, unix) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in asked)
        await agent.start()
    assert [task.result().status_code for task in asked] == [200] * 6
    await agent.systemd.hears("READY=1")
    assert json.loads((agent.state_dir / "endpoints.json").read_text())["http"] == before["http"]
    assert len(agent.systemd.store) == 2


async def test_status_and_slots_come_from_the_running_daemon(agent: Agent, watcher: MqttLink) -> None:
    await agent.start()
    await told(watcher, online=True)
    await agent.systemd.hears("WATCHDOG=1")
    status = await asyncio.to_thread(control.ask, agent.state_dir, "status")
    assert (status["device"], status["connected"], status["serving"]) == ("dev-a", True, {})
    assert status["outbox"]["report"]["waiting"] == 0
    assert await asyncio.to_thread(control.ask, agent.state_dir, "slots") == {"slots": [], "models": []}


async def test_a_second_agent_keeps_out_of_the_folder(agent: Agent) -> None:
    await agent.start()
    await agent.systemd.hears("READY=1")
    agent.process, first = None, agent.process
    try:
        await agent.start()
        code, words = await agent.ends()
        assert code == 5
        assert "E_ALREADY_RUNNING" in words
    finally:
        agent.process = first


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    with locked(tmp_path / "state"), pytest.raises(AlreadyRunningError), locked(tmp_path / "state"):
        pytest.fail("two agents in one folder")
    with locked(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
