"""Values in the words and units that people read.

I/O: none.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from fleet.cli.errors import CliError, Exit

_STEPS: Final = ((86400 * 2, 86400, "d"), (3600 * 2, 3600, "h"), (60 * 2, 60, "min"), (0, 1, "s"))
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def ago(moment: str | None, now: datetime) -> str:
    """`3 min ago` for an RFC 3339 time; `never` for None."""
    if not moment:
        return "never"
    return f"{span((now - instant(moment)).total_seconds())} ago"


def instant(text: str) -> datetime:
    """The aware time that `text` names."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def span(seconds: float) -> str:
    """`42 s`, `17 min`, `5 h`, `9 d`."""
    for limit, unit, word in _STEPS:
        if seconds >= limit:
            return f"{int(seconds // unit)} {word}"
    return "0 s"


def size(count: float | None) -> str:
    """`11.4 MB` for a number of bytes."""
    if count is None:
        return "–"
    for word in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {word}" if word == "B" else f"{count:.1f} {word}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(text: str) -> timedelta:
    """The time that `90s`, `30m`, `12h`, `7d` or `2w` names.

    Raises:
        CliError: another form.
    """
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if not match or int(match[1]) == 0:
        raise CliError("E_USAGE", f"{text!r} is not a duration", "", "use one such as 90s, 30m, 12h, 7d", Exit.USAGE)
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def pairs(words: Iterable[str]) -> dict[str, str]:
    """`{"site": "gate"}` for `["site=gate"]`.

    Raises:
        CliError: a word without `=`.
    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CliError("E_USAGE", f"{word!r} is not KEY=VALUE", "", "such as site=main-gate", Exit.USAGE)
        found[key] = value
    return found
