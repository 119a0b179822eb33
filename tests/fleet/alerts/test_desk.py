from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from fleet.alerts import desk, states
from fleet.alerts.states import MOVES, AlertNotFoundError, AlertStateError, Event, State
from fleet.store import alerts as store
from fleet.store import tables
from fleet.store.database import Database
from tests.simulators import databases

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
    await found.open()
    yield found
    await found.close()


async def opened(database: Database, **changes: Any) -> tables.Alert:
    values: dict[str, Any] = {
        "kind": "security",
        "scope": "device:cam-1",
        "subject": "digits@1.0.0 E_SIGNATURE",
        "severity": "medium",
        "text": "refused",
        "body": {},
        "now": T0,
    }
    async with database.write() as tx:
        return await desk.open_alert(tx, **(values | changes))


async def lines(database: Database) -> list[str]:
    async with database.read() as tx:
        return list((await tx.scalars(select(tables.Event.text).order_by(tables.Event.sequence))).all())


async def test_the_same_cause_is_one_alert_kept_up_to_date(database: Database) -> None:
    first = await opened(database)
    second = await opened(database, text="again", severity="low", now=T0 + timedelta(hours=1))
    assert second.id == first.id
    assert (second.text, second.severity, second.opened_at) == ("again", "medium", T0)
    assert (await opened(database, scope="device:cam-2")).id != first.id
    assert await lines(database) == ["refused", "refused"]


async def test_a_graver_one_opens_again_though_acknowledged(database: Database) -> None:
    first = await opened(database)
    async with database.write() as tx:
        await desk.acknowledge(tx, first.id, by="ana", note="lamp", now=T0)
        await desk.acknowledge(tx, first.id, by="ana", note=None, now=T0)
    assert (await opened(database)).state == "acknowledged"
    worse = await opened(database, severity="critical")
    assert (worse.state, worse.severity, worse.note) == ("open", "critical", "lamp")
    assert [line.split(" ", 1)[-1] for line in await lines(database)] == [
        "refused", "acknowledged by ana: lamp", "is critical now: refused",
    ]  # fmt: skip


async def test_after_resolve_the_same_cause_is_a_new_alert(database: Database) -> None:
    first = await opened(database)
    async with database.write() as tx:
        await desk.resolve(tx, first.id, by="ana", note="done", now=T0)
    async with database.write() as tx:
        with pytest.raises(AlertStateError):
            await desk.resolve(tx, first.id, by="ana", note=None, now=T0)
        with pytest.raises(AlertNotFoundError):
            await desk.acknowledge(tx, "al-none", by="ana", note=None, now=T0)
    assert (await opened(database)).id != first.id
    async with database.read() as tx:
        assert await store.count_live(tx) == 1
        assert len(await store.page(tx, states=["resolved"], after=None, limit=9)) == 1


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_move_is_in_the_table_or_refused(state: State, event: Event) -> None:
    if event in MOVES[state]:
        assert states.advance(state, event) is MOVES[state][event]
    else:
        with pytest.raises(AlertStateError):
            states.advance(state, event)
