"""Calls to answers over HTTP: the blocking transport, and the one for asyncio.

A POST carries an Idempotency-Key; one whose answer was lost is asked for again once.

I/O: network, chance.
"""

import json
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Self, TypeAlias

import httpx2

from fleet.rest.calls import Call, EventLines
from fleet.rest.errors import AddressError, AnswerError, ProblemError, UnreachableError

Trace: TypeAlias = Callable[[str], None]
TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_EVENT_STREAM: Final = {"Accept": "text/event-stream"}


class _Common:
    """Where, as whom, and what came back."""

    def __init__(self, url: str, token: str | None, *, program: str, trace: Trace) -> None:
        self.url = url.rstrip("/")
        self.answered: Mapping[str, str] = {}  # headers of the newest answer
        self._token = token
        self._program = program
        self._trace = trace

    def _options(self) -> dict[str, Any]:
        """For either client of httpx.

        Raises:
            AddressError: not an HTTP address.
        """
        try:
            host = httpx2.URL(self.url).host
        except httpx2.InvalidURL as error:
            raise AddressError(f"{self.url!r} is not a manager's address: {error}") from None
        if not self.url.startswith(("http://", "https://")) or not host:
            raise AddressError(f"{self.url!r} is not a manager's address: it should begin with http:// or https://")
        headers = {"Accept": "application/json", "User-Agent": self._program}
        return {
            "base_url": self.url,
            "headers": {**headers, "Authorization": f"Bearer {self._token}"} if self._token else headers,
            "timeout": TIMEOUT,
            "verify": ssl.create_default_context() if self.url.startswith("https:") else False,
            "trust_env": host not in _LOOPBACK,
        }

    def _unreachable(self, error: httpx2.TransportError) -> UnreachableError:
        return UnreachableError(self.url, str(error) or type(error).__name__)

    def _parsed(self, answer: httpx2.Response) -> Any:
        self.answered = answer.headers
        self._trace(
            f"{answer.request.method} {answer.request.url} -> {answer.status_code} ({len(answer.content)} bytes)"
        )
        is_json = "json" in answer.headers.get("content-type", "")
        try:
            body = answer.json() if is_json and answer.content else None
        except ValueError:
            raise AnswerError(f"the manager's answer is not JSON: {answer.text[:200]}") from None
        if answer.status_code in (404, 405, 501) and not (isinstance(body, dict) and "code" in body):
            raise AnswerError(f"what answers at {self.url} is not a Flotilla manager")
        if answer.status_code >= 400:
            raise ProblemError(answer.status_code, body if isinstance(body, dict) else {"detail": answer.text[:200]})
        if answer.status_code >= 300:
            raise AnswerError(f"{self.url} sends us elsewhere: {answer.headers.get('location', '')}")
        return body if is_json else (answer.content if _is_binary(answer) else answer.text or None)

    def _file(self, answer: httpx2.Response) -> tuple[bytes, str]:
        if answer.status_code >= 300:
            self._parsed(answer)
        self._trace(
            f"{answer.request.method} {answer.request.url} -> {answer.status_code} ({len(answer.content)} bytes)"
        )
        return answer.content, _name(answer)


def _name(answer: httpx2.Response) -> str:
    found = re.search(r'filename="([^"/]+)"', answer.headers.get("content-disposition", ""))
    return found[1] if found else ""


def _is_binary(answer: httpx2.Response) -> bool:
    kind = answer.headers.get("content-type", "")
    return kind.startswith("application/") and "json" not in kind


def _keyed(call: Call) -> Call:
    if call.method != "POST" or "Idempotency-Key" in call.headers:
        return call
    return replace(call, headers={**call.headers, "Idempotency-Key": str(uuid.uuid4())})


def _final(error: httpx2.TransportError, attempt: int) -> bool:
    return attempt == 2 or isinstance(error, httpx2.ConnectError | httpx2.UnsupportedProtocol)


