import asyncio
import contextlib
import getpass
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from amqtt.broker import Broker

from shared.link_terms import BrokerAddress
from shared.link_thread import LONGEST_DELAY_SECONDS, full_jitter
from shared.mqtt_link import BrokerUrlError, Incoming, LinkDownError, LinkSettings, MqttLink
from shared.mqtt_probe import speaks_v5

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


class AnyBroker(Protocol):
    port: int

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Mosquitto:
    """A real mosquitto that keeps its sessions over a restart."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.port, self._folder, self._extra = free_port(), folder, extra
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        configuration = self._folder / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            f"persistence true\npersistence_location {self._folder}/\nautosave_interval 1\n"
            f"user {getpass.getuser()}\n{self._extra}"
        )
        self._process = subprocess.Popen([program, "-c", configuration], stderr=subprocess.DEVNULL)  # noqa: ASYNC220 (short)
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    async def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 10)
            self._process = None


class Amqtt:
    """The broker that the manager embeds, as it comes."""

    def __init__(self) -> None:
        self.port = free_port()
        self._broker: Broker | None = None

    async def start(self) -> None:
        self._broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await self._broker.start()

    async def stop(self) -> None:
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None


def need_mosquitto() -> None:
    if not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()):
        pytest.skip("mosquitto is not installed: apt install mosquitto")


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    need_mosquitto()
    started = Mosquitto(tmp_path)
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


@pytest.fixture(params=["mosquitto", "amqtt"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    if request.param == "mosquitto":
        need_mosquitto()
    started: AnyBroker = Mosquitto(tmp_path) if request.param == "mosquitto" else Amqtt()
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


@contextlib.asynccontextmanager
async def running(
    broker: AnyBroker, client_id: str, subscriptions: Sequence[str] = (), **more: Any
) -> AsyncIterator[MqttLink]:
    link = MqttLink(LinkSettings(f"mqtt://127.0.0.1:{broker.port}", client_id), subscriptions=subscriptions, **more)
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(10):
            await link.wait_connected()
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def take(link: MqttLink, number: int = 1) -> list[Incoming]:
    found: list[Incoming] = []
    async with asyncio.timeout(10):
        async for incoming in link.messages():
            found.append(incoming)
            if len(found) == number:
                break
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 (a state of another thread, without an event)
            await asyncio.sleep(0.01)


async def test_a_publish_arrives_and_is_acknowledged(broker: AnyBroker) -> None:
    async with running(broker, "reader", ["t/+/x"]) as reader, running(broker, "writer") as writer:
        await writer.publish("t/1/x", b"\x00hello\xff")
        await writer.publish("t/1/y", b"not for us")
        await writer.publish("t/2/x", b"again")
        first, second = await take(reader, 2)
        assert (first.topic, first.payload) == ("t/1/x", b"\x00hello\xff")
        assert (second.topic, second.payload) == ("t/2/x", b"again")


# amqtt forgets what was not acknowledged when the connection breaks: only a full broker can be asked for this.
async def test_an_unacknowledged_message_comes_again_to_a_new_client_of_the_same_id(mosquitto: Mosquitto) -> None:
    async with running(mosquitto, "device", ["t"]) as device, running(mosquitto, "writer") as writer:
        for number in range(5):
            await writer.publish("t", str(number).encode())
        for incoming in (await take(device, 5))[:2]:
            incoming.ack()
        await writer.publish("t", b"marker")  # its arrival shows that the acks before it were sent
        await take(device)
    async with running(mosquitto, "device", ["t"]) as device:
        again = {incoming.payload for incoming in await take(device, 4)}
    assert again == {b"2", b"3", b"4", b"marker"}


async def test_what_was_said_while_the_client_was_away_arrives(mosquitto: Mosquitto) -> None:
    async with running(mosquitto, "writer") as writer:
        async with running(mosquitto, "device", ["t"]):
            pass
        for number in range(5):
            await writer.publish("t", str(number).encode())
        async with running(mosquitto, "device", ["t"]) as device:
            assert {incoming.payload for incoming in await take(device, 5)} == {b"0", b"1", b"2", b"3", b"4"}


CONSUMER = """
import asyncio, sys
from shared.mqtt_link import LinkSettings, MqttLink

