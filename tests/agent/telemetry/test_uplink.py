import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from agent.identity import Keys
from agent.telemetry.outbox import Kind, Outbox
from agent.telemetry.uplink import BURST, WINDOW, Uplink
from agent.telemetry.window import Stamp
from shared.clock import SystemClock
from shared.messages import Ack, Phase, UpdateReport
from shared.mqtt_link import LinkDownError, MqttLink
from shared.seal import opened

KEYS = Keys.make()
RESEND = timedelta(seconds=15)


class Line:
    """A link that loses what it is told to lose, after saying that the broker has it."""

    def __init__(self) -> None:
        self.connected, self.lose, self.sent = True, False, list[UpdateReport]()
        self.refuses: int | None = None  # a sequence that the broker does not take

    async def publish(self, topic: str, payload: bytes) -> None:
        await asyncio.sleep(0)
        if not self.connected:
            raise LinkDownError("away")
        assert topic == "flotilla/v1/dev-a/up/report"
        message = UpdateReport.parse(opened(payload, topic=topic, key=KEYS.sign_public, required=True))
        if message.sequence == self.refuses:
            raise LinkDownError("not taken")
        if not self.lose:
            self.sent.append(message)

    @property
    def sequences(self) -> list[int]:
        return [message.sequence for message in self.sent]


class StillClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> datetime:
        return datetime(2026, 11, 23, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox.sqlite", device="dev-a", limit_bytes=10**6, clock=SystemClock())


def put(outbox: Outbox, number: int) -> None:
    for _ in range(number):
        outbox.put(Kind.REPORT, report)


def report(stamp: Stamp) -> UpdateReport:
    return UpdateReport(
        device=stamp.device,
        stream=stamp.stream,
        sequence=stamp.sequence,
        at=stamp.at,
        assignment=1,
        phase=Phase.STAGED,
    )


@contextlib.asynccontextmanager
async def sending(outbox: Outbox, line: Line, clock: StillClock) -> AsyncIterator[Uplink]:
    uplink = Uplink(outbox, cast("MqttLink", line), device="dev-a", sign=KEYS.signature, resend=RESEND, clock=clock)
    task = asyncio.create_task(uplink.run())
    try:
        yield uplink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (what others did is read, not signalled)
            await asyncio.sleep(0)


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_everything_is_sent_once_and_forgotten_at_the_managers_ack(outbox: Outbox) -> None:
    line = Line()
    put(outbox, 3)
    async with sending(outbox, line, StillClock()) as uplink:
        await until(lambda: len(line.sent) == 3)
        put(outbox, 1)
        uplink.wake()
        await until(lambda: len(line.sent) == 4)
        assert outbox.depth(Kind.REPORT).waiting == 4
        uplink.acknowledged(Ack(stream=outbox.stream, report=4))
        await settled()
    assert [(message.sequence, message.after) for message in line.sent] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert outbox.depth(Kind.REPORT).waiting == 0


async def test_no_more_than_a_window_is_on_its_way(outbox: Outbox) -> None:
    line = Line()
    put(outbox, WINDOW + 10)
    async with sending(outbox, line, StillClock()) as uplink:
        await until(lambda: len(line.sent) >= WINDOW)
        uplink.wake()
        await settled()
        assert line.sequences == list(range(1, WINDOW + 1))
        uplink.acknowledged(Ack(stream=outbox.stream, report=4))
        await until(lambda: len(line.sent) == WINDOW + 4)


async def test_several_go_out_at_once_and_what_came_after_a_failure_goes_again_with_it(outbox: Outbox) -> None:
    line = Line()
    line.refuses = 3
    put(outbox, BURST)
    async with sending(outbox, line, StillClock()) as uplink:
        await until(lambda: len(line.sent) >= BURST - 1)
        assert line.sequences == [1, 2, *range(4, BURST + 1)]
        line.refuses = None
        line.sent.clear()
        uplink.wake()
        await until(lambda: len(line.sent) >= BURST - 2)
        assert line.sequences == list(range(3, BURST + 1))


async def test_without_an_ack_it_starts_again_behind_the_last_one_with_a_single_message(outbox: Outbox) -> None:
    line, clock = Line(), StillClock()
    put(outbox, 4)
    async with sending(outbox, line, clock) as uplink:
        await until(lambda: len(line.sent) == 4)
        uplink.acknowledged(Ack(stream=outbox.stream, report=1))
        clock.seconds += 14
        uplink.wake()
        await settled()
        assert line.sequences == [1, 2, 3, 4]
        clock.seconds += 2
        uplink.wake()
        await until(lambda: len(line.sent) == 5)
        await settled()
        assert line.sequences == [1, 2, 3, 4, 2]
        uplink.acknowledged(Ack(stream=outbox.stream, report=2))
        await until(lambda: len(line.sent) == 7)
        assert line.sequences[5:] == [3, 4]


async def test_patience_doubles_while_nobody_answers_and_stays_bounded(outbox: Outbox) -> None:
    line, clock = Line(), StillClock()
    put(outbox, 1)
    async with sending(outbox, line, clock) as uplink:
        await until(lambda: len(line.sent) == 1)
        for seconds in (16, 31, 61, 61, 61):
            sent = len(line.sent)
            clock.seconds += seconds - 2
            uplink.wake()
            await settled()
            assert len(line.sent) == sent
            clock.seconds += 2
            uplink.wake()
            await until(lambda sent=sent: len(line.sent) == sent + 1)  # type: ignore[misc]


async def test_a_new_connection_starts_again_at_once(outbox: Outbox) -> None:
    line = Line()
    put(outbox, 2)
    async with sending(outbox, line, StillClock()) as uplink:
        line.lose = True
        await settled()
        line.connected, line.lose = False, False
        await settled()
        line.connected = True
        uplink.connected()
        await until(lambda: line.sequences == [1, 2])


async def test_while_the_link_is_down_nothing_is_lost(outbox: Outbox) -> None:
    line = Line()
    line.connected = False
    async with sending(outbox, line, StillClock()) as uplink:
        put(outbox, 2)
        uplink.wake()
        await settled()
        line.connected = True
        uplink.connected()
        await until(lambda: line.sequences == [1, 2])


async def test_an_ack_of_another_stream_or_of_something_never_said_forgets_nothing(outbox: Outbox) -> None:
    line = Line()
    put(outbox, 2)
    async with sending(outbox, line, StillClock()) as uplink:
        await until(lambda: len(line.sent) == 2)
        uplink.acknowledged(Ack(stream="another", report=2))
        uplink.acknowledged(Ack(stream=outbox.stream, report=9))
        assert outbox.depth(Kind.REPORT).waiting == 2
