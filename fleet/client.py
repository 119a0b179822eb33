"""Flotilla from Python: the manager's REST interface as objects.

    with Fleet("https://fleet.example", token="flt_...") as fleet:     # or AsyncFleet, with await
        started = fleet.rollouts.start("digits", "1.2.0", waves=["1", "25%", "100%"])
        ended = fleet.rollouts.wait(started["id"])

    with Fleet.embedded("./fleet-data") as fleet:                      # the manager lives in this process
        fleet.initialise()
        fleet.publish("digits", "1.0.0", "model.onnx", reference="data.npz")

Documents are what `/api/docs` describes, as parsed JSON.

I/O: network, disk, tasks, clock.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Generic, Self

from fleet.rest.calls import Call, Document, get
from fleet.rest.embedded import EmbeddedManager
from fleet.rest.errors import AddressError, AnswerError, ProblemError, UnreachableError, WaitError
from fleet.rest.resources import (
    Alerts,
    Ask,
    Audit,
    Devices,
    Done,
    Drift,
    Invites,
    Many,
    Models,
    One,
    Rollouts,
    Schedules,
    Tokens,
    Users,
)
from fleet.rest.signing import Signing
from fleet.rest.transport import AsyncTransport, Transport

__all__ = ["AddressError", "AnswerError", "AsyncFleet", "Fleet", "ProblemError", "UnreachableError", "WaitError"]

POLL_SECONDS: Final = 0.5
REPORT_SECONDS: Final = 120.0


class _Nouns(Generic[One, Many]):
    """What can be asked."""

    def __init__(self, ask: Ask[One, Many], url: str) -> None:
        self.url = url
        self.devices = Devices(ask)
        self.invites = Invites(ask)
        self.models = Models(ask)
        self.rollouts = Rollouts(ask)
        self.schedules = Schedules(ask)
        self.drift = Drift(ask)
        self.alerts = Alerts(ask)
        self.users = Users(ask)
        self.tokens = Tokens(ask)
        self.audit = Audit(ask)


class _Asking:
    """`Ask` that blocks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def one(self, call: Call) -> Document:
        found: Document = self._transport.send(call)
        return found

    def many(self, call: Call) -> list[Document]:
        items: list[Document] = []
        cursor = None
        while True:
            page = self.one(call.page(cursor))
            items += page["items"]
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                return items

    def until(self, call: Call, done: Done, timeout_seconds: float | None) -> Document:
        deadline = _deadline(timeout_seconds)
        while not done(found := self.one(call)):
            if time.monotonic() >= deadline:
                raise _late(call, timeout_seconds)
            time.sleep(POLL_SECONDS)
        return found


class _Awaiting:
    """`Ask` for asyncio."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def one(self, call: Call) -> Document:
        found: Document = await self._transport.send(call)
        return found

    async def many(self, call: Call) -> list[Document]:
        items: list[Document] = []
        cursor = None
        while True:
            page = await self.one(call.page(cursor))
            items += page["items"]
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                return items

    async def until(self, call: Call, done: Done, timeout_seconds: float | None) -> Document:
        deadline = _deadline(timeout_seconds)
        while not done(found := await self.one(call)):
            if time.monotonic() >= deadline:
                raise _late(call, timeout_seconds)
            await asyncio.sleep(POLL_SECONDS)
        return found


def _deadline(timeout_seconds: float | None) -> float:
    return time.monotonic() + timeout_seconds if timeout_seconds is not None else float("inf")


def _late(call: Call, timeout_seconds: float | None) -> WaitError:
    return WaitError(f"{call.full_path} is not as it was waited for after {timeout_seconds:g} s")


class Fleet(_Nouns[Document, list[Document]]):
    """A manager, asked by blocking calls. Use it in one thread at a time, and close it.

    Raises (every method):
        ProblemError: the manager refused; `code` and `problem` tell why.
        UnreachableError: no answer.
    """

    def __init__(self, url: str, token: str | None = None, *, keys: Path | None = None) -> None:
        self._transport = Transport(url, token)
        super().__init__(_Asking(self._transport), url)
        self._signing = Signing(self._transport, keys=keys)

    @classmethod
    @contextmanager
    def embedded(
        cls, folder: Path | str, *, settings: Mapping[str, Any] | None = None, keys: Path | str | None = None
    ) -> Iterator[Self]:
        """The manager of the data folder `folder` on a thread of this process; no daemon is needed.

        `settings` lie over `folder/fleet.yaml`, sections and keys as there. Signing keys are in `keys`, by default
        `signing-keys` in the folder. Ports are free ones unless settings name them.

        Raises:
            RunningError: another manager works on the folder.
            ConfigurationError: a setting is not allowed.
        """
        manager = EmbeddedManager(Path(folder), settings or {})
        url, token = manager.start()
        try:
            with cls(url, token, keys=Path(keys) if keys else Path(folder) / "signing-keys") as made:
                yield made
        finally:
            manager.close()

    def close(self) -> None:
        """End the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def initialise(self, *, keys: Path | str | None = None, threshold: int = 1) -> Document:
        """Signing keys and the manager's root of trust, as `flotilla init`; harmless to repeat."""
        return self._signing.initialise(keys, threshold=threshold)

    def publish(
        self,
        model: str,
        version: str,
        file: Path | str,
        *,
        reference: Path | str | None,
        keys: Path | str | None = None,
        metrics: Mapping[str, float] | None = None,
        **label: Any,
    ) -> Document:
        """Check, measure, encrypt, sign and upload an ONNX file, as `flotilla model publish`.

        Without `reference` (an .npz of typical rows) devices check themselves on made-up inputs, and drift cannot be
        seen. `metrics` are added to those that are measured. `label`: notes, hardware, providers, fp16, embedding,
        snap ...

        Raises:
            FlotillaError: many leaves; each says what to do.
        """
        return self._signing.publish(model, version, file, reference, keys=keys, metrics=metrics or {}, **label)

    def report(self, model: str, *, format: str = "html", since: str = "7d", **where: str) -> bytes:  # noqa: A002
        """A report on drift and performance, `html`, `pdf` or `json`, as `flotilla drift report`.

        `where`: `version`, `site` or `device`.
        """
        call = get("/drift/report", model=model, format=format, since=since, **where)
        return self._transport.download(call, patience_seconds=REPORT_SECONDS)[0]

    def events(self, *, after: int | None = None, silence_seconds: float = 60.0) -> Iterator[Document]:
        """What happens, as it happens; ends with the manager. `after`: from the event behind that `sequence` on."""
        return self._transport.stream(get("/events", after=after), silence_seconds=silence_seconds)

    def ask(self, call: Call) -> Any:
        """Anything else of the REST interface."""
        return self._transport.send(call)


