"""What a page is made from: rows of the database, cut down to what the views read.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fleet.devices.liveness import Patience
from shared.sketches import Latency

#: Windows kept for one device: what a sparkline shows.
WINDOWS_SHOWN: Final = 40
#: States in which nothing more happens to a rollout.
OVER: Final = frozenset({"completed", "rolled-back", "aborted", "failed"})

_MINUTE: Final = Patience(timedelta(seconds=60), datetime(1970, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot, as the device reported it. `state` is a word of `agent.update.slots`."""

    slot: str
    state: str
    model: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A row of `devices`."""

    id: str
    name: str
    site: str
    hardware: str
    lifecycle: str
    online: bool
    seen_at: datetime | None
    slots: tuple[Slot, ...] = ()
    serving: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    agent_version: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """A row of `windows`. Ratios are 0 to 1; None is what the device did not report."""

    device: str
    model: str
    version: str
    start: datetime  # device clock
    end: datetime  # device clock
    received_at: datetime
    requests: int
    failed: int
    latency: Latency
    p95_ms: float | None
    cpu_ratio: float | None = None
    gpu_ratio: float | None = None
    temperature_celsius: float | None = None
    restarts: int = 0

    @property
    def length(self) -> timedelta:
        """How long the device counted."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Drift:
    """A row of `drift`: the newest verdict on one feature."""

    scope: str
    model: str
    version: str
    feature: str
    state: str
    samples: int
    psi: float | None
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of `alerts` that is not resolved."""

    id: str
    kind: str
    scope: str
    subject: str
    severity: str
    state: str
    text: str
    opened_at: datetime
    acknowledged_by: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A row of `events`."""

    sequence: int
    at: datetime
    kind: str
    level: str
    subject: str
    text: str
    rollout: str | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A row of `deployments`."""

    rollout: str
    device: str
    wave: int
    state: str
    reason: str | None
    detail: str | None
    since: datetime
    previous: str | None
    fetched_bytes: int | None = None
    total_bytes: int | None = None
    recalled: bool = False  # it was told to go back; `state` then tells of the way back
    outcome: str | None = None  # how the way forward stood at that time


@dataclass(frozen=True, slots=True)
class Rollout:
    """A row of `rollouts`; `body` is the engine's own document."""

    id: str
    model: str
    version: str
    strategy: str
    state: str
    reason: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Release:
    """A row of `releases`, without its bytes."""

    model: str
    version: str
    counter: int
    state: str
    withdrawn: str | None = None  # why nobody gets it any more


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the settings draw a line."""

    psi: float = 0.2
    latency_ms: float = 1000.0
    error_ratio: float = 0.05
    patience: Patience = _MINUTE


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that the Fleet page shows, at `now`."""

    now: datetime
    devices: Sequence[Device] = ()
    windows: Mapping[str, Sequence[Window]] = field(default_factory=dict)  # device -> oldest first
    drift: Sequence[Drift] = ()
    alerts: Sequence[Alert] = ()
    failing: Sequence[tuple[str, str]] = ()  # channels that fail, and why
    events: Sequence[Event] = ()  # newest first
    rollouts: Sequence[Rollout] = ()  # newest first
    deployments: Sequence[Deployment] = ()  # of rollouts that are not over
    releases: Sequence[Release] = ()
    limits: Limits = Limits()
