"""What a report says: values that renderers draw and nobody computes with any more.

Every number comes with what it means; lists that were cut say how many are left out.

I/O: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fleet.telemetry.figures import Figure

#: good: nothing to do; watch: look again; act: somebody should look now; unknown: too little is known.
Level = Literal["act", "watch", "unknown", "good"]
LEVELS: Final[tuple[Level, ...]] = ("act", "watch", "unknown", "good")
#: One cell of a strip: nothing came, too little, as the reference, and the four severities.
Cell = Literal["none", "few", "ok", "low", "medium", "high", "critical"]
CELLS: Final[tuple[Cell, ...]] = ("none", "few", "ok", "low", "medium", "high", "critical")


@dataclass(frozen=True, slots=True)
class Number:
    """One number: `name` is its stable name in JSON, `text` how it is written, `meaning` one or two sentences."""

    name: str
    label: str
    value: float | int | None
    text: str
    meaning: str
    level: Level = "good"


@dataclass(frozen=True, slots=True)
class Point:
    """One column of a feature's timeline."""

    start: datetime
    samples: int
    psi: float | None  # corrected for chance; None without samples
    limit: float | None  # the smallest PSI that so many samples can tell from chance
    cell: Cell
    alarm: bool  # an alert about this feature was open then


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of the model, in the scope of the report."""

    name: str
    group: str
    kind: str
    level: Level
    text: str
    numbers: tuple[Number, ...]
    edges: tuple[float, ...]
    reference: tuple[int, ...]
    live: tuple[int, ...]
    timeline: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a strip: one site or device."""

    name: str
    cells: tuple[Cell, ...]
    alarms: frozenset[int]  # columns in which an alert of its own was open
    samples: int
    worst: str  # the feature that moved most, and by how much
    psi: float | None


@dataclass(frozen=True, slots=True)
class Strip:
    """Lines over the same columns, the worst first."""

    title: str
    rows: tuple[Row, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert about the model in this time."""

    id: str
    kind: str
    scope: str
    severity: str
    state: str
    text: str
    opened_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Silent:
    """A device that should have reported, and when it last did anything."""

    device: str
    seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the time and of the fleet the numbers are made from."""

    numbers: tuple[Number, ...]
    silent: tuple[Silent, ...]
    silent_more: int


@dataclass(frozen=True, slots=True)
class Performance:
    """How well and how fast it answered. Figures of any measure, each with its own sentence."""

    figures: tuple[Figure, ...]
    slower: tuple[str, ...]  # devices that became slower for certain
    note: str
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report."""

    model: str
    version: str
    scope: str
    where: str  # the scope in words
    since: datetime
    until: datetime
    made_at: datetime
    column_seconds: float
    level: Level
    headline: str
    advice: str
    others: tuple[str, ...]  # versions with data in this time that it is not about
    cuts: tuple[tuple[str, float], ...]  # severity -> PSI from which on, smallest first
    numbers: tuple[Number, ...]
    features: tuple[Feature, ...]
    features_more: int
    columns: tuple[datetime, ...]
    strips: tuple[Strip, ...]
    alerts: tuple[Alert, ...]
    alerts_more: int
    performance: Performance
    coverage: Coverage


def gravest(levels: Sequence[Level]) -> Level:
    """The one that asks most of a person; `good` of none."""
    return min(levels, key=LEVELS.index, default="good")
