"""`filter`, `order`, `limit` and `cursor` for every list of the API: what a list does not do itself is done here.

    GET /api/v1/rollouts?filter=model:digits not state:completed&order=-devices&limit=20

A list that pages by itself is asked page after page; the cursor given out says where in which page to go on. With
`order` the whole list is read, at most `MOST` items of it. Devices have their own filter and order, in the database.

I/O: none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from fleet.api.context import MAX_LIMIT, decode_cursor, encode_cursor
from fleet.api.problems import Problem
from fleet.devices import filtering
from shared.errors import BadInputError

if TYPE_CHECKING:
    from fleet.api.asgi import App, Message, Receive, Scope, Send

#: A list longer than this is not sorted: ask for less of it with `filter` or its own parameters.
MOST: Final = 20_000
DEFAULT_LIMIT: Final = 100
_PREFIX: Final = "/api/v1/"
#: It does all of it in the database, for a hundred thousand of them.
_OWN: Final = frozenset({"/api/v1/devices"})
#: These have no pages: one answer is the whole list.
_WHOLE: Final = ("/api/v1/drift", "/api/v1/baselines", "/api/v1/channels")
_WHOLE_END: Final = "/aliases"
#: A list that is asked for as a stream has no end.
_STREAMS: Final = (b"text/event-stream", b"application/jsonl")
_PAGED: Final = (
    "rollouts", "schedules", "alerts", "silences", "deliveries", "users", "tokens", "invites", "models", "audit",
    "events",
)  # fmt: skip
_NESTED: Final = ("/versions", "/verdicts", "/aliases")
#: What every list takes, for the OpenAPI document.
LIST_PARAMETERS: Final[Sequence[Mapping[str, Any]]] = tuple(
    {"name": name, "in": "query", "required": False, "description": words, "schema": schema}
    for name, words, schema in (
        ("filter", "such as `state:running not model:digits*`; see docs/filters.md", {"type": "string"}),
        ("order", "a field of the items; `-` in front for down", {"type": "string"}),
        ("limit", "at most so many", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
        ("cursor", "`next_cursor` of the page before", {"type": "string"}),
    )
)


def is_list(path: str) -> bool:
    """True when a GET of this path answers with items."""
    whole = path in _WHOLE or path in _OWN or path in {_PREFIX + name for name in _PAGED}
    return whole or (path.startswith((_PREFIX + "models/", _PREFIX + "rollouts/")) and path.endswith(_NESTED))


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked of a list."""

    asked: filtering.Filter | None
    order: str
    limit: int
    cursor: Any  # [page, items of it that were seen], or items of the whole list that were seen
    rest: Mapping[str, str]  # the list's own parameters
    whole: bool  # the list answers at once


def wish_of(path: str, query: str) -> Wish | None:
    """What is to be done here; None when the list does all that is asked by itself, or this is no list.

    Raises:
        FilterError, BadInputError: it cannot be read.
    """
    said = dict(parse_qsl(query, keep_blank_values=True))
    whole = path in _WHOLE or (path.startswith("/api/v1/models/") and path.endswith(_WHOLE_END))
    ours = {"filter", "order", *(("limit", "cursor") if whole else ())}
    if path in _OWN or not is_list(path) or not ours & said.keys():
        return None
    cursor = decode_cursor(said.get("cursor"))
    if cursor is not None and not _readable(cursor):
        raise BadInputError("this cursor belongs to another list", remedy="start again without `cursor`")
    return Wish(
        asked=filtering.parse(said["filter"], anything=True) if said.get("filter") else None,
        order=said.get("order", ""),
        limit=_limit(said.get("limit")),
        cursor=cursor,
        rest={key: value for key, value in said.items() if key not in ("filter", "order", "limit", "cursor")},
        whole=whole,
    )


