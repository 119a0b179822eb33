"""A device that speaks the real protocol and does nothing else: one socket, MQTT 3.1.1 by hand, thousands in a process.

    device = LightDevice("cam-1", keys); await device.connect(port)
    await device.beat(); await device.tell(60); ...           state, telemetry; an announcement runs through its phases

Topics, payloads, signatures, sequences, go-back-N until the manager's own ack: as the agent. No downloads, no models.
"""

import asyncio
import itertools
import json
import struct
import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import Final

from agent.identity import Keys
from shared import seal
from shared.messages import Ack, Announcement, DeviceState, Phase, Queued, TelemetryWindow, UpdateReport
from shared.topics import Address, Channel, all_down

PHASES: Final = (
    Phase.ANNOUNCED, Phase.VERIFIED, Phase.FETCHING, Phase.ASSEMBLED, Phase.STAGED, Phase.SELF_TESTED, Phase.PROBATION,
    Phase.COMMITTED,
)  # fmt: skip
RESEND_SECONDS: Final = 15.0
BOOT: Final = "ab12cd34"


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, byte = rest >> 7, rest & 0x7F
        length.append(byte | (0x80 if rest else 0))
        if not rest:
            return bytes([kind]) + bytes(length) + body


class LightDevice:
    """One of many. `delays` gets the seconds from each window to the manager's ack."""

    def __init__(self, name: str, keys: Keys, delays: list[float]) -> None:
        self.name, self.delays = name, delays
        self._keys, self._packets = keys, itertools.cycle(range(1, 65536))
        self._sequence = {Channel.REPORT: 0, Channel.TELEMETRY: 0}
        self._waiting: dict[Channel, OrderedDict[int, tuple[float, Queued]]] = {
            channel: OrderedDict() for channel in self._sequence
        }
        self.serving: dict[str, str] = {}
        self.assignment = 0
        self.sent = self.resent = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, port: int) -> None:
        """Connected, subscribed, and its state is told."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        will = DeviceState(device=self.name, online=False, boot=BOOT).to_bytes()
        topic = str(Address(self.name, Channel.STATE))
        flags = 0x02 | 0x04 | 0x08 | 0x20  # clean session, will of QoS 1, retained
        head = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", 120)
        self._write(_packet(0x10, head + _text(self.name) + _text(topic) + struct.pack(">H", len(will)) + will))
        kind, body = await self._read()
        if kind != 0x20 or body[1]:
            raise ConnectionError(f"the broker refuses {self.name}: {body.hex()}")
        self._write(_packet(0x82, struct.pack(">H", 1) + _text(all_down(self.name)) + b"\x01"))
        await self.beat()

    async def run(self) -> None:
        """Hear, and say again what nobody acknowledged, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear())
            tasks.create_task(self._again())

    async def beat(self) -> None:
        """Its state, as at each heartbeat."""
        state = DeviceState(
            device=self.name, online=True, boot=BOOT, agent_version="1.0", assignment=self.assignment,
            hardware="x86_64", serving=self.serving, at=datetime.now(UTC),
        )  # fmt: skip
        await self._publish(Channel.STATE, state.to_bytes(), retain=True)

    async def tell(self, requests: int) -> None:
        """A window of telemetry."""
        now = datetime.now(UTC)
        model, version = next(iter(self.serving.items()), ("digits", "1.0.0"))
        await self._queue(
            Channel.TELEMETRY,
            lambda sequence, after: TelemetryWindow(
                device=self.name, stream=BOOT, sequence=sequence, after=after, at=now, boot=BOOT, model=model,
                version=version, manifest="e" * 16, phase="serving", start=now - timedelta(minutes=1), end=now,
                requests=requests, latency={80: requests // 2, 90: requests - requests // 2},
            ),
        )  # fmt: skip

    @property
    def unacknowledged(self) -> int:
        return sum(len(line) for line in self._waiting.values())

    async def _update(self, announcement: Announcement) -> None:
        signed = json.loads(announcement.assignment)["signed"]
        orders = next(iter(signed["targets"].values()))["custom"]
        if signed["version"] <= self.assignment:
            return
        self.assignment = signed["version"]
        for phase in PHASES:
            await self._queue(
                Channel.REPORT,
                lambda sequence, after, phase=phase: UpdateReport(  # type: ignore[misc]
                    device=self.name, stream=BOOT, sequence=sequence, after=after, at=datetime.now(UTC),
                    model=orders["model"], version=orders["version"], rollout=orders["rollout"],
                    assignment=signed["version"], phase=phase,
                ),
            )  # fmt: skip
        self.serving = {orders["model"]: orders["version"]}
        await self.beat()

    async def _queue(self, channel: Channel, make: "object") -> None:
        self._sequence[channel] += 1
        sequence = self._sequence[channel]
        message = make(sequence, sequence - 1)  # type: ignore[operator]
        self._waiting[channel][sequence] = (time.monotonic(), message)
        await self._send(channel, message)

    async def _send(self, channel: Channel, message: Queued) -> None:
        topic = str(Address(self.name, channel))
        await self._publish(channel, seal.sealed(message.to_wire(), topic=topic, sign=self._keys.signature))

    async def _publish(self, channel: Channel, payload: bytes, *, retain: bool = False) -> None:
        head = _text(str(Address(self.name, channel))) + struct.pack(">H", next(self._packets))
        self._write(_packet(0x32 | retain, head + payload))
        self.sent += 1
        if self._writer is not None:
            await self._writer.drain()

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(RESEND_SECONDS)
            for channel, line in self._waiting.items():
                if line and time.monotonic() - next(iter(line.values()))[0] > RESEND_SECONDS:
                    for _, message in list(line.values()):
                        self.resent += 1
                        await self._send(channel, message)

    async def _hear(self) -> None:
        while True:
            kind, body = await self._read()
            if kind & 0xF0 != 0x30:
                continue
            size = struct.unpack_from(">H", body)[0]
            topic, place = body[2 : 2 + size].decode(), 2 + size
            if kind & 0x06:
                self._write(_packet(0x40, body[place : place + 2]))
                place += 2
            if topic.endswith("/ack"):
                self._acknowledged(Ack.parse(body[place:]))
            elif topic.endswith("/announce") and len(body) > place:
                await self._update(Announcement.parse(body[place:]))

    def _acknowledged(self, ack: Ack) -> None:
        now = time.monotonic()
        for channel, upto in ((Channel.REPORT, ack.report), (Channel.TELEMETRY, ack.telemetry)):
            line = self._waiting[channel]
            while line and next(iter(line)) <= upto:
                _, (told, _message) = line.popitem(last=False)
                if channel is Channel.TELEMETRY:
                    self.delays.append(now - told)

    def _write(self, data: bytes) -> None:
        if self._writer is None:
            raise ConnectionError("not connected")
        self._writer.write(data)

    async def _read(self) -> tuple[int, bytes]:
        if self._reader is None:
            raise ConnectionError("not connected")
        kind, size, shift = (await self._reader.readexactly(1))[0], 0, 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return kind, await self._reader.readexactly(size)
