"""The embedded broker over real sockets: who gets in, what gets through. Counts deliveries, not answers."""

import asyncio
import socket
from urllib.parse import urlsplit

import pytest

from fleet.broker.embedded import BrokerStartError, EmbeddedBroker
from fleet.parts import Manager
from shared.mqtt_link import LinkDownError
from shared.topics import Address, Channel


async def first(link, seconds: float = 5.0):
    """The next message of `link`."""
    async with asyncio.timeout(seconds):
        return await anext(link.messages())


async def test_a_device_and_the_manager_hear_each_other(manager: Manager, enrolled, device_link) -> None:
    await enrolled("cam-1")
    device = await device_link("cam-1")
    await device.publish(str(Address("cam-1", Channel.STATE)), b"hello", retain=True)
    heard = await first(manager.link)
    assert (heard.topic, heard.payload) == ("flotilla/v1/cam-1/up/state", b"hello")
    heard.ack()
    await manager.link.publish(str(Address("cam-1", Channel.ACK)), b"yes")
    assert (await first(device)).payload == b"yes"


@pytest.mark.parametrize("password", ["wrong", "", "key-of-cam-2"])
async def test_a_wrong_password_does_not_get_in(manager: Manager, enrolled, device_link, until, password: str) -> None:
    await enrolled("cam-1")
    await enrolled("cam-2")
    device = await device_link("cam-1", password=password, wait=False)
    await until(lambda: "refused" in device.failure)
    assert not device.connected


async def test_a_revoked_device_does_not_get_in(manager: Manager, enrolled, device_link, until) -> None:
    await enrolled("cam-1", lifecycle="revoked")
    device = await device_link("cam-1", wait=False)
    await until(lambda: "refused" in device.failure)


async def test_one_device_cannot_take_the_session_of_another(manager: Manager, enrolled, device_link) -> None:
    """amqtt would end the connection of the victim before it checks the password."""
    await enrolled("cam-1")
    await enrolled("cam-2")
    victim = await device_link("cam-1")
    for client, user in (("cam-1", "cam-2"), ("cam-1", "cam-1")):
        answer = await _raw_connect(manager.mqtt_url, client, user, "key-of-cam-2")
        assert answer[3:4] in (b"\x02", b"\x05")
    await manager.link.publish(str(Address("cam-1", Channel.ACK)), b"still there")
    assert (await first(victim)).payload == b"still there"


async def test_a_device_cannot_speak_for_others_nor_down(manager: Manager, enrolled, device_link) -> None:
    await enrolled("cam-1")
    await enrolled("cam-2")
    eve, victim = await device_link("cam-2"), await device_link("cam-1")
    for channel in Channel:
        await eve.publish(str(Address("cam-1", channel)), b"forged", retain=True)  # 3.1.1 acknowledges what it drops
    await eve.publish(str(Address("cam-2", Channel.ANNOUNCE)), b"forged", retain=True)
    await eve.publish(str(Address("cam-2", Channel.STATE)), b"own")
    assert (await first(manager.link)).payload == b"own"
    await manager.link.publish(str(Address("cam-1", Channel.ACK)), b"real")
    assert (await first(victim)).payload == b"real"


async def test_a_device_hears_nothing_of_others(manager: Manager, enrolled, device_link) -> None:
    await enrolled("cam-1")
    await enrolled("cam-2")
    await manager.link.publish(str(Address("cam-1", Channel.ANNOUNCE)), b"secret", retain=True)
    filters = ["#", "flotilla/#", "flotilla/v1/+/down/+", "flotilla/v1/cam-1/#", "flotilla/v1/cam-2/down/+"]
    eve = await device_link("cam-2", filters=filters)
    await manager.link.publish(str(Address("cam-1", Channel.ANNOUNCE)), b"secret", retain=True)
    await manager.link.publish(str(Address("cam-2", Channel.ACK)), b"mine")
    assert (await first(eve)).payload == b"mine"


async def test_a_resumed_session_gets_only_its_own_retained_messages(manager: Manager, enrolled) -> None:
    """amqtt sends a resumed session everything retained that matches anybody's filter."""
    from shared.mqtt_link import LinkSettings, MqttLink
    from shared.topics import all_down

    await enrolled("cam-1")
    await enrolled("cam-2")
    await manager.link.publish(str(Address("cam-1", Channel.ANNOUNCE)), b"for cam-1", retain=True)
    await manager.link.publish(str(Address("cam-2", Channel.ANNOUNCE)), b"for cam-2", retain=True)
    settings = LinkSettings(url=manager.mqtt_url, client_id="cam-2", username="cam-2", password="key-of-cam-2")
    for _ in range(2):
        link = MqttLink(settings, subscriptions=[all_down("cam-2")])
        task = asyncio.create_task(link.run())
        assert (await first(link)).payload == b"for cam-2"
        await manager.link.publish(str(Address("cam-2", Channel.ACK)), b"end")
        while (found := await first(link)).payload != b"end":
            assert found.payload == b"for cam-2"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_last_will_speaks_only_for_its_owner(manager: Manager, enrolled, device_link, until) -> None:
    await enrolled("cam-1")
    await enrolled("cam-2")
    eve = await device_link("cam-2", will=("flotilla/v1/cam-1/up/state", b"offline"), wait=False)
    await until(lambda: "refused" in eve.failure)


async def test_a_cut_connection_brings_the_last_will(manager: Manager, enrolled, device_link) -> None:
    await enrolled("cam-1")
    await device_link("cam-1", will=("flotilla/v1/cam-1/up/state", b"gone"))
    manager.cut_off("cam-1")
    assert (await first(manager.link)).payload == b"gone"
    manager.cut_off("nobody")


async def test_a_stranger_with_another_protocol_is_shown_out(manager: Manager) -> None:
    parts = urlsplit(manager.mqtt_url)
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f", b"\x10\x02ab", b"\x30\x02ab"):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(said)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()


async def test_a_packet_beyond_the_limit_ends_the_connection(manager: Manager, enrolled, device_link) -> None:
    await enrolled("cam-1")
    device = await device_link("cam-1")
    with pytest.raises(LinkDownError):
        await device.publish(str(Address("cam-1", Channel.STATE)), b"x" * 400_000, timeout_seconds=5)


async def test_a_taken_port_is_told(tmp_path) -> None:
    async def nobody(_name: str, _password: str) -> bool:
        return False

    with socket.create_server(("127.0.0.1", 0)) as taken:
        broker = EmbeddedBroker(host="127.0.0.1", port=taken.getsockname()[1], check=nobody)
        with pytest.raises(BrokerStartError):
            await broker.start()


async def _raw_connect(url: str, client: str, user: str, password: str) -> bytes:
    def field(text: str) -> bytes:
        return len(text).to_bytes(2, "big") + text.encode()

    body = field("MQTT") + b"\x04\xc0\x00\x1e" + field(client) + field(user) + field(password)
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"\x10" + bytes([len(body)]) + body)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer
