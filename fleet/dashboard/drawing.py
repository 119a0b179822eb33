"""Numbers to words and to SVG coordinates: made on the server, so that a page needs no script to be read.

I/O: none.
"""

import re
from collections.abc import Sequence
from typing import Final

NONE: Final = "–"  # no value: never a zero, never a guess
_NARROW: Final = "\N{NARROW NO-BREAK SPACE}"  # between thousands
_UNITS: Final = (("GB", 1000**3), ("MB", 1000**2), ("kB", 1000))
_SPACE: Final = "\N{NO-BREAK SPACE}"  # before a unit


def spark(
    values: Sequence[float], width: int = 84, height: int = 22, low: float | None = None, high: float | None = None
) -> str:
    """Path of a sparkline; empty with fewer than two values. Without limits it fills the height."""
    if len(values) < 2:
        return ""
    bottom = min(values) if low is None else low
    top = max(values) if high is None else high
    span, step, pad = (top - bottom) or 1.0, (width - 4) / (len(values) - 1), 2
    points = []
    for index, value in enumerate(values):
        share = min(1.0, max(0.0, (value - bottom) / span)) if top > bottom else 0.5
        points.append(f"{pad + index * step:.1f},{height - pad - share * (height - 2 * pad):.1f}")
    return "M" + "L".join(points)


def level(value: float, low: float, high: float, height: int = 24) -> float:
    """Height at which `value` lies in a sparkline with these limits."""
    return round(height - 2 - (value - low) / ((high - low) or 1.0) * (height - 4), 1)


def ago(seconds: float) -> str:
    """Age in one short word, coarse enough that a page does not change each second."""
    if seconds < 10:
        return "now"
    if seconds < 60:
        return f"{int(seconds // 10) * 10}{_SPACE}s"
    return span(seconds)


def span(seconds: float) -> str:
    """A length of time in its largest unit."""
    if seconds < 60:
        return f"{seconds:.0f}{_SPACE}s"
    if seconds < 3600:
        return f"{seconds // 60:.0f}{_SPACE}min"
    if seconds < 86400:
        return f"{seconds // 3600:.0f}{_SPACE}h"
    return f"{seconds // 86400:.0f}{_SPACE}d"


def part_of(count: float, whole: float) -> str:
    """`8.2 of 11.4 MB`: both in the unit of the whole."""
    unit, divisor = next((item for item in _UNITS if whole >= item[1]), ("B", 1))
    digits = 1 if divisor > 1 else 0
    return f"{count / divisor:.{digits}f} of {whole / divisor:.{digits}f}{_SPACE}{unit}"


def seen(seconds: float) -> str:
    """Age of the last sign of life: below a minute it is `now`."""
    return "now" if seconds < 60 else span(seconds)


def figure(value: float | None, digits: int = 1) -> str:
    """A number with thousands apart, or the dash."""
    return NONE if value is None else f"{value:,.{digits}f}".replace(",", _NARROW)


def milliseconds(value: float | None) -> str | None:
    """A latency with as many digits as it is worth; None stays None."""
    return None if value is None else figure(value, 1 if value >= 1 else 2)


def rate(value: float | None) -> str:
    """A number per second: one digit after the point where it is small."""
    return figure(value, 0 if value is None or value >= 100 else 1)


def percent(share: float | None, digits: int = 0) -> str:
    """A share of 0 to 1 as a percentage, or the dash."""
    return NONE if share is None else f"{share * 100:.{digits}f}{_SPACE}%"


def many(count: int, one: str, more: str | None = None) -> str:
    """`1 device`, `3 devices`."""
    return f"{count}{_SPACE}{one if count == 1 else more or one + 's'}"


def columns(
    counts: Sequence[int], width: float, height: float, top: float
) -> tuple[tuple[float, float, float, float], ...]:
    """Bars (x, y, width, height) of shares; `top` is the share that fills the height."""
    total, step = sum(counts) or 1, width / max(1, len(counts))
    bars = []
    for index, number in enumerate(counts):
        tall = height * (number / total) / (top or 1.0)
        bars.append((round(index * step + 0.8, 2), round(height - tall, 2), round(step - 1.6, 2), round(tall, 2)))
    return tuple(bars)


def initials(name: str) -> str:
    """`MO` for `m.okafor`, `AD` for `admin`."""
    words = [word for word in re.split(r"[\W_]+", name) if word]
    return ("".join(word[0] for word in words[:2]) if len(words) > 1 else name[:2]).upper()
