"""Every part of the manager, built once, in the order in which they need each other.

    data folder (one process) -> database -> pepper, first token -> broker -> keys -> leadership -> link -> the rest

I/O: disk, network, chance.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fleet import exposure
from fleet.access.answers import Answers
from fleet.access.first_token import ensure_admin
from fleet.access.identify import Doorman, Limits
from fleet.access.secrets import Pepper
from fleet.access.sign_in import SignIns
from fleet.backups.errors import RestoringError
from fleet.broker import acl
from fleet.broker.embedded import EmbeddedBroker
from fleet.broker.guests import Guests
from fleet.devices.announcer import Announcer
from fleet.devices.liveness import Patience
from fleet.errors import DataFolderError, ListenError, RunningError
from fleet.hub import Hub
from fleet.leadership import Leadership
from fleet.peers.desk import PeerDesk
from fleet.releases.bucket_depot import BucketDepot
from fleet.releases.courier import Courier
from fleet.releases.director import Director
from fleet.releases.folder_depot import FolderDepot
from fleet.releases.online_keys import OnlineKeys
from fleet.releases.repository import Repository
from fleet.store.database import Database
from fleet.telemetry.figures import Standings
from fleet.telemetry.ingest import BATCH, Ingest
from fleet.telemetry.rate import Buckets
from shared import signing
from shared.clock import SystemClock
from shared.durable import make_folder
from shared.mqtt_link import LinkSettings, MqttLink
from shared.topics import ALL_UP

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from fleet.releases.depot import Depot
    from fleet.settings import FleetSettings
    from shared.clock import Clock


#: In the data folder while a restore goes on; no manager starts over it.
RESTORING: Final = "restoring.json"


@dataclass(frozen=True, slots=True)
class Manager:
    """Every part of a running manager. Built once; handed to drivers and routes."""

    settings: FleetSettings
    database: Database
    clock: Clock
    hub: Hub
    leadership: Leadership  # whether this manager leads; one that follows serves HTTP only
    pepper: Pepper  # the secret under which keys and tokens are hashed
    doorman: Doorman
    depot: Depot
    repository: Repository
    director: Director
    online_keys: OnlineKeys
    link: MqttLink
    announcer: Announcer
    ingest: Ingest
    courier: Courier
    peers: PeerDesk
    patience: Patience
    enrolments: Buckets  # attempts of one address
    knocks: Buckets  # sign-ins of one address, right or wrong
    sign_ins: SignIns
    cut_off: Callable[[str], None]  # end the connection of a device, where the broker is ours
    manager_url: str  # what devices and browsers are told
    mqtt_url: str  # what devices are told
    standings: Standings = field(default_factory=Standings)  # how releases do now


def listening(settings: FleetSettings) -> socket.socket:
    """The socket for HTTP, so that its port is known before anything else is built.

    Raises:
        ListenError: the address is taken, or not ours.
    """
    host, port = settings.server.host, settings.server.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error}") from error


@asynccontextmanager
async def opened(
    settings: FleetSettings, door: socket.socket, *, announce: Callable[[str], None] = lambda _: None
) -> AsyncIterator[tuple[Manager, EmbeddedBroker | None]]:
    """Everything built, nothing running but the embedded broker's port."""
    exposure.check(settings)
    lock = claim(settings.data_dir)
    if (settings.data_dir / RESTORING).exists():
        lock.close()
        raise RestoringError(f"a restore of {settings.data_dir} did not come to its end")
    signing.install()
    database = Database(settings.database_url)
    try:
        await database.open()
        pepper = Pepper.open(settings.data_dir / "keys" / "pepper")
        clock = SystemClock()
        token = await ensure_admin(database, pepper, settings.data_dir / "admin-token", clock.now())
        if token is not None:
            announce(f"admin token (shown once; also in {settings.data_dir / 'admin-token'}): {token}")
        if database.one_process:
            await Answers(database).forget_unfinished()
        secret = secrets.token_urlsafe(32)
        broker = await _broker(settings, Guests(database, pepper, secret))
        manager = _build(settings, database, pepper, clock, broker, secret, door)
        try:
            yield manager, broker
        finally:
            await manager.leadership.close()
            if broker is not None:
                await broker.close()
    finally:
        await database.close()
        lock.close()