class Transport(_Common):
    """Blocking. Belongs to one thread at a time."""

    def __init__(
        self, url: str, token: str | None = None, *, program: str = "flotilla-python", trace: Trace = lambda _: None
    ) -> None:
        super().__init__(url, token, program=program, trace=trace)
        self._http = httpx2.Client(**self._options())

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, call: Call) -> Any:
        """Parsed JSON, the text or bytes of another type, or None for an empty answer.

        Raises:
            ProblemError: the manager refused.
            UnreachableError: no answer.
            AnswerError: not a manager's answer.
        """
        call = _keyed(call)
        for attempt in (1, 2):
            try:
                return self._parsed(self._http.request(call.method, call.full_path, **call.arguments()))
            except httpx2.TransportError as error:
                if _final(error, attempt):
                    raise self._unreachable(error) from None
        raise AssertionError

    def download(self, call: Call, *, patience_seconds: float = 30.0) -> tuple[bytes, str]:
        """The bytes that answer `call`, and the name that the manager gave them.

        Raises:
            ProblemError, UnreachableError: as `send`.
        """
        timeout = httpx2.Timeout(patience_seconds, connect=5.0)
        try:
            answer = self._http.request(call.method, call.full_path, **call.arguments(), timeout=timeout)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None
        return self._file(answer)

    def save(self, call: Call, write: Callable[[bytes], object], *, silence_seconds: float = 300.0) -> None:
        """Give `write` the bytes that answer `call`, however many, as they come. Sent once, without a key.

        Raises:
            ProblemError, UnreachableError: as `send`; also when the answer broke off.
        """
        timeout = httpx2.Timeout(silence_seconds, connect=5.0)
        try:
            with self._http.stream(call.method, call.full_path, **call.arguments(), timeout=timeout) as answer:
                if answer.status_code >= 300:
                    answer.read()
                    self._parsed(answer)
                self.answered = answer.headers
                for piece in answer.iter_raw():
                    write(piece)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None

    def stream(self, call: Call, *, silence_seconds: float = 60.0) -> Iterator[Any]:
        """The `data` of server-sent events, parsed, until the manager ends the stream.

        Raises:
            ProblemError, UnreachableError: as `send`; also when nothing at all came for `silence_seconds`.
        """
        timeout = httpx2.Timeout(silence_seconds, connect=5.0)
        arguments = call.arguments() | {"headers": _EVENT_STREAM, "timeout": timeout}
        try:
            with self._http.stream("GET", call.full_path, **arguments) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    self._parsed(answer)
                events = EventLines()
                for line in answer.iter_lines():
                    if (text := events.feed(line)) is not None:
                        yield json.loads(text)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None


class AsyncTransport(_Common):
    """For asyncio. Belongs to one event loop."""

    def __init__(
        self, url: str, token: str | None = None, *, program: str = "flotilla-python", trace: Trace = lambda _: None
    ) -> None:
        super().__init__(url, token, program=program, trace=trace)
        self._http = httpx2.AsyncClient(**self._options())

    async def close(self) -> None:
        """End the connections."""
        await self._http.aclose()

    async def send(self, call: Call) -> Any:
        """As `Transport.send`."""
        call = _keyed(call)
        for attempt in (1, 2):
            try:
                return self._parsed(await self._http.request(call.method, call.full_path, **call.arguments()))
            except httpx2.TransportError as error:
                if _final(error, attempt):
                    raise self._unreachable(error) from None
        raise AssertionError

    async def download(self, call: Call, *, patience_seconds: float = 30.0) -> tuple[bytes, str]:
        """As `Transport.download`."""
        timeout = httpx2.Timeout(patience_seconds, connect=5.0)
        try:
            answer = await self._http.request(call.method, call.full_path, **call.arguments(), timeout=timeout)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None
        return self._file(answer)

    async def stream(self, call: Call, *, silence_seconds: float = 60.0) -> AsyncIterator[Any]:
        """As `Transport.stream`."""
        timeout = httpx2.Timeout(silence_seconds, connect=5.0)
        arguments = call.arguments() | {"headers": _EVENT_STREAM, "timeout": timeout}
        try:
            async with self._http.stream("GET", call.full_path, **arguments) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                    self._parsed(answer)
                events = EventLines()
                async for line in answer.aiter_lines():
                    if (text := events.feed(line)) is not None:
                        yield json.loads(text)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None
