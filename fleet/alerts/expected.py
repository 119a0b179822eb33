"""Which alerts there should be, by facts that the manager has anyway: what runs out, what fails again and again.

I/O: none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fleet.alerts.states import Kind, Severity
from shared.clock import rfc3339

#: Documents that the manager signs anew by itself, and their life; if that fails, it shows in their last quarter.
RENEWED: Final = {"snapshot": timedelta(days=7), "timestamp": timedelta(days=1)}
MIN_REQUESTS: Final = 20  # fewer say nothing about a rate
ERRORS: Final = " errors"  # end of the subjects of alerts on failing requests
MEMORY: Final = "memory"  # subject of alerts on devices that are short of it


@dataclass(frozen=True, slots=True)
class Wanted:
    """One alert that should be open now."""

    kind: Kind
    scope: str
    subject: str
    severity: Severity
    text: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ending:
    """A token or a signed document that ends."""

    what: str
    begins: datetime | None  # None: not known
    ends: datetime
    remedy: str


def expiring(found: Iterable[Ending], now: datetime, notice: timedelta) -> Iterator[Wanted]:
    """What ends within `notice`, but for what was made for less than that."""
    for one in found:
        left = one.ends - now
        early = RENEWED[one.what] / 4 if one.what in RENEWED else notice
        if left >= early or (one.begins is not None and one.ends - one.begins <= notice):
            continue
        severity: Severity = "critical" if left <= timedelta(0) else "high" if left < early / 4 else "medium"
        when = "has expired" if left <= timedelta(0) else f"expires on {one.ends:%Y-%m-%d %H:%M} UTC"
        body = {"ends": rfc3339(one.ends), "remedy": one.remedy}
        yield Wanted("expiry", "fleet", one.what, severity, f"{one.what} {when}: {one.remedy}", body)


@dataclass(frozen=True, slots=True)
class Served:
    """Requests of one version on one device in the time that is looked back on."""

    device: str
    model: str
    version: str
    requests: int
    failed: int


def failing(found: Iterable[Served], limit: float) -> Iterator[Wanted]:
    """Versions whose requests fail more often than `limit`."""
    for one in found:
        ratio = one.failed / one.requests if one.requests else 0.0
        if one.requests < MIN_REQUESTS or ratio <= limit:
            continue
        release = f"{one.model}@{one.version}"
        what = f"{ratio:.1%} of {one.requests} requests failed, limit {limit:.1%}"
        text = f"{one.model} {one.version} on {one.device}: {what}"
        body = {
            "device": one.device,
            "model": one.model,
            "version": one.version,
            "error_rate": round(ratio, 4),
            "limit": limit,
            "requests": one.requests,
            "failed": one.failed,
            "retraining": False,
        }
        severity: Severity = "high" if ratio > 4 * limit else "medium"
        yield Wanted("performance", f"device:{one.device}", release + ERRORS, severity, text, body)


@dataclass(frozen=True, slots=True)
class Memory:
    """What a device's newest window says of its memory, the highest while it was open."""

    device: str
    used_bytes: int
    total_bytes: int


def crowded(found: Iterable[Memory], limit: float) -> Iterator[Wanted]:
    """Devices that use more of their memory than `limit`."""
    for one in found:
        ratio = one.used_bytes / one.total_bytes if one.total_bytes > 0 else 0.0
        if ratio <= limit:
            continue
        text = f"{one.device} uses {ratio:.0%} of its {one.total_bytes / 2**30:.1f} GiB of memory, limit {limit:.0%}"
        body = {
            "device": one.device,
            "memory_ratio": round(ratio, 4),
            "limit": limit,
            "memory_used_bytes": one.used_bytes,
            "memory_total_bytes": one.total_bytes,
            "retraining": False,
        }
        severity: Severity = "high" if ratio > (1 + limit) / 2 else "medium"
        yield Wanted("performance", f"device:{one.device}", MEMORY, severity, text, body)


@dataclass(frozen=True, slots=True)
class Progress:
    """How a rollout that goes on does."""

    rollout: str
    model: str
    version: str
    failed: int
    devices: int


def stumbling(found: Iterable[Progress]) -> Iterator[Wanted]:
    """Rollouts that go on although devices failed."""
    for one in found:
        if not one.failed:
            continue
        text = (
            f"{one.model} {one.version}: {one.failed} of {one.devices} devices failed in {one.rollout}, which goes on"
        )
        body = {
            "rollout": one.rollout,
            "model": one.model,
            "version": one.version,
            "failed": one.failed,
            "devices": one.devices,
        }
        yield Wanted("deployment", "fleet", f"{one.rollout} {one.model}@{one.version}", "medium", text, body)