def _readable(cursor: Any) -> bool:
    if isinstance(cursor, int) and not isinstance(cursor, bool):
        return cursor >= 0
    return (
        isinstance(cursor, list)
        and len(cursor) == 2
        and isinstance(cursor[0], str | None)
        and isinstance(cursor[1], int)
        and cursor[1] >= 0
    )


def _limit(said: str | None) -> int:
    if said is None:
        return DEFAULT_LIMIT
    if not said.isdigit() or not 1 <= int(said) <= MAX_LIMIT:
        raise BadInputError(f"limit: must be a number from 1 to {MAX_LIMIT}")
    return int(said)


def fits(asked: filtering.Filter | None, item: Mapping[str, Any]) -> bool:
    """True when an item of a list is one that is asked for. A bare word is looked for in all its texts."""
    match asked:
        case None:
            return True
        case filtering.Word(text):
            return any(filtering.alike(f"*{text}*", value) for value in _texts(item))
        case filtering.Is(key, value, inner):
            found = _at(item, key if inner is None else f"{key}.{inner}")
            return any(filtering.alike(value, one) for one in _told(found))
        case filtering.Not(inner):
            return not fits(inner, item)
        case filtering.All(parts):
            return all(fits(part, item) for part in parts)
        case filtering.Any(parts):
            return any(fits(part, item) for part in parts)


def _check_fields(asked: filtering.Filter | None, items: Sequence[Mapping[str, Any]]) -> None:
    """Return if the first items of the list have what the filter looks at; of an empty list nothing is known.

    Raises:
        FilterError: none of them has it.
    """
    unknown = (
        filtering.keys(asked) - {key for key in filtering.keys(asked) for item in items if _begins(item, key)}
        if asked
        else ()
    )
    if items and unknown:
        known = ", ".join(sorted({key for item in items for key in item}))
        raise filtering.FilterError(
            f"there is nothing called {min(unknown)[:40]!r} in this list", remedy=f"use one of: {known}"
        )


def _begins(item: Mapping[str, Any], key: str) -> bool:
    """The field is there; which entries it has may differ from item to item."""
    return key.split(".")[0] in item


def ordered(items: Sequence[Mapping[str, Any]], order: str) -> Sequence[Mapping[str, Any]]:
    """By one field, `-` in front for down; what lacks it comes last.

    Raises:
        BadInputError: no item has this field.
    """
    key, down = order.removeprefix("-"), order.startswith("-")
    if items and not any(_has(item, key) for item in items):
        known = ", ".join(sorted(items[0]))
        raise BadInputError(f"cannot order by {key[:40]!r}", remedy=f"order by one of: {known}; `-` in front for down")
    there = [item for item in items if _at(item, key) is not None]
    lacking = [item for item in items if _at(item, key) is None]
    return [*sorted(there, key=lambda item: _rank(_at(item, key)), reverse=down), *lacking]


def _rank(value: Any) -> tuple[int, float, str]:
    """Numbers as numbers, before texts."""
    if isinstance(value, bool | int | float):
        return (0, float(value), "")
    return (1, 0.0, value if isinstance(value, str) else json.dumps(value, sort_keys=True))


def _has(item: Mapping[str, Any], key: str) -> bool:
    found: Any = item
    for step in key.split("."):
        if not isinstance(found, dict) or step not in found:
            return False
        found = found[step]
    return True


def _at(item: Any, key: str) -> Any:
    """The field, or the entry of a field as in `labels.line`; None without."""
    found = item
    for step in key.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _told(value: Any) -> Sequence[str]:
    """The texts that a filter compares with."""
    match value:
        case None:
            return ()
        case bool():
            return ("true" if value else "false",)
        case list():
            return [text for one in value for text in _told(one)]
        case dict():
            return ()
        case _:
            return (str(value),)


def _texts(item: Mapping[str, Any]) -> Sequence[str]:
    return [value for value in item.values() if isinstance(value, str)]


