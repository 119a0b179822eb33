"""What the gate said, with all that it was said on; decided again, it must be the same.

    numbers ──gate.decide──► checks        both are kept, whenever a result changes, and every five minutes between

I/O: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.rollouts import gate, numbers
from fleet.rollouts.checks import Check, Result
from fleet.rollouts.states import Evidence, Rollout, State
from fleet.store import gates, tables

#: A verdict that says the same is kept this often.
EVERY: Final = timedelta(minutes=5)
#: Changes are kept no faster than this, but for a first fail: a value at its limit may flicker.
CHANGES_EVERY: Final = timedelta(seconds=10)
#: States in which the gate decides.
JUDGED: Final = frozenset({State.RUNNING, State.PAUSED})

_CHECKS: Final = TypeAdapter(tuple[Check, ...])


@dataclass(frozen=True, slots=True)
class Verdict:
    """One look of the gate."""

    at: datetime
    result: Result
    checks: tuple[Check, ...]
    numbers: numbers.Numbers


def make(rollout: Rollout, evidence: Evidence, now: datetime) -> Verdict:
    """The verdict on this evidence."""
    return of(numbers.count(rollout, evidence, now))


def of(counted: numbers.Numbers) -> Verdict:
    """The verdict of today's gate on these numbers."""
    checks = gate.decide(counted)
    return Verdict(counted.at, gate.worst(checks), checks, counted)


def to_json(verdict: Verdict) -> dict[str, Any]:
    """`from_json(to_json(v)) == v`."""
    return {
        "checks": [asdict(check) for check in verdict.checks],
        "numbers": numbers.to_json(verdict.numbers),
    }


def from_json(body: Mapping[str, Any]) -> Verdict:
    """Inverse of `to_json`.

    Raises:
        ValueError: not written by us.
    """
    counted, checks = numbers.from_json(body["numbers"]), _CHECKS.validate_python(body["checks"])
    return Verdict(counted.at, gate.worst(checks), checks, counted)


def replayed(body: Mapping[str, Any]) -> Verdict:
    """The verdict that today's gate gives on the numbers that were stored."""
    return of(numbers.from_json(body["numbers"]))


def due(before: Verdict | None, now: Verdict) -> bool:
    """Whether `now` is to be kept: it says something else than `before`, or that was a while ago."""
    if before is None or now.at - before.at >= EVERY:
        return True
    if now.result is Result.FAIL and before.result is not Result.FAIL:
        return True
    same = [(it.name, it.result) for it in before.checks] == [(it.name, it.result) for it in now.checks]
    return not same and now.at - before.at >= CHANGES_EVERY


async def pending(tx: AsyncSession, rollout: Rollout, counted: numbers.Numbers | None) -> Verdict | None:
    """The verdict on what the engine judged by in a step of `rollout`, if it is to be kept."""
    if counted is None or rollout.state not in JUDGED or rollout.wave < 0:
        return None
    found, last = of(counted), await gates.last_verdict(tx, rollout.id)
    return found if due(None if last is None else from_json(last.body), found) else None


async def keep(tx: AsyncSession, rollout: Rollout, counted: numbers.Numbers | None) -> None:
    """Store the verdict if it is to be kept. The caller's transaction writes."""
    found = await pending(tx, rollout, counted)
    if found is not None:
        await gates.save_verdict(tx, rollout.id, found.at, found.result, to_json(found))


def histories(rows: Sequence[tables.Verdict]) -> dict[str, tuple[float, ...]]:
    """Check -> its value over time, oldest first, from stored verdicts, newest first."""
    found: dict[str, list[float]] = {}
    for row in reversed(rows):
        for check in row.body["checks"]:
            if check["value"] is not None:
                found.setdefault(check["name"], []).append(check["value"])
    return {name: tuple(values) for name, values in found.items()}


def document(row: tables.Verdict) -> dict[str, Any]:
    """What people and programs get to see of a stored one; times are aware."""
    return {"id": row.id, "at": row.at, "result": row.result, **row.body}