class AsyncFleet(_Nouns[Awaitable[Document], Awaitable[list[Document]]]):
    """A manager, asked from asyncio: the surface of `Fleet`, with `await`. Belongs to one event loop."""

    def __init__(self, url: str, token: str | None = None, *, keys: Path | None = None) -> None:
        self._transport = AsyncTransport(url, token)
        super().__init__(_Awaiting(self._transport), url)
        self._token = token
        self._keys = keys

    @classmethod
    @asynccontextmanager
    async def embedded(
        cls, folder: Path | str, *, settings: Mapping[str, Any] | None = None, keys: Path | str | None = None
    ) -> AsyncIterator[Self]:
        """As `Fleet.embedded`; the manager has a thread of its own, so that a busy loop does not slow it down."""
        manager = EmbeddedManager(Path(folder), settings or {})
        url, token = await asyncio.to_thread(manager.start)
        try:
            async with cls(url, token, keys=Path(keys) if keys else Path(folder) / "signing-keys") as made:
                yield made
        finally:
            await asyncio.to_thread(manager.close)

    async def close(self) -> None:
        """End the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def initialise(self, *, keys: Path | str | None = None, threshold: int = 1) -> Document:
        """As `Fleet.initialise`, on a thread."""
        return await asyncio.to_thread(self._signed, "initialise", keys, threshold=threshold)

    async def publish(
        self,
        model: str,
        version: str,
        file: Path | str,
        *,
        reference: Path | str | None,
        keys: Path | str | None = None,
        metrics: Mapping[str, float] | None = None,
        **label: Any,
    ) -> Document:
        """As `Fleet.publish`, on a thread."""
        said = {"keys": keys, "metrics": metrics or {}, **label}
        return await asyncio.to_thread(self._signed, "publish", model, version, file, reference, **said)

    async def report(self, model: str, *, format: str = "html", since: str = "7d", **where: str) -> bytes:  # noqa: A002
        """As `Fleet.report`."""
        call = get("/drift/report", model=model, format=format, since=since, **where)
        return (await self._transport.download(call, patience_seconds=REPORT_SECONDS))[0]

    def events(self, *, after: int | None = None, silence_seconds: float = 60.0) -> AsyncIterator[Document]:
        """As `Fleet.events`."""
        return self._transport.stream(get("/events", after=after), silence_seconds=silence_seconds)

    async def ask(self, call: Call) -> Any:
        """Anything else of the REST interface."""
        return await self._transport.send(call)

    def _signed(self, what: str, *arguments: Any, **said: Any) -> Document:
        with Transport(self.url, self._token) as transport:
            done: Document = getattr(Signing(transport, keys=self._keys), what)(*arguments, **said)
            return done
