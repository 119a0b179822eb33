"""What is asked of the manager, as values; nothing is sent here.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias
from urllib.parse import quote

#: A JSON document, parsed.
Document: TypeAlias = dict[str, Any]
BASE: Final = "/api/v1"


@dataclass(frozen=True, slots=True)
class Call:
    """One request. Paths are below `/api/v1`, or absolute when they begin with `//`."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)  # None values are left out
    json: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_path(self) -> str:
        """From the root of the manager."""
        return self.path[1:] if self.path.startswith("//") else BASE + self.path

    def page(self, cursor: str | None) -> "Call":
        """The same list from `cursor` on."""
        return replace(self, params={**self.params, "cursor": cursor})

    def arguments(self) -> dict[str, Any]:
        """For httpx: only what is given."""
        params = {key: value for key, value in self.params.items() if value is not None}
        given = {"params": params, "json": self.json, "content": self.content, "headers": self.headers}
        return {name: value for name, value in given.items() if value not in (None, {})}


def get(path: str, **params: Any) -> Call:
    """Read `path`."""
    return Call("GET", path, params=params)


def post(path: str, json: Any = None, **params: Any) -> Call:
    """Do something at `path`; the transport adds an Idempotency-Key."""
    return Call("POST", path, params=params, json=json)


def under(*parts: str) -> str:
    """A path of quoted `parts`: `/models/digits/versions`."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def given(**values: Any) -> Document:
    """A body of what is not None."""
    return {key: value for key, value in values.items() if value is not None}


class EventLines:
    """Lines of `text/event-stream` to the texts of events."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def feed(self, line: str) -> str | None:
        """The data of the event that ends with `line`, if one does."""
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        elif not line and self._data:
            text, self._data = "\n".join(self._data), []
            return text
        return None
