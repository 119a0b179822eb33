"""The only module that knows the MQTT library: publish, subscribe, reconnect, last will (ADR 3).

    MqttLink (asyncio) --commands--> _Connection (one thread, one paho client) --> broker
    MqttLink.messages() <--Incoming--'        a new connection is a new thread and a new client

A publish returns when the broker has it; an incoming message is acknowledged when its effect is
durable. What was not acknowledged before the connection broke is reported as `LinkDownError`
and comes again from its owner; nothing is kept here.

I/O: network, tasks, clock.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from shared.link_terms import BrokerAddress, BrokerUrlError, Incoming, LinkDownError, LinkSettings
from shared.link_thread import Ended, LinkThread, full_jitter
from shared.mqtt_probe import speaks_v5

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

__all__ = ["BrokerUrlError", "Incoming", "LinkDownError", "LinkSettings", "MqttLink"]

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS: Final = 10.0
PROBE_TIMEOUT_SECONDS: Final = 3.0
SESSION_EXPIRY_SECONDS: Final = 24 * 3600
#: Unacknowledged messages that we may have on the way.
IN_FLIGHT: Final = 100
#: Messages waiting for the consumer before we stop reading from the socket.
BACKLOG: Final = 2000
#: A connection that lived this long starts the back-off afresh.
STEADY_SECONDS: Final = 10.0
#: The network thread must come round this often; connecting may use its time-out twice.
STALL_SECONDS: Final = 3 * CONNECT_TIMEOUT_SECONDS
_TICK_SECONDS: Final = 1.0
_FILTERS_PER_SUBSCRIBE: Final = 8  # the least that a broker must take (AWS IoT Core)
_V5, _V311 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
_FAREWELL_WITH_WILL: Final = "Disconnect with will message"
_LOST: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL


class _Connection(LinkThread):
    """One connection. What is named `_on_*` is called by paho, in the thread."""

    def __init__(self, link: MqttLink, protocol: MQTTProtocolVersion | None) -> None:
        super().__init__(asyncio.get_running_loop(), stall_seconds=STALL_SECONDS)
        self._link, self._name = link, link.settings.client_id
        self._probing, self._protocol = protocol is None, protocol or _V5
        self._published: dict[int, asyncio.Future[None]] = {}
        self._subscribing: set[int] = set()
        self._arrived: deque[Incoming] = deque()  # from the thread to the event loop
        self._ready_at: float | None = None
        self._client: Client | None = None

    # -- for the event loop

    def publish(self, topic: str, payload: bytes, retain: bool, done: asyncio.Future[None]) -> None:
        """Send; `done` gets the outcome."""
        if self.ended.done():
            _fail(done, "the connection ended")
        else:
            self.submit(lambda: self._publish(topic, payload, retain, done))

    def leave(self) -> None:
        """End the connection so that the broker publishes the last will, if there is one."""
        self.submit(self._leave)

    def _settle_others(self, over: Ended) -> None:
        for future in self._published.values():
            _fail(future, f"the connection ended: {over.reason}")
        while self._commands:  # handed over after the end: a publish learns that it failed
            self._commands.popleft()()

    # -- the thread

    def _serve(self) -> None:
        tls = ssl.create_default_context(cafile=self._link.settings.ca_file) if self._link.address.tls else None
        if self._probing and not speaks_v5(self._link.address, tls, timeout_seconds=PROBE_TIMEOUT_SECONDS):
            self._protocol = _V311
        client = self._client = self._new_client(tls)
        self._connect(client)
        deadline = self._pulse() + CONNECT_TIMEOUT_SECONDS
        while not self.over and (wire := client.socket()) is not None:
            if self._pulse() > deadline and self._ready_at is None:
                self._end(Ended("no answer from the broker"))
            else:
                self._turn(client, wire)
        self._end(Ended("the broker closed the connection", self._lived(), self._ready_at is None))

    def _close(self) -> None:
        if self._client is not None and (wire := self._client.socket()) is not None:
            wire.close()

    def _connect(self, client: Client) -> None:
        address, keepalive = self._link.address, self._link.settings.keepalive_seconds
        if self._protocol != _V5:
            client.connect(address.host, address.port, keepalive)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_SECONDS
        properties.ReceiveMaximum = self._link.settings.ahead
        client.connect(address.host, address.port, keepalive, clean_start=False, properties=properties)

    def _turn(self, client: Client, wire: Any) -> None:
        """Wait for the socket, a command or a tick, and serve it."""
        full = self._link.backlog >= BACKLOG
        number, poll = wire.fileno(), select.poll()
        poll.register(number, (0 if full else select.POLLIN) | (select.POLLOUT if client.want_write() else 0))
        poll.register(self.awake, select.POLLIN)
        pending = not full and isinstance(wire, ssl.SSLSocket) and wire.pending() > 0
        ready = dict(poll.poll(0 if pending else _TICK_SECONDS * (100 if full else 1000)))
        if self.awake.fileno() in ready:
            self._drain()
        events = ready.get(number, 0)
        if client.socket() is wire and (pending or events & (select.POLLIN | _LOST)):
            self._check(client.loop_read())
        if client.socket() is wire and events & select.POLLOUT:
            client.loop_write()
        client.loop_misc()

    def _check(self, code: MQTTErrorCode) -> None:
        if code == MQTTErrorCode.MQTT_ERR_PROTOCOL:
            self._end(Ended("the broker broke the protocol", self._lived(), self._ready_at is None))

    def _new_client(self, tls: ssl.SSLContext | None) -> Client:
        settings, will = self._link.settings, self._link.will
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=self._protocol,
            clean_session=None if self._protocol == _V5 else False,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.suppress_exceptions = True  # a second net: every callback below is guarded itself
        client.connect_timeout = CONNECT_TIMEOUT_SECONDS
        client.max_queued_messages_set(2 * IN_FLIGHT)
        client.max_inflight_messages_set(IN_FLIGHT)
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if tls is not None:
            client.tls_set_context(tls)
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=True)
        for name in ("on_socket_open", "on_connect", "on_subscribe", "on_publish", "on_message", "on_disconnect"):
            setattr(client, name, self._guarded(getattr(self, f"_{name}")))
        return client

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """An exception in a callback would kill the thread while paho still says «connected»."""

        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception:
                logger.exception("MQTT callback failed client=%s", self._name)
                self._end(Ended("a callback failed", self._lived()))

        return call

    def _on_socket_open(self, _client: Client, _userdata: object, wire: socket.socket) -> None:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # 40 ms a round trip without it

    def _on_connect(self, client: Client, _userdata: object, _flags: object, reason: ReasonCode, *_: object) -> None:
        if reason.is_failure:
            refused = str(reason) == "Unsupported protocol version"
            self._end(Ended(f"the broker refused us: {reason}", wrong_protocol=refused))
            return
        filters = [(topic, 1) for topic in self._link.subscriptions]
        for start in range(0, len(filters), _FILTERS_PER_SUBSCRIBE):
            _sent, number = client.subscribe(filters[start : start + _FILTERS_PER_SUBSCRIBE])
            if number is None:
                self._end(Ended("the subscription could not be sent"))
                return
            self._subscribing.add(number)
        self._ready_when_subscribed()

    def _on_subscribe(
        self, _client: Client, _userdata: object, number: int, reasons: list[ReasonCode], *_: object
    ) -> None:
        for reason in reasons:
            if reason.is_failure:
                logger.warning("subscription refused client=%s reason=%s", self._name, reason)
        self._subscribing.discard(number)
        self._ready_when_subscribed()

    def _ready_when_subscribed(self) -> None:
        if not self._subscribing and self._ready_at is None:
            self._ready_at = time.monotonic()
            self._post(self._link.ready, self, self._protocol)

    def _on_publish(self, _client: Client, _userdata: object, number: int, reason: ReasonCode, *_: object) -> None:
        done = self._published.pop(number, None)
        if done is None:
            return
        if reason.is_failure:
            self._post(_fail, done, f"the broker refused the message: {reason}")
        else:
            self._post(_succeed, done)

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        number, quality = message.mid, message.qos
        incoming = Incoming(
            message.topic,
            bytes(message.payload),
            bool(message.retain),
            lambda: self.submit(lambda: self._acknowledge(number, quality)),
        )
        self._arrived.append(incoming)
        if len(self._arrived) == 1:  # else a hand-over is under way, and takes this one too
            self._post(self._link.receive, self._arrived)

    def _on_disconnect(self, _client: Client, _userdata: object, flags: Any, reason: ReasonCode, *_: object) -> None:
        early = self._ready_at is None and not flags.is_disconnect_packet_from_server
        self._end(Ended(f"the connection was lost: {reason}", self._lived(), early))

    def _publish(self, topic: str, payload: bytes, retain: bool, done: asyncio.Future[None]) -> None:
        if self.over or self._client is None:
            self._post(_fail, done, "the connection ended")
            return
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._published[info.mid] = done
        else:
            self._post(_fail, done, f"the message could not be sent: {info.rc.name}")

    def _acknowledge(self, number: int, quality: int) -> None:
        if not self.over and self._client is not None:
            self._client.ack(number, quality)

    def _leave(self) -> None:
        if not self.over and self._client is not None and self._ready_at is not None:
            if self._link.will is None:
                self._client.disconnect()
            elif self._protocol == _V5:
                self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, _FAREWELL_WITH_WILL))
            # MQTT 3.1.1 knows no such farewell: closing the socket brings the will
        self._end(Ended("we left", self._lived()))

    def _lived(self) -> float | None:
        return None if self._ready_at is None else time.monotonic() - self._ready_at


def _succeed(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: asyncio.Future[None], why: str) -> None:
    if not done.done():
        done.set_exception(LinkDownError(why))


class MqttLink:
    """A broker connection that keeps coming back. `run` it once; everything else works meanwhile.

    `subscriptions` are made anew at each connect. `on_connect` is awaited after them, each time.
    `will` is (topic, payload), retained: it is published whenever this program goes, also in order.

    Raises:
        BrokerUrlError: the settings' URL is not the address of a broker.
    """

    def __init__(
        self,
        settings: LinkSettings,
        *,
        subscriptions: Sequence[str],
        will: tuple[str, bytes] | None = None,
        on_connect: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.settings, self.address = settings, BrokerAddress.parse(settings.url)
        self.subscriptions, self.will = tuple(subscriptions), will
        self._on_connect = on_connect
        self._inbox: asyncio.Queue[Incoming] = asyncio.Queue()
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._connection: _Connection | None = None
        self._usable = asyncio.Event()
        self._fresh = asyncio.Event()
        self._failure = "no connection was tried yet"
        self._protocol: MQTTProtocolVersion | None = None  # None: ask the broker first

    @property
    def connected(self) -> bool:
        """True while the broker has accepted us and our subscriptions."""
        return self._usable.is_set()

    @property
    def failure(self) -> str:
        """Why the last connection ended or could not be made; text for people."""
        return self._failure

    @property
    def backlog(self) -> int:
        """Messages received that nobody has taken yet."""
        return self._inbox.qsize()

    async def wait_connected(self) -> None:
        """Return once connected. Bound it with `asyncio.timeout`."""
        await self._usable.wait()

    async def messages(self) -> AsyncIterator[Incoming]:
        """Everything that arrives, in order, for ever. For one consumer."""
        while True:
            yield await self._inbox.get()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, timeout_seconds: float = 10) -> None:
        """Publish with QoS 1; returns when the broker has it. Twice is twice.

        Raises:
            LinkDownError: no connection, no acknowledgement in time, or the broker refuses.
        """
        connection = self._connection
        if connection is None or not self._usable.is_set():
            raise LinkDownError(f"no connection to the broker: {self._failure}")
        try:
            async with asyncio.timeout(timeout_seconds), self._window:
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                connection.publish(topic, payload, retain, done)
                await done
        except TimeoutError:
            raise LinkDownError(f"the broker did not acknowledge within {timeout_seconds:g} s") from None

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._greet(), name="mqtt-greet")
            failures = 0
            while True:
                over = await self._one_connection(self._protocol)
                if over.wrong_protocol:  # perhaps an older broker: try at once, once
                    over = await self._one_connection(_V311)
                if over.ready_seconds is None:
                    self._protocol = None
                steady = over.ready_seconds is not None and over.ready_seconds >= STEADY_SECONDS
                failures = 0 if steady else failures + 1
                await asyncio.sleep(full_jitter(failures))

    async def _one_connection(self, protocol: MQTTProtocolVersion | None) -> Ended:
        connection = self._connection = _Connection(self, protocol)
        connection.start()
        try:
            while not connection.ended.done():
                await asyncio.wait([connection.ended], timeout=_TICK_SECONDS)
                if connection.stalled:
                    logger.error("network thread hangs client=%s", self.settings.client_id)
                    connection.abandon("the network thread hangs")
        finally:
            self._usable.clear()
            if not connection.ended.done():
                connection.leave()
                await asyncio.wait([connection.ended], timeout=2 * _TICK_SECONDS)
        over = connection.ended.result()
        if over.reason != self._failure:
            logger.info("link down client=%s reason=%s", self.settings.client_id, over.reason)
        self._failure = over.reason
        return over

    async def _greet(self) -> None:
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            if self._on_connect is None:
                continue
            try:
                await self._on_connect()
            except LinkDownError as error:
                logger.info("greeting interrupted client=%s reason=%s", self.settings.client_id, error)
            except Exception:
                logger.exception("greeting failed client=%s", self.settings.client_id)

    def ready(self, connection: _Connection, protocol: MQTTProtocolVersion) -> None:
        """`connection` can be used from now on. Called by the connection, in the event loop."""
        if connection is self._connection and not connection.ended.done():
            self._usable.set()
            self._fresh.set()
            self._protocol = _V5 if protocol == _V5 else None  # an older broker may be replaced by a newer
            logger.info("link up client=%s mqtt=%s", self.settings.client_id, "5" if protocol == _V5 else "3.1.1")

    def receive(self, arrived: deque[Incoming]) -> None:
        """Messages came; takes all. Called by the connection, in the event loop."""
        while arrived:
            self._inbox.put_nowait(arrived.popleft())
