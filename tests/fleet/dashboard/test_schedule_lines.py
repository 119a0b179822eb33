"""Schedules on the Rollouts page."""

from datetime import timedelta
from typing import Any

import httpx2

from fleet.schedules.states import Schedule, State, to_json
from fleet.store import tables


def row(world: Any, name: str, **more: Any) -> tables.Schedule:
    now = world.before(0)
    schedule = Schedule(
        name, "once", "digits", "1.2.0", now, now + timedelta(hours=3), "UTC", request={"window": "settings"}, **more
    )
    return tables.Schedule(
        id=name,
        model="digits",
        state=schedule.state.value,
        body=to_json(schedule),
        created_by="ana",
        created_at=now,
        updated_at=now,
    )


async def test_schedules_are_shown_with_what_may_be_asked_of_them(client: httpx2.AsyncClient, world: Any) -> None:
    assert "flotilla schedule add NAME@VERSION" in (await client.get("/rollouts")).text
    await world.add(
        row(world, "sc-wait"),
        row(world, "sc-queue", state=State.QUEUED, reason="<b>ro-1</b> is still at work"),
        row(world, "sc-done", state=State.COMPLETED),
    )
    page = (await client.get("/rollouts")).text
    assert 'data-post="/api/v1/schedules/sc-wait/pause"' in page
    assert "maintenance window" in page
    assert "&lt;b&gt;ro-1&lt;/b&gt; is still at work" in page
    assert "sc-done" not in page
