"""Requests to the manager for commands: JSON in, JSON out, problems as `CliError`.

I/O: network.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fleet.cli.errors import CliError, Exit, from_problem
from fleet.cli.session import Session
from fleet.rest.calls import Call
from fleet.rest.errors import AddressError, AnswerError, ProblemError, UnreachableError
from fleet.rest.transport import Transport


class Api:
    """The manager of one session. Paths are below `/api/v1`, or absolute when they begin with `//`."""

    def __init__(self, session: Session, *, trace: Callable[[str], None] = lambda _: None) -> None:
        self.session = session
        try:
            self._transport = Transport(session.url, session.token, program="flotilla-cli", trace=trace)
        except AddressError as error:
            why = error.detail.partition("address: ")[2]
            raise CliError(
                "E_URL", f"{session.url!r} is not a manager's address", why, "--url http://HOST:8420", Exit.USAGE
            ) from None

    @property
    def answered(self) -> Mapping[str, str]:
        """Headers of the newest answer."""
        return self._transport.answered

    def close(self) -> None:
        """End the connections."""
        self._transport.close()

    def get(self, path: str, *, params: Mapping[str, Any] | None = None) -> Any:
        """The document at `path`."""
        return self.request("GET", path, params=params)

    def post(
        self, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None, content: bytes | None = None
    ) -> Any:
        """What the manager answers. Sent with an Idempotency-Key: a lost answer is asked for again once."""
        return self.request("POST", path, json=json, params=params, content=content)

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

    def request(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, **said: Any) -> Any:
        """Parsed JSON, the text of another type, or None for an empty answer.

        Raises:
            CliError: no answer, or a problem; its exit code tells which.
        """
        given = {name: value for name, value in said.items() if value is not None}
        try:
            return self.send(Call(method, path, params=params or {}, **given))
        except ProblemError as error:
            raise from_problem(error.status, error.problem) from None

    def send(self, call: Call) -> Any:
        """As `request`, for code that handles problems itself.

        Raises:
            ProblemError: the manager refused.
            CliError: no answer, or not that of a manager.
        """
        try:
            return self._transport.send(call)
        except UnreachableError as error:
            raise self._unreachable(error) from None
        except AnswerError as error:
            raise CliError(error.code, error.detail, "", error.remedy, Exit.UNREACHABLE) from None

    def download(
        self, path: str, *, params: Mapping[str, Any] | None = None, patience_seconds: float = 30.0
    ) -> tuple[bytes, str]:
        """The bytes at `path`, and the name that the manager gave them.

        Raises:
            CliError: no answer within `patience_seconds`, or a problem.
        """
        call = Call("GET", path, params=params or {}, headers={"Accept": "*/*"})
        try:
            return self._transport.download(call, patience_seconds=patience_seconds)
        except ProblemError as error:
            raise from_problem(error.status, error.problem) from None
        except UnreachableError as error:
            raise self._unreachable(error) from None

    def save(self, call: Call, write: Callable[[bytes], object]) -> None:
        """Give `write` the bytes that answer `call`, however many, as they come.

        Raises:
            CliError: no answer, it broke off, or a problem.
        """
        try:
            self._transport.save(call, write)
        except ProblemError as error:
            raise from_problem(error.status, error.problem) from None
        except UnreachableError as error:
            raise self._unreachable(error) from None

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
        try:
            yield from self._transport.stream(Call("GET", path, params=params or {}), silence_seconds=silence_seconds)
        except ProblemError as error:
            raise from_problem(error.status, error.problem) from None
        except UnreachableError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: UnreachableError) -> CliError:
        origin = self.session.origins.get("url", "default")
        return CliError(
            "E_UNREACHABLE",
            f"no answer from the manager at {self.session.url}",
            f"{error.why}; the address comes from: {origin}",
            "start it with `flotilla-fleet run`, or name another one with `flotilla login URL --token TOKEN`",
            Exit.UNREACHABLE,
        )
