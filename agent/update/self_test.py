"""The candidate answers the release's golden inputs in a throw-away child, before it may serve.

I/O: process, disk, tasks.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.serving import interpreter
from agent.serving.engines import Setup
from agent.serving.providers import Runtime
from agent.settings import UpdateSettings
from agent.update import reasons
from shared import signing
from shared.errors import BadInputError
from shared.manifest import Tolerance

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024


class Trial(BaseModel):
    """What the child said."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    passed: bool
    reason: str | None = None
    detail: str = ""
    latency_ms: float | None = None
    provider: str | None = None
    passed_over: tuple[str, ...] = ()  # providers that did not do, and why
    peak_bytes: int | None = None
    resident_bytes: int | None = None
    unconfined: tuple[str, ...] = ()  # what the sandbox had no means against on this kernel


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How a trial is run on this device."""

    python: str | None  # interpreter that has onnxruntime; None: our own
    timeout_seconds: float
    memory_bytes: int
    build_seconds: float = 1800.0  # instead, where engines are made meanwhile
    _told: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, settings: UpdateSettings, *, python: str | None) -> Self:
        """As the operator set it."""
        return cls(
            python,
            settings.self_test_timeout_seconds,
            settings.self_test_memory_bytes,
            settings.engine_build_timeout_seconds,
        )

    async def run(
        self,
        *,
        model: Path,
        golden: Path,
        providers: Sequence[str],
        tolerance: Tolerance,
        tolerances: Mapping[str, Tolerance] | None = None,
        setup: Setup | None = None,
        rows: int = 1,
    ) -> Trial:
        """What came of it; a child that hangs, dies or babbles has failed.

        Args:
            tolerance: where `tolerances` has none for the provider that takes the model.
            setup: options of providers, and engines that are made meanwhile.
            rows: most rows that requests are joined to.
        """
        setup = setup or Setup(tuple(providers), {})
        limit = self.build_seconds if setup.building else self.timeout_seconds
        request = {
            "model": str(model),
            "golden": str(golden),
            "providers": list(providers),
            "threads": 1,
            "tolerance": tolerance.model_dump(),
            "tolerances": {name: found.model_dump() for name, found in (tolerances or {}).items()},
            "memory_bytes": self.memory_bytes,
            "options": {name: dict(found) for name, found in setup.options.items()},
            "readable": setup.readable,
            "writable": setup.writable,
            "rows": rows,
        }
        if setup.building:  # compilers use every processor
            request["cpu_seconds"] = int(limit * (os.cpu_count() or 1)) + 1
        trial = interpreter.command("agent.serving.trial", python=self.python)
        found = await self._child(trial, json.dumps(request).encode(), limit)
        if found is None:
            if setup.building:
                return _failed(reasons.ENGINE_TIMEOUT, f"engines were not made within {limit:g} s")
            return _failed(reasons.SELF_TEST_TIMEOUT, f"the trial took longer than {limit:g} s")
        code, answer, words = found
        try:
            verdict = Trial.model_validate(signing.strict_json(answer, limit_bytes=MAX_ANSWER_BYTES))
        except (BadInputError, ValidationError):
            return _failed(reasons.LOAD, f"the trial {self._exit(code, words)}: {words[-500:]}".rstrip(": "))
        self._tell(verdict.unconfined)
        return verdict

    async def runtime(self) -> Runtime | None:
        """The installed runtime; None without one."""
        asked = interpreter.command("agent.serving.worker_facts", python=self.python)
        found = await self._child(asked, b"", self.timeout_seconds)
        try:
            told: Any = signing.strict_json(found[1], limit_bytes=MAX_ANSWER_BYTES) if found else None
            return Runtime(tuple(map(str, told["providers"])), tuple(map(str, told["runtime"])))
        except (BadInputError, KeyError, TypeError):
            return None

    async def providers(self) -> tuple[str, ...] | None:
        """What the installed runtime offers; None without a runtime."""
        found = await self.runtime()
        return None if found is None else found.providers

    async def _child(self, arguments: Sequence[str], request: bytes, limit: float) -> tuple[int, bytes, str] | None:
        child = await asyncio.create_subprocess_exec(
            *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=_environment(own=self.python is None)
        )
        try:
            async with asyncio.timeout(limit):
                answer, words = await _conversation(child, request)
        except TimeoutError:
            return None
        finally:
            await _end(child)
        return child.returncode or 0, answer, _without_warnings(words.decode(errors="replace"))

    def _tell(self, unconfined: Sequence[str]) -> None:
        """Log once what this kernel lacks."""
        new = set(unconfined) - self._told
        self._told.update(new)
        if new:
            logger.warning("this kernel confines trials less than it could missing=%r", "; ".join(sorted(new)))

    def _exit(self, code: int, words: str) -> str:
        """How a child ended that gave no verdict."""
        if "bad_alloc" in words:
            return f"ran into the memory limit of {self.memory_bytes / 2**30:.1f} GiB"
        if code < 0:
            return _SIGNALS.get(-code, "crashed ({})").format(_name(-code))
        return f"ended with exit code {code} and without a verdict"


_SIGNALS: Final[Mapping[int, str]] = {
    signal.SIGKILL: "was killed ({}), as systems do when memory runs out",
    signal.SIGXCPU: "took longer than its processor time ({})",
    signal.SIGSYS: "asked the system for something forbidden ({})",
    signal.SIGTERM: "was ended ({})",
}


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _conversation(child: Process, request: bytes) -> tuple[bytes, bytes]:
    """What the child wrote to stdout and stderr until it ended: no more than may be kept of a child that babbles."""
    assert child.stdin is not None  # noqa: S101 - made with pipes
    assert child.stdout is not None  # noqa: S101
    assert child.stderr is not None  # noqa: S101
    with contextlib.suppress(ConnectionError):  # it died before it had read its orders
        child.stdin.write(request)
        await child.stdin.drain()
    child.stdin.close()
    said = await asyncio.gather(_bounded(child.stdout), _bounded(child.stderr))
    await child.wait()
    return said[0], said[1]


async def _bounded(stream: asyncio.StreamReader) -> bytes:
    """Everything is read, and kept up to one byte more than is allowed."""
    kept = bytearray()
    while piece := await stream.read(_PIECE_BYTES):
        kept += piece[: MAX_ANSWER_BYTES + 1 - len(kept)]
    return bytes(kept)


def _without_warnings(words: str) -> str:
    """onnxruntime warns of devices that the sandbox hides; what a crash says stands below."""
    return "\n".join(line for line in words.splitlines() if "[W:onnxruntime" not in line).strip()


async def _end(child: Process) -> None:
    if child.returncode is None:
        child.kill()
        await child.wait()


def _environment(*, own: bool) -> Mapping[str, str]:
    """Little of ours; where our packages lie only for our own interpreter, another one has its own."""
    names = {"PATH", "HOME", "LD_LIBRARY_PATH", "LANG", *(("PYTHONPATH",) if own else ())}
    return {**{name: os.environ[name] for name in names if name in os.environ}, "PYTHONDONTWRITEBYTECODE": "1"}


def _failed(reason: str, detail: str) -> Trial:
    return Trial(passed=False, reason=reason, detail=detail)