async def main():
    link = MqttLink(LinkSettings(sys.argv[1], "device"), subscriptions=["t"])
    task = asyncio.create_task(link.run())
    await link.wait_connected()
    print("ready", flush=True)
    number = 0
    async for incoming in link.messages():
        number += 1
        if number == 6:
            print("crash", flush=True)
            await asyncio.sleep(60)
        incoming.ack()

asyncio.run(main())
"""


async def test_nothing_is_lost_when_the_consumer_is_killed_at_the_sixth_of_fifty(mosquitto: Mosquitto) -> None:
    consumer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONSUMER, f"mqtt://127.0.0.1:{mosquitto.port}", stdout=subprocess.PIPE, cwd=ROOT
    )
    assert consumer.stdout is not None
    try:
        async with asyncio.timeout(20), running(mosquitto, "writer") as writer:
            assert await consumer.stdout.readline() == b"ready\n"
            async with asyncio.TaskGroup() as tasks:
                for number in range(50):
                    tasks.create_task(writer.publish("t", str(number).encode()))
            assert await consumer.stdout.readline() == b"crash\n"
    finally:
        consumer.send_signal(signal.SIGKILL)
        await consumer.wait()
    missing = {str(number).encode() for number in range(5, 50)}  # an ack may have died with its sender: more may come
    async with running(mosquitto, "device", ["t"]) as device:
        async with asyncio.timeout(10):
            async for incoming in device.messages():
                incoming.ack()
                missing.discard(incoming.payload)
                if not missing:
                    break


async def test_the_link_comes_back_after_the_broker_was_restarted(broker: AnyBroker) -> None:
    greetings = 0

    async def greet() -> None:
        nonlocal greetings
        greetings += 1

    async with running(broker, "device", ["t"], on_connect=greet) as device:
        await until(lambda: greetings == 1)
        await broker.stop()
        await until(lambda: not device.connected)
        with pytest.raises(LinkDownError, match="no connection"):
            await device.publish("t", b"lost")
        await broker.start()
        await until(lambda: device.connected and greetings == 2)
        await device.publish("t", b"here again")
        assert b"here again" in {incoming.payload for incoming in await take(device)}


async def test_the_last_will_is_published_when_the_program_is_killed(broker: AnyBroker) -> None:
    script = CONSUMER.replace('subscriptions=["t"]', 'subscriptions=["t"], will=("will/device", b"gone")')
    async with running(broker, "watcher", ["will/+"]) as watcher:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, f"mqtt://127.0.0.1:{broker.port}", stdout=subprocess.PIPE, cwd=ROOT
        )
        assert program.stdout is not None
        try:
            async with asyncio.timeout(20):
                assert await program.stdout.readline() == b"ready\n"
        finally:
            program.send_signal(signal.SIGKILL)
            await program.wait()
        assert [(will.topic, will.payload) for will in await take(watcher)] == [("will/device", b"gone")]


async def test_the_last_will_is_published_at_an_orderly_end_too(broker: AnyBroker) -> None:
    async with running(broker, "watcher", ["will/+"]) as watcher:
        async with running(broker, "device", will=("will/device", b"gone")) as device:
            await device.publish("t", b"alive")
        assert [will.payload for will in await take(watcher)] == [b"gone"]


async def test_without_a_will_an_orderly_end_says_nothing(broker: AnyBroker) -> None:
    async with running(broker, "watcher", ["#"]) as watcher:
        async with running(broker, "device") as device:
            await device.publish("t", b"last word")
        await watcher.publish("t", b"marker")
        assert [incoming.payload for incoming in await take(watcher, 2)] == [b"last word", b"marker"]


async def test_a_retained_message_reaches_a_late_subscriber(broker: AnyBroker) -> None:
    async with running(broker, "writer") as writer:
        await writer.publish("state", b"kept", retain=True)
    async with running(broker, "late", ["state"]) as late:
        [kept] = await take(late)
        assert kept.payload == b"kept"
        assert kept.retained


async def test_an_exception_in_a_greeting_or_in_a_callback_does_not_end_the_link(
    broker: AnyBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def greet() -> None:
        raise ZeroDivisionError

    async with running(broker, "device", ["t"], on_connect=greet) as device:
        await device.publish("t", b"one")
        await take(device)
        broken = device._connection
        assert broken is not None
        client = broken._client
        assert client is not None
        client.on_message = broken._guarded(fails)
        with contextlib.suppress(LinkDownError):
            await device.publish("t", b"two")
        await until(lambda: device.connected and device._connection is not broken)
        await device.publish("t", b"three")
        while (await take(device))[0].payload != b"three":
            pass
    assert "greeting failed" in caplog.text
    assert "MQTT callback failed" in caplog.text


def fails(*_: object) -> None:
    raise ZeroDivisionError


async def test_an_old_acknowledgement_does_nothing_on_a_new_connection(mosquitto: Mosquitto) -> None:
    async with running(mosquitto, "device", ["t"]) as device:
        await device.publish("t", b"one")
        [old] = await take(device)
        connection = device._connection
        assert connection is not None
        connection.leave()
        await until(lambda: device._connection is not connection and device.connected)
        old.ack()
        old.ack()
        assert (await take(device))[0].payload == b"one"


async def test_a_hanging_network_thread_is_replaced(broker: AnyBroker) -> None:
    async with running(broker, "device") as device:
        stuck = device._connection
        assert stuck is not None
        stuck._stall_seconds = -1.0
        await until(lambda: device._connection is not stuck and device.connected)
        await device.publish("t", b"works")
        stuck.leave()


async def test_many_at_once_all_arrive_once(broker: AnyBroker) -> None:
    async with running(broker, "reader", ["t"]) as reader, running(broker, "writer") as writer:
        async with asyncio.TaskGroup() as tasks:
            for number in range(300):
                tasks.create_task(writer.publish("t", str(number).encode()))
        seen = []
        for _ in range(300):
            [incoming] = await take(reader)
            incoming.ack()
            seen.append(incoming.payload)
    assert sorted(seen) == sorted(str(number).encode() for number in range(300))


async def test_the_probe_tells_old_brokers_from_new_ones(broker: AnyBroker, request: pytest.FixtureRequest) -> None:
    address = BrokerAddress("127.0.0.1", broker.port, tls=False)
    spoken = await asyncio.to_thread(speaks_v5, address, None, timeout_seconds=5)
    assert spoken is isinstance(broker, Mosquitto)


async def test_a_refused_publish_is_reported_by_its_reason(tmp_path: Path) -> None:
    need_mosquitto()
    (tmp_path / "acl").write_text("topic readwrite mine\n")
    broker = Mosquitto(tmp_path, f"acl_file {tmp_path}/acl\n")
    try:
        await broker.start()
        async with running(broker, "device") as device:
            await device.publish("mine", b"")
            with pytest.raises(LinkDownError, match="Not authorized"):
                await device.publish("others", b"")
    finally:
        await broker.stop()


async def test_no_broker_is_a_link_that_is_down_and_keeps_trying() -> None:
    link = MqttLink(LinkSettings(f"mqtt://127.0.0.1:{free_port()}", "device"), subscriptions=[])
    task = asyncio.create_task(link.run())
    await until(lambda: "refused" in link.failure)
    assert not link.connected
    with pytest.raises(LinkDownError):
        await link.publish("t", b"")
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("url", ["", "http://x", "mqtt://", "mqtt://host:99999", "mqtt:host", "host:1883"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BrokerUrlError):
        BrokerAddress.parse(url)


def test_addresses_have_the_usual_ports() -> None:
    assert BrokerAddress.parse("mqtt://b") == BrokerAddress("b", 1883, tls=False)
    assert BrokerAddress.parse("mqtts://b") == BrokerAddress("b", 8883, tls=True)
    assert BrokerAddress.parse("mqtts://[::1]:99") == BrokerAddress("::1", 99, tls=True)


def test_waiting_is_jittered_and_bounded() -> None:
    assert len({full_jitter(8) for _ in range(20)}) == 20
    assert all(0 <= full_jitter(failures) <= LONGEST_DELAY_SECONDS for failures in range(10_000, 10_100))


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(LinkSettings("mqtt://b", "c", username="u", password="secret"))
