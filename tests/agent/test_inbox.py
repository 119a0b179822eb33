import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from agent.inbox import Inbox
from agent.telemetry.uplink import Uplink
from agent.update.driver import Driver
from shared.errors import BadInputError, UnavailableError
from shared.messages import Ack, Announcement
from shared.mqtt_link import Incoming, MqttLink

ANNOUNCEMENT = Announcement(timestamp="t", assignment="a")


class BusyError(UnavailableError):
    code = "E_TEST_BUSY"


class Parts:
    """Stands for link, driver and uplink; keeps the order of what happened."""

    def __init__(self, *incoming: tuple[str, bytes], failure: Exception | None = None) -> None:
        self.log: list[object] = []
        self._incoming, self._failure = incoming, failure

    async def messages(self) -> AsyncIterator[Incoming]:
        for topic, payload in self._incoming:
            yield Incoming(topic, payload, False, lambda: self.log.append("ack"))

    async def announce(self, announcement: Announcement) -> None:
        await asyncio.sleep(0)
        if self._failure is not None:
            raise self._failure
        self.log.append(announcement)

    def acknowledged(self, ack: Ack) -> None:
        self.log.append(ack)

    async def run(self) -> list[object]:
        inbox = Inbox(cast("MqttLink", self), device="dev-a", driver=cast("Driver", self), uplink=cast("Uplink", self))
        await inbox.run()
        return self.log


async def test_an_announcement_is_acknowledged_after_it_is_durable() -> None:
    assert await Parts(("flotilla/v1/dev-a/down/announce", ANNOUNCEMENT.to_bytes())).run() == [ANNOUNCEMENT, "ack"]


async def test_an_ack_reaches_the_uplink() -> None:
    ack = Ack(stream="s", report=3, telemetry=4)
    assert await Parts(("flotilla/v1/dev-a/down/ack", ack.to_bytes())).run() == [ack, "ack"]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("flotilla/v1/dev-b/down/announce", ANNOUNCEMENT.to_bytes()),
        ("flotilla/v1/dev-a/up/report", b"{}"),
        ("flotilla/v1/dev-a/down/announce", b"\xff\xff"),
        ("flotilla/v1/dev-a/down/announce", b'{"timestamp": 1}'),
        ("flotilla/v1/dev-a/down/announce", b""),
        ("flotilla/v1/dev-a/down/ack", b"[]"),
        ("flotilla/v1/dev-a/down/command", b"{}"),
        ("something/else", b""),
    ],
)
async def test_what_cannot_be_used_is_dropped_and_the_next_message_is_read(topic: str, payload: bytes) -> None:
    good = ("flotilla/v1/dev-a/down/announce", ANNOUNCEMENT.to_bytes())
    assert await Parts((topic, payload), good).run() == ["ack", ANNOUNCEMENT, "ack"]


async def test_what_the_driver_refuses_does_not_come_back() -> None:
    parts = Parts(("flotilla/v1/dev-a/down/announce", ANNOUNCEMENT.to_bytes()), failure=BadInputError("forged"))
    assert await parts.run() == ["ack"]


async def test_what_cannot_be_done_now_is_left_with_the_broker() -> None:
    parts = Parts(("flotilla/v1/dev-a/down/announce", ANNOUNCEMENT.to_bytes()), failure=BusyError("later"))
    assert await parts.run() == []
