"""Which releases nothing needs any more, and why the others stay.

I/O: none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Kept:
    """A published version, as retention sees it."""

    model: str
    version: str
    counter: int
    published_at: datetime
    needs: tuple[str, ...] = ()  # who holds it: a slot, an alias, a rollout, a schedule, a baseline


@dataclass(frozen=True, slots=True)
class Verdict:
    """Goes or stays, and why."""

    model: str
    version: str
    goes: bool
    why: str


def verdicts(releases: Iterable[Kept], now: datetime, retention: timedelta) -> tuple[Verdict, ...]:
    """One for each release, in the order given. The newest version of a model always stays."""
    known = tuple(releases)
    newest: Mapping[str, int] = {
        model: max(one.counter for one in known if one.model == model) for model in {one.model for one in known}
    }
    return tuple(_verdict(one, newest[one.model], now, retention) for one in known)


def _verdict(one: Kept, newest: int, now: datetime, retention: timedelta) -> Verdict:
    age = now - one.published_at
    if one.needs:
        more = f" and {len(one.needs) - 1} more" if len(one.needs) > 1 else ""
        return Verdict(one.model, one.version, False, f"needed by {one.needs[0]}{more}")
    if one.counter == newest:
        return Verdict(one.model, one.version, False, "the newest version")
    if age < retention:
        return Verdict(one.model, one.version, False, f"{age.days} days old, kept for {retention.days}")
    return Verdict(one.model, one.version, True, f"{age.days} days old, and nothing needs it")
