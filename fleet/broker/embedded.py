"""An MQTT broker inside this process, for fleets of up to some hundred devices. MQTT 3.1.1 only.

amqtt keeps sessions, queues and retained messages in memory: after a restart the manager tells devices again what they
have not seen (`devices/announcer.py`), and devices send again what was not acknowledged.

I/O: network, tasks.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

from amqtt.broker import Broker
from amqtt.contexts import Action, BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import AMQTTError
from amqtt.session import Session

from fleet.broker import acl, door
from shared.errors import UnavailableError

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 2000
SESSION_SECONDS: Final = 24 * 3600
_LISTENER: Final = "default"


class BrokerStartError(UnavailableError):
    """The broker's port cannot be opened."""

    code = "E_BROKER_START"
    default_remedy = "choose another mqtt.embedded_port (0 takes a free one), or set mqtt.url to a broker of your own"


class EmbeddedBroker:
    """`start` it, then `run` it for as long as it shall serve."""

    def __init__(self, *, host: str, port: int, check: door.Check) -> None:
        self._host, self._port, self._check = host, port, check
        self._broker: _Rules | None = None
        self._server: asyncio.Server | None = None
        self._guests: dict[str, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that was opened."""
        if self._server is None:
            raise RuntimeError("the broker was not started")
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Open the port.

        Raises:
            BrokerStartError: the port is taken or not ours to take.
        """
        logging.getLogger("amqtt").setLevel(logging.WARNING)
        logging.getLogger("transitions").setLevel(logging.WARNING)
        self._broker = _Rules(
            BrokerConfig(
                listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
                session_expiry_interval=SESSION_SECONDS,
                plugins={},
            )
        )
        await self._broker.start()
        try:
            self._server = await asyncio.start_server(self._welcome, self._host, self._port)
        except OSError as error:
            await self._broker.shutdown()
            raise BrokerStartError(f"cannot listen on {self._host}:{self._port}: {error}") from error
        logger.info("embedded broker listens host=%s port=%d", self._host, self.port)

    async def run(self) -> None:
        """Serve until cancelled, then close every connection."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.close()

    async def close(self) -> None:
        """End it. A second call does nothing."""
        server, self._server = self._server, None
        broker, self._broker = self._broker, None
        if server is None or broker is None:
            return
        server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        await broker.shutdown()

    def kick(self, client: str) -> None:
        """Cut the connection of `client` at once, if it has one."""
        writer = self._guests.get(client)
        if writer is not None:
            logger.info("client cut off client=%s", client)
            writer.transport.abort()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._broker is None or len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._serve(reader, writer, self._broker)
        except (AMQTTError, OSError, EOFError) as error:
            logger.info("connection ended reason=%s %s", type(error).__name__, error)
        except asyncio.CancelledError:
            return  # `close` ends us; asyncio's server would log a cancelled handler
        except Exception:
            logger.exception("connection failed")
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broker: "_Rules") -> None:
        guest = await door.admit(reader, writer, self._check)
        if guest is None:
            writer.close()
            async with asyncio.timeout(2):
                await writer.wait_closed()
            return
        self._guests[guest.name] = writer
        try:
            await broker.external_connected(guest.reader, guest.writer, _LISTENER)
        finally:
            if self._guests.get(guest.name) is writer:
                del self._guests[guest.name]


class _Rules(Broker):  # type: ignore[misc]  # amqtt is untyped
    """amqtt with our rules in the three places where it asks, and where it forgets to ask.

    The methods named below are amqtt's own and the version is pinned; `tests/fleet/broker` fails if they change.
    """

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self._subscriptions = _Steady()

    async def _authenticate(self, session: Session, _: ListenerConfig) -> bool:
        return bool(session.username)  # the door has checked it, before amqtt joins a client to the session of its name

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        match action:
            case Action.PUBLISH:
                return acl.may_publish(session.client_id or "", topic)
            case Action.SUBSCRIBE:
                return acl.may_subscribe(session.client_id or "", topic)
            case _:
                return acl.may_receive(session.client_id or "", topic)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """amqtt calls this at a resumed session with every filter of every client: keep to its own."""
        topic_filter, quality = subscription
        own = any(other.client_id == session.client_id for other, _ in self._subscriptions.get(topic_filter, ()))
        handler = self._get_handler(session)
        if not own or handler is None:
            return
        await asyncio.gather(
            *(
                handler.mqtt_publish(topic, message.data, min(quality, message.qos or quality), retain=True)
                for topic, message in list(self._retained_messages.items())
                if self._matches(topic, topic_filter) and acl.may_receive(session.client_id or "", topic)
            ),
            return_exceptions=True,  # who does not acknowledge in time gets it at the next connect
        )


class _Steady(dict[str, list[tuple[Any, int]]]):
    """Subscriptions that may change while somebody walks through them."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().keys()))

    def items(self) -> Iterable[tuple[str, list[tuple[Any, int]]]]:  # type: ignore[override]
        return list(super().items())
