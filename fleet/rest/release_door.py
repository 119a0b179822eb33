"""The manager, as far as publishing needs it: `fleet.releases.publish.Door` over REST.

I/O: none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleet.rest.calls import Call, get, post, under
from fleet.rest.errors import ProblemError


class ReleaseDoor:
    """`send` is `Transport.send`, or what maps its errors: a call to parsed JSON or text."""

    def __init__(self, send: Callable[[Call], Any]) -> None:
        self._send = send

    def version(self, model: str, version: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._send(get(under("models", model, "versions", version)))
        except ProblemError as error:
            if error.status == 404:
                return None
            raise
        return found

    def trust(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._send(get("/trust"))
        return found

    def give_trust(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """`POST /trust`: the first or the next root with what is signed for it."""
        found: Mapping[str, Any] = self._send(post("/trust", body))
        return found

    def root(self, version: int) -> bytes:
        return json.dumps(self._send(get(f"//metadata/{version}.root.json"))).encode()

    def missing(self, ids: Sequence[str]) -> list[str]:
        found: list[str] = self._send(post("/chunks/missing", {"ids": list(ids)}))["missing"]
        return found

    def upload(self, name: str, chunk: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        self._send(Call("PUT", under("chunks", name), content=chunk, headers=headers))

    def submit(self, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._send(post(under("models", model, "versions"), body))
        return found
