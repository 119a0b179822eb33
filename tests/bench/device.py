"""A real endpoint in a process of its own, driven by lines of JSON, so that a bench shares no interpreter with it.

with Device(folder, http_port=0) as device:     settings of ServingSettings
    device.load(models.digits(folder))          loads and routes
    device.tcp, device.unix                     addresses for tests.bench.load; device.grpc where a port was asked for
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.serving.shadow_runner import ShadowRunner
from agent.serving.supervisor import LoadError, ModelFile, Observation, Serving
from agent.settings import ServingSettings
from shared.manifest import Tensor
from shared.messages import ShadowFigures
from shared.shadow import Terms
from tests.agent.serving.kit import children_of

_ROOT = Path(__file__).resolve().parents[2]
_LINE_BYTES = 1 << 20


class Device:
    """The endpoint's process, seen from the bench."""

    def __init__(self, folder: Path, **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        chosen = ServingSettings.model_validate({"http_port": 0, "grpc_port": None, **settings})
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.device", str(folder), chosen.model_dump_json()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT,
        )  # fmt: skip
        where = self._answer()
        self.tcp, self.unix = f"127.0.0.1:{where['http_port']}", str(where["unix"])
        self.grpc: str | None = where["grpc"]

    @property
    def pid(self) -> int:
        """Of the process that stands for the daemon."""
        return self._process.pid

    def load(self, file: ModelFile, *, route: bool = True) -> float:
        """Seconds that it took. Raises RuntimeError when the endpoint refused."""
        took = float(self._ask("load", **_described(file))["seconds"])
        if route:
            self.route(file.model, file.version)
        return took

    def route(self, model: str, version: str) -> None:
        self._ask("route", model=model, version=version)

    def unload(self, model: str, version: str) -> None:
        self._ask("unload", model=model, version=version)

    def shadow(self, candidate: ModelFile, terms: Terms) -> None:
        """From now on `candidate` looks on, until `end_shadow`."""
        self._ask("shadow", terms=terms.model_dump(), **_described(candidate))

    def end_shadow(self) -> ShadowFigures:
        """What was compared."""
        return ShadowFigures.model_validate(self._ask("end-shadow")["figures"])

    def seen(self) -> dict[str, int]:
        """How many observations of each kind were told so far."""
        return dict(self._ask("seen")["seen"])

    def processes(self) -> dict[str, int]:
        """Part -> process id: daemon, front, fork server; workers are its children."""
        found = {"daemon": self.pid}
        for pid, command in children_of(self.pid).items():
            for part in ("front", "fork_server"):
                if f"agent.serving.{part}" in command:
                    found.setdefault(part, pid)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, do: str, **content: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **content}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the endpoint ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            raise RuntimeError(found["failed"])
        return found


async def _serve(folder: Path, settings: ServingSettings) -> None:
    seen: Counter[str] = Counter()

    def observe(entries: Sequence[Observation]) -> None:
        seen.update(type(entry).__name__ for entry in entries)

    serving = Serving(settings, state_dir=folder, observe=observe)
    running = asyncio.create_task(serving.run())
    endpoints = await asyncio.wait_for(serving.started(), 30)
    _tell({"http_port": endpoints.http_port, "unix": str(endpoints.uds_path), "grpc": endpoints.grpc})
    lines = asyncio.StreamReader(_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    shadows = _Shadows(serving)
    while line := await lines.readline():
        try:
            _tell(await _obey(serving, shadows, json.loads(line)) or {"seen": dict(seen)})
        except LoadError as error:
            _tell({"failed": str(error)})
    running.cancel()
    await asyncio.wait([running])


class _Shadows:
    """The candidate that looks on, if there is one."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._open = AsyncExitStack()
        self._shadow: ShadowRunner | None = None

    async def begin(self, file: ModelFile, terms: Terms) -> None:
        self._shadow = await self._open.enter_async_context(self._serving.shadowing(file, terms, lambda: None))

    async def end(self) -> ShadowFigures:
        await self._open.aclose()
        return self._shadow.figures if self._shadow is not None else ShadowFigures()


def _described(file: ModelFile) -> dict[str, Any]:
    """For `_read`, in the other process."""
    sides = {side: [entry.model_dump() for entry in getattr(file, side)] for side in ("inputs", "outputs")}
    named = {"model": file.model, "version": file.version, "slot": file.slot, "path": str(file.path)}
    return {**named, **sides, "providers": list(file.providers)}


def _read(order: dict[str, Any]) -> ModelFile:
    sides = {side: tuple(Tensor(**entry) for entry in order.pop(side)) for side in ("inputs", "outputs")}
    order.update(path=Path(order["path"]), providers=tuple(order["providers"]))
    return ModelFile(**order, **sides)


async def _obey(serving: Serving, shadows: _Shadows, order: dict[str, Any]) -> dict[str, Any] | None:
    match order.pop("do"):
        case "load":
            return {"seconds": await serving.load(_read(order))}
        case "shadow":
            terms = Terms.model_validate(order.pop("terms"))
            await shadows.begin(_read(order), terms)
            return {"done": True}
        case "end-shadow":
            return {"figures": (await shadows.end()).model_dump(mode="json")}
        case "route":
            await serving.route(order["model"], order["version"])
            return {"done": True}
        case "unload":
            await serving.unload(order["model"], order["version"])
            return {"done": True}
    return None


def _tell(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), ServingSettings.model_validate_json(sys.argv[2])))
