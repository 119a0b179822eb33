"""The one filter grammar: of devices in CLI, REST and targets of rollouts, and of the other lists of the API.

    filter := any            any := all ("or" all)*            all := one+
    one := ("not" | "-") one | "(" any ")" | key ":" value | word

`site:hall-3 online:true` asks for both; a bare word is looked for in id and name; `*` stands for any characters; a
value with blanks, colons or parentheses stands in double quotes. What cannot be read is an error that names the place.

I/O: none.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from shared.errors import BadInputError

MAX_LENGTH: Final = 500
_MAX_DEPTH: Final = 20
KEYS: Final = ("id", "name", "site", "hardware", "lifecycle", "agent")
MAPPINGS: Final = ("label", "serving")
_INNER: Final = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_ANY_KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_TOKEN: Final = re.compile(r'\s*(?:(?P<mark>[()])|(?P<word>-?(?:"[^"]*"|[^\s()"])+))')


class FilterError(BadInputError):
    """A filter that cannot be read. The detail shows the place."""

    code = "E_FILTER"
    default_remedy = (
        "use id, name, site, hardware, lifecycle, agent, online:true, online:false, label.KEY or serving.MODEL, each "
        "as key:value, with `or`, `not` and parentheses; * stands for any characters"
    )


@dataclass(frozen=True, slots=True)
class Word:
    """Id or name contains `text`."""

    text: str


@dataclass(frozen=True, slots=True)
class Is:
    """`key` (of the mapping `key`, the entry `inner`) is `value`, in which `*` stands for any characters."""

    key: str
    value: str
    inner: str | None = None


@dataclass(frozen=True, slots=True)
class Not:
    inner: "Filter"


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Any:
    parts: tuple["Filter", ...]


Filter: TypeAlias = Word | Is | Not | All | Any


class Traits(NamedTuple):
    """What a filter looks at in one device."""

    id: str
    name: str
    site: str
    hardware: str
    lifecycle: str
    agent: str
    online: bool
    label: Mapping[str, str]
    serving: Mapping[str, str]


class _Token(NamedTuple):
    text: str
    at: int


def parse(text: str, *, anything: bool = False) -> Filter:
    """What `text` asks for; an empty text asks for all. With `anything` every key is taken: for other lists.

    Raises:
        FilterError: it cannot be read.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(f"a filter of {len(text)} characters; the limit is {MAX_LENGTH}")
    reader = _Reader(text, anything=anything)
    found = reader.any(0) if reader.next() else All(())
    if (left := reader.next()) is not None:
        raise reader.error("this parenthesis closes nothing", left.at)
    return found


def matches(asked: Filter, device: Traits) -> bool:
    """True when the device is one that `asked` asks for."""
    match asked:
        case Word(text):
            return alike(f"*{text}*", device.id) or alike(f"*{text}*", device.name)
        case Is("online", value):
            return device.online is (value == "true")
        case Is(key, value, None):
            return alike(value, getattr(device, key))
        case Is(key, value, inner):
            return alike(value, getattr(device, key).get(inner))
        case Not(inner):
            return not matches(inner, device)
        case All(parts):
            return all(matches(part, device) for part in parts)
        case Any(parts):
            return any(matches(part, device) for part in parts)


def alike(value: str, found: str | None) -> bool:
    """True when `found` is `value`, in which `*` stands for any characters."""
    if found is None:
        return False
    pattern = ".*".join(re.escape(part) for part in value.split("*"))
    return re.fullmatch(pattern, found, re.DOTALL) is not None


def keys(asked: Filter) -> frozenset[str]:
    """Every key that a filter names."""
    match asked:
        case Word():
            return frozenset()
        case Is(key, _, inner):
            return frozenset({key if inner is None else f"{key}.{inner}"})
        case Not(inner):
            return keys(inner)
        case All(parts) | Any(parts):
            return frozenset(key for part in parts for key in keys(part))


class _Reader:
    """Tokens of one text, looked at one ahead."""

    def __init__(self, text: str, *, anything: bool) -> None:
        self._text, self._anything = text, anything
        self._tokens = tuple(self._split())
        self._place = 0

    def error(self, what: str, at: int) -> FilterError:
        """`what`, and the text with a mark below the place."""
        return FilterError(f"{what}, at character {at + 1}: {self._text[:at]}⟶{self._text[at:]}")

    def _split(self) -> Iterator[_Token]:
        at, end = 0, len(self._text.rstrip())
        while at < end:
            found = _TOKEN.match(self._text, at)
            if found is None:
                raise self.error("this quotation mark is not closed", self._text.index('"', at))
            kind = found.lastgroup or "word"
            yield _Token(found[kind], found.start(kind))
            at = found.end()

    def next(self) -> _Token | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self) -> _Token | None:
        found = self.next()
        self._place += found is not None
        return found

    def any(self, depth: int) -> Filter:
        parts = [self.all(depth)]
        while (token := self.next()) is not None and token.text.lower() == "or":
            self._take()
            parts.append(self.all(depth))
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def all(self, depth: int) -> Filter:
        parts = [self.one(depth)]
        while (token := self.next()) is not None and token.text != ")" and token.text.lower() != "or":
            if token.text.lower() == "and":
                self._take()
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def one(self, depth: int) -> Filter:
        token = self._take()
        if token is None:
            raise self.error("something is missing here", len(self._text))
        if depth > _MAX_DEPTH:
            raise self.error(f"more than {_MAX_DEPTH} levels", token.at)
        match token.text.lower():
            case "not" | "-":
                return Not(self.one(depth + 1))
            case "(":
                return self._group(token, depth)
            case ")" | "or" | "and":
                raise self.error(f"something is missing before {token.text!r}", token.at)
            case _ if token.text.startswith("-"):
                return Not(self._term(_Token(token.text[1:], token.at + 1)))
            case _:
                return self._term(token)

    def _group(self, opened: _Token, depth: int) -> Filter:
        found = self.any(depth + 1)
        if (closing := self._take()) is None or closing.text != ")":
            raise self.error("this parenthesis is not closed", opened.at)
        return found

    def _term(self, token: _Token) -> Filter:
        key, colon, value = token.text.partition(":")
        if not colon or '"' in key:
            return Word(token.text.replace('"', ""))
        value, outer, inner = value.replace('"', ""), *key.partition(".")[::2]
        if not value:
            raise self.error(f"{key!r} without a value", token.at)
        if self._anything and _ANY_KEY.fullmatch(key):
            return Is(key, value)
        if key in KEYS or (key == "online" and value in {"true", "false"}):
            return Is(key, value)
        if outer in MAPPINGS and _INNER.fullmatch(inner):
            return Is(outer, value, inner)
        if key == "online":
            raise self.error("online is true or false", token.at + len("online:"))
        raise self.error(f"there is no filter {key[:40]!r}", token.at)