def claim(data_dir: Path) -> Any:
    """The data folder, for this process alone; the system lets go of the lock however we end.

    Raises:
        DataFolderError: it cannot be used.
        RunningError: another manager works on it.
    """
    try:
        make_folder(data_dir)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise DataFolderError(f"cannot use {data_dir}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunningError(f"another manager works on {data_dir}") from None
    return lock


async def _broker(settings: FleetSettings, guests: Guests) -> EmbeddedBroker | None:
    if settings.mqtt.url is not None:
        return None
    broker = EmbeddedBroker(host=settings.mqtt.embedded_host, port=settings.mqtt.embedded_port, check=guests.may_enter)
    await broker.start()
    return broker


def _build(
    settings: FleetSettings,
    database: Database,
    pepper: Pepper,
    clock: Clock,
    broker: EmbeddedBroker | None,
    secret: str,
    door: socket.socket,
) -> Manager:
    keys = OnlineKeys.open(settings.data_dir / "keys")
    director = Director(keys)
    announcer = Announcer(database, director)
    link = MqttLink(_link_settings(settings, broker, secret), subscriptions=[ALL_UP], on_connect=announcer.resume)
    announcer.attach(link)
    hub = Hub()
    manager_url = settings.server.public_url or _url(_scheme(settings), door.getsockname())
    leadership = Leadership(
        database,
        Database(settings.database_url),
        host=socket.gethostname(),
        url=manager_url,
        keys=fingerprint(pepper, keys),
    )
    depot, repository = depot_of(settings), Repository(keys)
    courier = Courier(database=leadership.database, depot=depot, repository=repository, link=link, limits=settings.mqtt)
    attempts = settings.enrolment.attempts_per_minute
    return Manager(
        settings=settings,
        database=database,
        clock=clock,
        hub=hub,
        leadership=leadership,
        pepper=pepper,
        doorman=Doorman(database, pepper, _browser_limits(settings)),
        depot=depot,
        repository=repository,
        director=director,
        online_keys=keys,
        link=link,
        announcer=announcer,
        ingest=Ingest(
            database=leadership.database,
            link=link,
            announcer=announcer,
            hub=hub,
            clock=clock,
            limits=settings.mqtt,
            wants=courier.take,
        ),
        courier=courier,
        peers=PeerDesk(settings.peers, pepper, clock),
        patience=Patience(timedelta(seconds=settings.deployment.heartbeat_interval_seconds), clock.now()),
        enrolments=Buckets(rate=attempts / 60, burst=attempts),
        knocks=Buckets(rate=attempts / 60, burst=attempts),
        sign_ins=SignIns(database, pepper, clock),
        cut_off=broker.kick if broker is not None else lambda _: None,
        manager_url=manager_url,
        mqtt_url=settings.mqtt.public_url or _mqtt_url(settings, broker),
    )


def fingerprint(pepper: Pepper, keys: OnlineKeys) -> str:
    """The same text for managers with the same keys; tells nothing of them to who does not have them."""
    said = json.dumps([keys.public(), keys.escrow_public()], sort_keys=True)
    return pepper.digest(f"keys of a manager: {said}")


def depot_of(settings: FleetSettings) -> Depot:
    """The store of chunks that the settings name."""
    store = settings.releases.store
    if store is None:
        return FolderDepot(settings.data_dir / "depot")
    if "://" in store and not store.startswith("file://"):
        return BucketDepot(store)
    return FolderDepot(Path(store.removeprefix("file://")))


def _browser_limits(settings: FleetSettings) -> Limits:
    return Limits(
        idle=timedelta(minutes=settings.server.session_idle_minutes),
        longest=timedelta(hours=settings.users.session_hours),
    )


def _link_settings(settings: FleetSettings, broker: EmbeddedBroker | None, secret: str) -> LinkSettings:
    if broker is not None:
        url = _mqtt_url(settings, broker)
        return LinkSettings(url=url, client_id=acl.MANAGER, username=acl.MANAGER, password=secret, ahead=2 * BATCH)
    return LinkSettings(
        url=settings.mqtt.url or "",
        client_id=acl.MANAGER,
        username=settings.mqtt.username,
        password=settings.mqtt.password,
        ahead=2 * BATCH,
    )


def _scheme(settings: FleetSettings) -> str:
    return "https" if settings.server.tls_certificate is not None else "http"


def _mqtt_url(settings: FleetSettings, broker: EmbeddedBroker | None) -> str:
    if broker is None:
        return settings.mqtt.url or ""
    return _url("mqtt", (settings.mqtt.embedded_host, broker.port))


def _url(scheme: str, address: tuple[Any, ...]) -> str:
    host, port = address[0], address[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # read, not bound
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
