"""Outbox -> MQTT, signed, go-back-N: forget only what the manager acknowledged.

A broker's PUBACK is not storage. Up to `WINDOW` messages of a line are on their way; without the
manager's ack in time the line starts again behind its last acknowledged one, first with a single
message, so that a manager that is away is not flooded.

I/O: tasks.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agent.telemetry.outbox import Kind
from shared import seal
from shared.mqtt_link import LinkDownError
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from agent.telemetry.outbox import Outbox
    from shared.clock import Clock
    from shared.messages import Ack, Queued
    from shared.mqtt_link import MqttLink

logger = logging.getLogger(__name__)

WINDOW: Final = 32
#: So many are handed to the broker at once, in order; the event loop has others to serve in between.
BURST: Final = 8
#: Patience grows with each resend that brings nothing, up to this many times the setting.
MOST_PATIENCE: Final = 4.0
_CHANNELS: Final = {Kind.REPORT: Channel.REPORT, Kind.TELEMETRY: Channel.TELEMETRY}


@dataclass(slots=True)
class _Line:
    """How far one line has got since the last connect."""

    acked: int
    sent: int
    window: int = WINDOW
    patience: float = 1.0
    moved_at: float = 0.0  # monotonic: the last progress, or the last time it started again


class Uplink:
    """The sender. `wake` it when something was put into the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        link: MqttLink,
        *,
        device: str,
        sign: Callable[[bytes], bytes],
        resend: timedelta,
        clock: Clock,
    ) -> None:
        self._outbox, self._link, self._device, self._sign, self._clock = outbox, link, device, sign, clock
        self._resend_seconds = resend.total_seconds()
        self._work = asyncio.Event()
        self._lines = {kind: _Line(*(outbox.depth(kind).acked,) * 2) for kind in Kind}

    def wake(self) -> None:
        """There may be something to send."""
        self._work.set()

    def connected(self) -> None:
        """A new connection: what was on its way may be lost; start again at once."""
        for line in self._lines.values():
            line.sent, line.window, line.patience = line.acked, WINDOW, 1.0
        self.wake()

    def acknowledged(self, ack: Ack) -> None:
        """The manager has everything up to these sequences. Of another stream: nothing."""
        if ack.stream != self._outbox.stream:
            return
        for kind, sequence in ((Kind.REPORT, ack.report), (Kind.TELEMETRY, ack.telemetry)):
            if self._outbox.acknowledged(kind, sequence):
                line = self._lines[kind]
                line.acked, line.sent = sequence, max(line.sent, sequence)
                line.window, line.patience, line.moved_at = WINDOW, 1.0, self._clock.monotonic()
        self.wake()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._work.clear()
            try:
                for kind in Kind:
                    await self._send(kind)
            except LinkDownError as error:
                logger.debug("uplink waits reason=%s", error)
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(min(1.0, self._resend_seconds / 4)):
                await self._work.wait()
        except TimeoutError:
            return

    async def _send(self, kind: Kind) -> None:
        if not self._link.connected:
            return
        line = self._lines[kind]
        topic = str(Address(self._device, _CHANNELS[kind]))
        self._perhaps_again(kind, line)
        room = line.window - (line.sent - line.acked)
        messages = self._outbox.peek(kind, line.sent, room) if room > 0 else ()
        for start in range(0, len(messages), BURST):
            if line.sent == line.acked:
                line.moved_at = self._clock.monotonic()
            await self._burst(line, topic, messages[start : start + BURST])

    async def _burst(self, line: _Line, topic: str, messages: Sequence[Queued]) -> None:
        payloads = [seal.sealed(message.to_wire(), topic=topic, sign=self._sign) for message in messages]
        sending = (self._link.publish(topic, payload) for payload in payloads)
        for message, outcome in zip(messages, await asyncio.gather(*sending, return_exceptions=True), strict=True):
            if outcome is not None:  # what came after it is beyond a gap, and is sent again with it
                raise outcome
            line.sent = max(line.sent, message.sequence)

    def _perhaps_again(self, kind: Kind, line: _Line) -> None:
        waited = self._clock.monotonic() - line.moved_at
        if line.sent > line.acked and waited > self._resend_seconds * line.patience:
            logger.debug("resending kind=%s after=%d waited_seconds=%.0f", kind, line.acked, waited)
            line.sent, line.window, line.moved_at = line.acked, 1, self._clock.monotonic()
            line.patience = min(MOST_PATIENCE, line.patience * 2)
