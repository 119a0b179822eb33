"""What a report is made from: sums out of the store, before anything is judged.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fleet.reports.comparing import Compared, Device
from fleet.reports.content import Alert, Performance
from fleet.reports.span import Columns
from fleet.telemetry.layout import Layout
from fleet.telemetry.vectors import Calendar
from fleet.telemetry.verdict import Rule


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about. `scope`: fleet, site:NAME, device:NAME."""

    model: str
    version: str
    scope: str
    begin: datetime
    end: datetime
    columns: Columns
    calendar: Calendar


@dataclass(frozen=True, slots=True)
class Member:
    """A device that serves the release, or sent something about it."""

    id: str
    site: str
    seen_at: datetime | None
    serves: bool
    shed: int  # telemetry windows that it threw away since it was set up


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about a subject."""

    subject: Subject
    rule: Rule
    layout: Layout
    whole: Compared  # the scope as one
    sites: Mapping[str, Compared]
    devices: Sequence[Device]
    members: Sequence[Member]
    alerts: Sequence[Alert]
    alerted: Mapping[str, Sequence[tuple[str, Alert]]]  # scope -> (feature, alert)
    states: Mapping[str, str]  # feature -> its verdict now, in this scope
    performance: Performance
    requests: int
    failed: int
    others: Sequence[str] = field(default_factory=tuple)
