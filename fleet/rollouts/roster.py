"""The devices of a rollout as the engine knows them, made anew only where their rows changed.

A large rollout is looked at often, and between two looks few of its rows change: the rows themselves are compared,
so that nothing needs to be told of a change, whoever made it.

I/O: none.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fleet.rollouts.states import Member
from fleet.store.rollouts import MemberRow
from shared.messages import ShadowFigures


class Roster:
    """What was seen at the last look of each rollout. One for each driver."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, Member]] = {}

    def members(self, rollout_id: str, rows: Iterable[str], owed: Collection[str]) -> tuple[Member, ...]:
        """The members that these rows are, in their order; `owed` are told something that is not yet out."""
        before = self._seen.get(rollout_id, {})
        found = {row: before.get(row) or member(row) for row in rows}
        self._seen[rollout_id] = found
        if not owed:
            return tuple(found.values())
        return tuple([replace(one, owed=True) if one.device in owed else one for one in found.values()])

    def keep(self, rollout_ids: Collection[str]) -> None:
        """Forget every other rollout."""
        self._seen = {key: seen for key, seen in self._seen.items() if key in rollout_ids}


def member(fields: str) -> Member:
    """One row of `deployments` and its device, as `fleet.store.rollouts.members` gives it."""
    row = MemberRow._make(json.loads(fields))
    return Member(
        device=row.device,
        wave=row.wave,
        since=_time(row.since) or datetime.min.replace(tzinfo=UTC),
        site=row.site,
        hardware=row.hardware,
        state=row.state,
        reason=row.reason,
        detail=row.detail,
        previous=row.previous,
        told_at=_time(row.told_at),
        switched_at=_time(row.switched_at),
        recalled_at=_time(row.recalled_at),
        outcome=row.outcome,
        outcome_reason=row.outcome_reason,
        outcome_detail=row.outcome_detail,
        online=bool(row.online),
        seen_at=_time(row.seen_at),
        serving=row.serving,
        active=row.lifecycle == "active",
        fetched_bytes=row.fetched_bytes,
        total_bytes=row.total_bytes,
        shadow=_figures(row.shadow),
        sources=_sources(row.sources),
    )


def _sources(raw: dict[str, int] | str | None) -> Mapping[str, int]:
    found = json.loads(raw) if isinstance(raw, str) else raw
    return found or {}


def _figures(raw: dict[str, Any] | str | None) -> ShadowFigures | None:
    """SQLite gives text in the text, PostgreSQL an object."""
    if raw is None or raw == "null":
        return None
    return ShadowFigures.model_validate_json(raw if isinstance(raw, str) else json.dumps(raw))


def _time(raw: str | None) -> datetime | None:
    """SQLite keeps no zone: it is UTC."""
    found = None if raw is None else datetime.fromisoformat(raw)
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found
