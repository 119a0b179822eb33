import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import cast

from agent.presence import Presence, last_will
from shared.clock import SystemClock
from shared.messages import DeviceState
from shared.mqtt_link import LinkDownError, MqttLink


class Line:
    def __init__(self) -> None:
        self.connected = True
        self.told: asyncio.Queue[DeviceState] = asyncio.Queue()

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if not self.connected:
            raise LinkDownError("away")
        assert (topic, retain) == ("flotilla/v1/dev-a/up/state", True)
        self.told.put_nowait(DeviceState.parse(payload))


class Device:
    def __init__(self, heartbeat_seconds: float) -> None:
        self.line = Line()
        self.state = DeviceState(device="dev-a", online=True, assignment=1)
        self.presence = Presence(
            cast("MqttLink", self.line),
            lambda: self.state,
            heartbeat=timedelta(seconds=heartbeat_seconds),
            clock=SystemClock(),
        )

    async def next(self) -> DeviceState:
        async with asyncio.timeout(5):
            return await self.line.told.get()


@contextlib.asynccontextmanager
async def alive(heartbeat_seconds: float = 3600.0) -> AsyncIterator[Device]:
    device = Device(heartbeat_seconds)
    task = asyncio.create_task(device.presence.run())
    try:
        yield device
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_birth_comes_at_each_connect() -> None:
    async with alive() as device:
        await device.presence.birth()
        first = await device.next()
        await device.presence.birth()
        second = await device.next()
    assert first.online
    assert first.at is not None
    assert (first.assignment, second.assignment) == (1, 1)


async def test_a_change_is_told_at_once_and_the_same_state_is_not() -> None:
    async with alive() as device:
        await device.presence.birth()
        await device.next()
        device.presence.poke()
        await settled()
        assert device.line.told.empty()
        device.state = device.state.model_copy(update={"serving": {"digits": "1.1.0"}})
        device.presence.poke()
        assert (await device.next()).serving == {"digits": "1.1.0"}


async def test_the_heart_beats_without_a_change() -> None:
    async with alive(heartbeat_seconds=0.02) as device:
        await device.presence.birth()
        assert [(await device.next()).assignment for _ in range(4)] == [1, 1, 1, 1]


async def test_nothing_is_told_before_birth_and_a_lost_change_is_told_later() -> None:
    async with alive(heartbeat_seconds=0.02) as device:
        device.presence.poke()
        await settled()
        assert device.line.told.empty()
        await device.presence.birth()
        await device.next()
        device.line.connected = False
        device.state = device.state.model_copy(update={"assignment": 2})
        device.presence.poke()
        await settled()
        device.line.connected = True
        while (await device.next()).assignment != 2:
            pass


def test_the_last_will_says_offline() -> None:
    topic, payload = last_will("dev-a", "b1")
    state = DeviceState.parse(payload)
    assert topic == "flotilla/v1/dev-a/up/state"
    assert (state.device, state.online, state.boot) == ("dev-a", False, "b1")
