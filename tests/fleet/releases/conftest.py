"""A manager's release side over real HTTP and a real database, and a key folder to publish from."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fleet.access.roles import Actor
from fleet.api import bundles, chunks, models, trust, withdrawing
from fleet.api.problems import Problem, of_error
from fleet.cli.__main__ import cli
from fleet.hub import Hub
from fleet.releases import reference_run
from fleet.releases.director import Director
from fleet.releases.folder_depot import FolderDepot
from fleet.releases.keystore import Keystore
from fleet.releases.online_keys import OnlineKeys
from fleet.releases.repository import Repository
from fleet.settings import FleetSettings
from fleet.store.database import Database
from fleet.telemetry.figures import Standings
from shared.errors import FlotillaError
from tests.simulators import databases, digits


@dataclass
class Hands:
    """A clock that a test may turn."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        raise NotImplementedError


class Gate:
    """Stands for the manager's own gate: the bearer token is the role."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            role = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
            scope["flotilla.actor"] = Actor(f"test-{role}", role, "r-1") if role else None
            scope["flotilla.request_id"] = "r-1"
        await self._app(scope, receive, send)


def application(manager: Any) -> FastAPI:
    app = FastAPI()
    app.state.manager = manager
    for module in (bundles, chunks, models, withdrawing, trust):
        app.include_router(module.router)

    async def told(_request: Request, error: Exception) -> JSONResponse:
        problem = error if isinstance(error, Problem) else of_error(error)
        return JSONResponse(problem.document("r-1"), problem.status, media_type="application/problem+json")

    app.add_exception_handler(Problem, told)
    app.add_exception_handler(FlotillaError, told)
    app.add_middleware(Gate)
    return app


@dataclass
class Workshop:
    """The manager's side and the publisher's side of one fleet."""

    url: str
    folder: Path
    clock: Hands
    manager: Any
    loop: asyncio.AbstractEventLoop
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> Keystore:
        return Keystore(self.folder / "keys")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something on the manager's own loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def write(self, function: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any, **named: Any) -> Any:
        """`function(tx, ...)` in a transaction."""

        async def work() -> Any:
            async with self.manager.database.write() as tx:
                return await function(tx, *arguments, **named)

        return self.run(work())

    def flotilla(self, *words: str, token: str = "admin") -> Result:
        environment = {
            "FLOTILLA_URL": self.url,
            "FLOTILLA_TOKEN": token,
            "FLOTILLA_KEYS": str(self.folder / "keys"),
            "XDG_CONFIG_HOME": str(self.folder),
            **self.environment,
        }
        return CliRunner().invoke(cli, list(words), env=environment)

    def asks(self, *words: str) -> Any:
        """The JSON that a command answers; it must succeed."""
        result = self.flotilla(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def files(self, trained: digits.Trained, name: str = "model.onnx") -> tuple[str, str]:
        (self.folder / name).write_bytes(trained.onnx_bytes)
        (self.folder / "data.npz").write_bytes(trained.reference_npz())
        return str(self.folder / name), str(self.folder / "data.npz")

    def publish(self, version: str, trained: digits.Trained | None = None, *words: str) -> Any:
        file, data = self.files(trained or digits.train())
        return self.asks("model", "publish", "digits", version, file, "--reference", data, *words)


_measured: dict[Any, Any] = {}
_really_run = reference_run.run


def run_once(onnx: bytes, inputs: Any, labels: Any, **named: Any) -> Any:
    """The real run in a child process, once for each model and data: it takes a second, and many tests publish."""
    arrays = [*inputs.items(), *([("y", labels)] if labels is not None else [])]
    key = (onnx, *((name, array.dtype.str, array.tobytes()) for name, array in arrays))
    if key not in _measured:
        _measured[key] = _really_run(onnx, inputs, labels, **named)
    return _measured[key]


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    monkeypatch.setattr(reference_run, "run", run_once)
    keys = OnlineKeys.open(tmp_path / "fleet" / "keys")
    manager = SimpleNamespace(
        database=Database(databases.sqlite(tmp_path / "fleet.sqlite")),
        clock=Hands(),
        hub=Hub(),
        settings=FleetSettings(),
        depot=FolderDepot(tmp_path / "fleet" / "depot"),
        repository=Repository(keys),
        director=Director(keys),
        online_keys=keys,
        standings=Standings(),
    )
    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(manager), log_level="error", lifespan="off", ws="none"))
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        await manager.database.open()
        ready.set()
        await server.serve(sockets=[door])
        await manager.database.close()

    def live() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        loop.close()

    ready = threading.Event()
    thread = threading.Thread(target=live)
    thread.start()
    assert ready.wait(30)
    url = f"http://127.0.0.1:{door.getsockname()[1]}"
    yield Workshop(url, tmp_path, manager.clock, manager, loop)
    server.should_exit = True
    thread.join(30)
    door.close()
    assert not thread.is_alive()


@pytest.fixture
def founded(workshop: Workshop) -> Workshop:
    """A workshop after `flotilla init`."""
    workshop.asks("init")
    return workshop