class Listing:
    """A layer around the routes."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        if any(kind in dict(scope.get("headers", ())).get(b"accept", b"") for kind in _STREAMS):
            await self._app(scope, receive, send)
            return
        try:
            wish = wish_of(scope["path"], scope.get("query_string", b"").decode("latin-1"))
        except BadInputError as error:
            raise _problem(error) from None
        if wish is None:
            await self._app(scope, receive, send)
            return
        await self._answer(wish, scope, receive, send)

    async def _answer(self, wish: Wish, scope: Scope, receive: Receive, send: Send) -> None:
        first = await self._ask(wish, scope, receive, _page(wish))
        if not first.is_list:
            await first.release(send)
            return
        try:
            items, cursor = await self._found(wish, first, scope, receive)
        except BadInputError as error:
            raise _problem(error) from None
        next_cursor = None if cursor is None else encode_cursor(cursor)
        await first.release(send, {**first.document, "items": items, "next_cursor": next_cursor})

    async def _found(
        self, wish: Wish, first: _Page, scope: Scope, receive: Receive
    ) -> tuple[Sequence[Mapping[str, Any]], Any]:
        _check_fields(wish.asked, first.document["items"])
        if wish.order or wish.whole:
            items = [item for item in await self._all(wish, first, scope, receive) if fits(wish.asked, item)]
            items = list(ordered(items, wish.order)) if wish.order else items
            begin = wish.cursor if isinstance(wish.cursor, int) else 0
            end = begin + wish.limit
            return items[begin:end], end if end < len(items) else None
        at, seen = wish.cursor if isinstance(wish.cursor, list) else (None, 0)
        found: list[Mapping[str, Any]] = []
        page = first
        while True:
            for place, item in enumerate(page.document["items"][seen:], seen):
                if len(found) == wish.limit:
                    return found, [at, place]
                if fits(wish.asked, item):
                    found.append(item)
            at, seen = page.document.get("next_cursor"), 0
            if at is None:
                return found, None
            page = await self._ask(wish, scope, receive, at)

    async def _all(self, wish: Wish, first: _Page, scope: Scope, receive: Receive) -> Sequence[Mapping[str, Any]]:
        items, page = list(first.document["items"]), first
        while (cursor := page.document.get("next_cursor")) is not None:
            if len(items) >= MOST:
                raise BadInputError(
                    f"this list has more than {MOST} items, too many to order", remedy="ask for it without `order`"
                )
            page = await self._ask(wish, scope, receive, cursor)
            items += page.document["items"]
        return items

    async def _ask(self, wish: Wish, scope: Scope, receive: Receive, cursor: str | None) -> _Page:
        query = dict(wish.rest)
        if not wish.whole:
            query |= {"limit": str(MAX_LIMIT)} | ({"cursor": cursor} if cursor is not None else {})
        page = _Page()
        await self._app({**scope, "query_string": urlencode(query).encode()}, receive, page)
        return page


def _page(wish: Wish) -> str | None:
    return wish.cursor[0] if isinstance(wish.cursor, list) else None


class _Page:
    """One answer of the list, held back."""

    def __init__(self) -> None:
        self._start: Message = {}
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._body += message.get("body", b"")

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(bytes(self._body))
        return found

    @property
    def is_list(self) -> bool:
        headers = dict(self._start["headers"])
        if self._start["status"] != 200 or not headers.get(b"content-type", b"").startswith(b"application/json"):
            return False
        found = json.loads(bytes(self._body))
        return isinstance(found, dict) and isinstance(found.get("items"), list)

    async def release(self, send: Send, document: Mapping[str, Any] | None = None) -> None:
        body = bytes(self._body) if document is None else json.dumps(document).encode()
        headers = {**dict(self._start["headers"]), b"content-length": str(len(body)).encode()}
        await send({**self._start, "headers": list(headers.items())})
        await send({"type": "http.response.body", "body": body})


def _problem(error: BadInputError) -> Problem:
    return Problem(422, error.code, "Not acceptable as it stands", error.detail, error.remedy)
