"""Requests to the manager: JSON in, JSON out, problems as `CliError`.

I/O: network, chance.
"""

import json as _json
import re
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import httpx2

from fleet.cli.errors import CliError, Exit, from_problem
from fleet.cli.session import Session

BASE: Final = "/api/v1"
_TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Api:
    """The manager of one session. Paths are below `/api/v1`, or absolute when they begin with `//`."""

    def __init__(self, session: Session, *, trace: Callable[[str], None] = lambda _: None) -> None:
        self.session = session
        self.answered: Mapping[str, str] = {}  # headers of the newest answer
        self._trace = trace
        try:
            host = httpx2.URL(session.url).host
            self._http = httpx2.Client(
                base_url=session.url,
                headers=_headers(session),
                timeout=_TIMEOUT,
                verify=ssl.create_default_context() if session.url.startswith("https:") else False,
                trust_env=host not in _LOOPBACK,
            )
        except httpx2.InvalidURL as error:
            raise _no_url(session.url, str(error)) from None
        if not session.url.startswith(("http://", "https://")) or not host:
            raise _no_url(session.url, "it should begin with http:// or https://")

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def get(self, path: str, *, params: Mapping[str, Any] | None = None) -> Any:
        """The document at `path`."""
        return self.request("GET", path, params=params)

    def post(
        self, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None, content: bytes | None = None
    ) -> Any:
        """What the manager answers. Sent with an Idempotency-Key: a lost answer is asked for again once."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self.request("POST", path, json=json, params=params, content=content, headers=headers)

    def put(
        self, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None, content: bytes | None = None
    ) -> Any:
        """What the manager answers."""
        return self.request("PUT", path, json=json, params=params, content=content)

    def patch(self, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """What the manager answers."""
        return self.request("PATCH", path, json=json, params=params)

    def delete(self, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """What the manager answers."""
        return self.request("DELETE", path, json=json, params=params)

    def request(self, method: str, path: str, **arguments: Any) -> Any:
        """Parsed JSON, the text of another type, or None for an empty answer.

        Raises:
            CliError: no answer, or a problem; its exit code tells which.
        """
        arguments = {name: value for name, value in arguments.items() if value is not None}
        if "params" in arguments:
            arguments["params"] = {key: value for key, value in arguments["params"].items() if value is not None}
        for attempt in (1, 2):
            try:
                answer = self._http.request(method, _full(path), **arguments)
                break
            except httpx2.TransportError as error:
                if attempt == 2 or isinstance(error, httpx2.ConnectError | httpx2.UnsupportedProtocol):
                    raise self._unreachable(error) from None
        else:  # pragma: no cover
            raise AssertionError
        self.answered = answer.headers
        self._trace(f"{method} {answer.request.url} -> {answer.status_code} ({len(answer.content)} bytes)")
        return self._parsed(answer)

    def download(
        self, path: str, *, params: Mapping[str, Any] | None = None, patience_seconds: float = 30.0
    ) -> tuple[bytes, str]:
        """The bytes at `path`, and the name that the manager gave them.

        Raises:
            CliError: no answer within `patience_seconds`, or a problem.
        """
        said = {key: value for key, value in (params or {}).items() if value is not None}
        timeout = httpx2.Timeout(patience_seconds, connect=5.0)
        try:
            answer = self._http.get(_full(path), params=said, timeout=timeout, headers={"Accept": "*/*"})
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None
        self._trace(f"GET {answer.request.url} -> {answer.status_code} ({len(answer.content)} bytes)")
        if answer.status_code >= 300:
            self._parsed(answer)
        name = re.search(r'filename="([^"/]+)"', answer.headers.get("content-disposition", ""))
        return answer.content, name[1] if name else ""

    def pages(self, path: str, *, params: Mapping[str, Any] | None = None, limit: int | None = None) -> list[Any]:
        """All items of a list, or the first `limit`."""
        items: list[Any] = []
        cursor = None
        while True:
            page = self.get(path, params={**(params or {}), "cursor": cursor})
            items += page["items"]
            cursor = page.get("next_cursor")
            if not cursor or not page["items"] or (limit is not None and len(items) >= limit):
                return items if limit is None else items[:limit]

    def stream(
        self, path: str, *, params: Mapping[str, Any] | None = None, silence_seconds: float = 60.0
    ) -> Iterator[Any]:
        """The `data` of server-sent events, parsed, until the manager ends the stream.

        Raises:
            CliError: no answer, a problem, or nothing at all (not even a comment) for `silence_seconds`.
        """
        timeout = httpx2.Timeout(silence_seconds, connect=5.0)
        headers = {"Accept": "text/event-stream"}
        try:
            with self._http.stream("GET", _full(path), params=params, headers=headers, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    self._parsed(answer)
                data: list[str] = []
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        data.append(line[5:].removeprefix(" "))
                    elif not line and data:
                        yield _json.loads("\n".join(data))
                        data = []
        except httpx2.TransportError as error:
            raise self._unreachable(error) from None

    def _parsed(self, answer: httpx2.Response) -> Any:
        is_json = "json" in answer.headers.get("content-type", "")
        try:
            body = answer.json() if is_json and answer.content else None
        except ValueError:
            raise CliError("E_ANSWER", "the manager's answer is not JSON", answer.text[:200]) from None
        if answer.status_code >= 400:
            raise from_problem(answer.status_code, body if isinstance(body, dict) else {"detail": answer.text[:200]})
        if answer.status_code >= 300:
            raise CliError("E_ANSWER", f"{self.session.url} sends us elsewhere", answer.headers.get("location", ""))
        return body if is_json else (answer.text or None)

    def _unreachable(self, error: httpx2.TransportError) -> CliError:
        origin = self.session.origins.get("url", "default")
        return CliError(
            "E_UNREACHABLE",
            f"no answer from the manager at {self.session.url}",
            f"{str(error) or type(error).__name__}; the address comes from: {origin}",
            "start it with `flotilla-fleet run`, or name another one with `flotilla login URL --token TOKEN`",
            Exit.UNREACHABLE,
        )


def _full(path: str) -> str:
    return path[1:] if path.startswith("//") else BASE + path


def _headers(session: Session) -> dict[str, str]:
    headers = {"Accept": "application/json", "User-Agent": "flotilla-cli"}
    return {**headers, "Authorization": f"Bearer {session.token}"} if session.token else headers


def _no_url(url: str, why: str) -> CliError:
    return CliError("E_URL", f"{url!r} is not a manager's address", why, "--url http://HOST:8420", Exit.USAGE)
