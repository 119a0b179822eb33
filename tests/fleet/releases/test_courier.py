"""Releases through the manager's real broker: for those who may ask, at the pace that was set."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from nacl.signing import SigningKey

from agent.update.broker_source import BrokerSource
from agent.update.reasons import NotThereError, SourceUnavailableError
from fleet.parts import Manager
from fleet.releases.courier import Courier
from fleet.settings import MqttSettings
from shared.identifiers import sha256
from shared.manifest import Chunk
from shared.mqtt_link import MqttLink
from shared.topics import Address, Channel

KEY = SigningKey.generate()
DATA = bytes(range(256)) * 1000  # 250 KiB: four pieces
CHUNK = Chunk(id=sha256(DATA), size_bytes=len(DATA), plain_bytes=1)


class Counter:
    """The courier that a test runs, fed from the manager's own link."""

    def __init__(self, manager: Manager, **limits: object) -> None:
        self.courier = Courier(
            database=manager.database,
            depot=manager.depot,
            repository=manager.repository,
            link=manager.link,
            limits=MqttSettings.model_validate(limits),
        )
        self._link = manager.link

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.courier.run())
            async for incoming in self._link.messages():
                self.courier.take(incoming)
                incoming.ack()


async def feed(link: MqttLink, source: BrokerSource) -> None:
    async for incoming in link.messages():
        if Address.parse(incoming.topic).channel is Channel.PIECE:
            source.take(incoming.payload)
        incoming.ack()


@pytest.fixture
async def ask(manager, enrolled, device_link) -> AsyncIterator[object]:
    """Makes a device that asks a courier with the given limits, and signs with the given key."""
    manager.depot.put(CHUNK.id, DATA)
    async with asyncio.TaskGroup() as group:
        tasks = []

        async def make(key: SigningKey = KEY, lifecycle: str = "active", **limits: object):
            await enrolled("cam-1", sign_key=bytes(KEY.verify_key), lifecycle=lifecycle)
            link = await device_link("cam-1")
            source = BrokerSource(
                link, device="cam-1", sign=lambda data: key.sign(data).signature, give_up_seconds=2, ask_again_seconds=1
            )
            counter = Counter(manager, **limits)
            tasks.extend([group.create_task(feed(link, source)), group.create_task(counter.run())])
            return source, counter.courier

        yield make
        for task in tasks:
            task.cancel()


async def test_a_chunk_arrives_whole_and_no_faster_than_the_set_rate(ask) -> None:
    source, courier = await ask(chunks="on", chunk_bytes_per_second=500_000)
    began = time.monotonic()
    assert await source.chunk(CHUNK) == DATA
    assert time.monotonic() - began > 3 * 64 * 1024 / 500_000  # the last piece is waited for by the next wish only
    assert len(DATA) < courier.sent_bytes < len(DATA) + 4 * 200


async def test_what_is_not_here_is_told_at_once(ask) -> None:
    source, _ = await ask(chunks="on")
    with pytest.raises(NotThereError):
        await source.manifest("0" * 64)
    with pytest.raises(NotThereError):
        await source.metadata("../keys/director.key")


async def test_a_manager_that_gives_nothing_through_the_broker_says_so(ask) -> None:
    source, courier = await ask()
    with pytest.raises(NotThereError):
        await source.chunk(CHUNK)
    assert courier.sent_bytes == 0


@pytest.mark.parametrize("wrong", [{"key": SigningKey.generate()}, {"lifecycle": "pending"}])
async def test_who_may_not_ask_gets_nothing(ask, wrong) -> None:
    source, courier = await ask(chunks="on", **wrong)
    with pytest.raises(SourceUnavailableError, match="no piece"):
        await source.chunk(CHUNK)
    assert courier.sent_bytes == 0
