"""The manager, as far as publishing needs it: `fleet.releases.publish.Door` over REST.

I/O: none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fleet.cli.errors import CliError, Exit


class ReleaseDoor:
    """`request` is `Api.request`: method, path, arguments -> parsed JSON or text."""

    def __init__(self, request: Callable[..., Any]) -> None:
        self._request = request

    def version(self, model: str, version: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._request("GET", f"/models/{quote(model)}/versions/{quote(version)}")
        except CliError as error:
            if error.exit == Exit.NOT_FOUND:
                return None
            raise
        return found

    def trust(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._request("GET", "/trust")
        return found

    def give_trust(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """`POST /trust`: the first or the next root with what is signed for it."""
        found: Mapping[str, Any] = self._request("POST", "/trust", json=body)
        return found

    def root(self, version: int) -> bytes:
        return json.dumps(self._request("GET", f"//metadata/{version}.root.json")).encode()

    def missing(self, ids: Sequence[str]) -> list[str]:
        found: list[str] = self._request("POST", "/chunks/missing", json={"ids": list(ids)})["missing"]
        return found

    def upload(self, name: str, chunk: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        self._request("PUT", f"/chunks/{name}", content=chunk, headers=headers)

    def submit(self, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._request("POST", f"/models/{quote(model)}/versions", json=body)
        return found
