"""A manager of its own for a test: real database, real embedded broker, real link, routes without a socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from fleet.access.secrets import new_id, new_secret
from fleet.api.app import create_app
from fleet.parts import Manager, listening, opened
from fleet.settings import FleetSettings
from fleet.store.tables import Device, Metadata, Token
from shared.mqtt_link import LinkSettings, MqttLink
from shared.topics import all_down
from tests.simulators import databases

Make = Callable[..., Awaitable[Device]]


def settings_in(folder: Path, **sections: object) -> FleetSettings:
    """Free ports, everything below `folder`."""
    values = {"data_dir": folder, "server": {"port": 0}, "mqtt": {"embedded_port": 0}}
    return FleetSettings.model_validate(values | sections)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits for something that another thread makes true."""

    async def wait(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not true():  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    """Every part; the broker and the link run, nothing else."""
    settings = settings_in(tmp_path / "fleet")
    databases.sqlite(settings.data_dir / "fleet.sqlite")
    async with AsyncExitStack() as stack:
        door = stack.enter_context(listening(settings))
        found, _ = await stack.enter_async_context(opened(settings, door))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(found.link.run())
            async with asyncio.timeout(10):
                await found.link.wait_connected()
            yield found
            task.cancel()


@pytest.fixture
async def strangers(manager: Manager) -> AsyncIterator[httpx2.AsyncClient]:
    """A client without credentials."""
    transport = httpx2.ASGITransport(app=create_app(manager), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://fleet") as client:
        yield client


@pytest.fixture
def token_for(manager: Manager) -> Callable[[str], Awaitable[str]]:
    """Makes a token of a role."""

    async def make(role: str) -> str:
        secret = new_secret("token")
        async with manager.database.write() as tx:
            tx.add(
                Token(
                    id=new_id("to"),
                    name=f"the {role}",
                    role=role,
                    token_hash=manager.pepper.digest(secret),
                    created_at=datetime.now(UTC),
                )
            )
        return secret

    return make


@pytest.fixture
async def admin(manager: Manager, strangers: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """The same client with the first admin token."""
    token = (manager.settings.data_dir / "admin-token").read_text().strip()
    strangers.headers["Authorization"] = f"Bearer {token}"
    return strangers


@pytest.fixture
async def trust(manager: Manager) -> None:
    """A root document, so that devices may enrol."""
    async with manager.database.write() as tx:
        tx.add(Metadata(role="root", version=1, data=b'{"signed": {}}'))


@pytest.fixture
def enrolled(manager: Manager) -> Make:
    """Makes a device row; its API key is `key-of-ID`."""

    async def make(name: str = "cam-1", /, **values: object) -> Device:
        fields: dict[str, object] = {
            "id": name,
            "name": name,
            "labels": {},
            "sign_key": b"s" * 32,
            "box_key": b"b" * 32,
            "api_key_hash": manager.pepper.digest(f"key-of-{name}"),
            "enrolled_at": datetime.now(UTC),
            "slots": [],
            "serving": {},
            "lifecycle": "active",
        }
        device = Device(**(fields | values))
        async with manager.database.write() as tx:
            tx.add(device)
        return device

    return make


@pytest.fixture
async def device_link(manager: Manager) -> AsyncIterator[Callable[..., Awaitable[MqttLink]]]:
    """Connects a device to the manager's broker, over a real socket."""
    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []

        async def connect(name: str = "cam-1", *, filters: list[str] | None = None, **values: object) -> MqttLink:
            settings = LinkSettings(
                url=manager.mqtt_url,
                client_id=name,
                username=name,
                password=str(values.get("password", f"key-of-{name}")),
            )
            link = MqttLink(
                settings,
                subscriptions=[all_down(name)] if filters is None else filters,
                will=values.get("will"),  # type: ignore[arg-type]
            )
            tasks.append(group.create_task(link.run()))
            if values.get("wait", True):
                async with asyncio.timeout(10):
                    await link.wait_connected()
            return link

        yield connect
        for task in tasks:
            task.cancel()
