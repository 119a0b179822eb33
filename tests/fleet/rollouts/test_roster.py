"""Devices of a rollout from the rows of either database: what is read is what was written, and made once."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from fleet.rollouts import saved
from fleet.rollouts.roster import Roster
from fleet.rollouts.states import Member
from fleet.store import rollouts as store
from fleet.store import tables
from fleet.store.database import Database
from shared.messages import ShadowFigures
from tests.bench.rollout_scale import T0, rollout
from tests.fleet.telemetry.conftest import either, postgres

__all__ = ["either", "postgres"]
FIGURES = ShadowFigures(seconds=1.5, samples=7, agreed=6, serving={3: 7}, candidate={4: 7})
ODD = Member(
    device="cam-1",
    wave=1,
    since=T0 + timedelta(microseconds=120_000),
    site='hall "B"',
    hardware="x86_64",
    state="failed",
    reason="E_LOAD",
    detail='line 1\nline 2 \\ "ß" 日本',
    previous="1.0.0",
    told_at=T0 + timedelta(seconds=1),
    switched_at=T0 + timedelta(seconds=1),
    recalled_at=T0 + timedelta(seconds=2),
    outcome="committed",
    online=False,
    seen_at=T0 + timedelta(days=1),
    serving="1.0.0",
    active=False,
    fetched_bytes=3 * 2**30,
    total_bytes=2**40,
    sources={"peer": 2**30, "manager": 1},
    shadow=FIGURES,
)
PLAIN = Member(device="cam-2", wave=0, since=T0)


@pytest.fixture
async def database(either: str) -> AsyncIterator[Database]:
    found = Database(either)
    await found.open()
    made = rollout(10, {f"cam-{number}": "x86_64" for number in range(10)})
    async with found.write() as tx:
        row = tables.Rollout(
            id=made.id, model=made.model, version=made.version, strategy=made.strategy, state="running",
            body=saved.to_json(made), created_by="ana", created_at=T0, updated_at=T0,
        )  # fmt: skip
        tx.add(row)
        await tx.flush()
        await tx.execute(insert(tables.Device), [_device(ODD), _device(PLAIN)])
        await tx.execute(insert(tables.Deployment), [_deployment(ODD), _deployment(PLAIN)])
    yield found
    await found.close()


async def test_a_member_is_what_was_written_whatever_its_texts_hold(database: Database) -> None:
    assert await look(database, Roster()) == (PLAIN, ODD)  # by wave


async def test_only_a_row_that_changed_is_made_anew(database: Database) -> None:
    roster = Roster()
    first = await look(database, roster)
    async with database.write() as tx:
        await tx.execute(update(tables.Deployment).values(state="committed").where(tables.Deployment.wave == 0))
    second = await look(database, roster)
    assert second == (replace(PLAIN, state="committed"), ODD)
    assert second[1] is first[1]


async def test_who_is_owed_something_is_told_apart(database: Database) -> None:
    plain, odd = await look(database, Roster(), owed={"cam-2"})
    assert plain.owed
    assert not odd.owed


async def look(database: Database, roster: Roster, owed: set[str] | None = None) -> tuple[Member, ...]:
    async with database.read() as tx:
        return roster.members("ro-big", await store.members(tx, "ro-big", "digits"), owed or set())


def _device(one: Member) -> Mapping[str, Any]:
    return {
        "id": one.device, "name": one.device, "hardware": one.hardware, "site": one.site, "online": one.online,
        "lifecycle": "active" if one.active else "revoked", "serving": {"digits": one.serving} if one.serving else {},
        "labels": {}, "sign_key": b"", "box_key": b"", "api_key_hash": "", "enrolled_at": T0, "seen_at": one.seen_at,
        "boot": "b", "agent_version": "1", "slots": [], "assignment": 1,
    }  # fmt: skip


def _deployment(one: Member) -> Mapping[str, Any]:
    return {
        "rollout_id": "ro-big", "device_id": one.device, "wave": one.wave, "since": one.since, "state": one.state,
        "reason": one.reason, "detail": one.detail, "previous": one.previous, "told_at": one.told_at,
        "switched_at": one.switched_at, "recalled_at": one.recalled_at, "outcome": one.outcome, "assignment": 1,
        "fetched_bytes": one.fetched_bytes, "total_bytes": one.total_bytes,
        "sources": dict(one.sources) or None,
        "shadow": None if one.shadow is None else one.shadow.model_dump(mode="json"),
    }  # fmt: skip
