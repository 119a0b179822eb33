"""What silence means."""

from datetime import UTC, datetime, timedelta

import pytest

from fleet.devices.liveness import Patience, Presence
from fleet.devices.watch import LivenessWatch
from fleet.store import alerts, events
from fleet.store.tables import Device

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PATIENCE = Patience(timedelta(seconds=60), listening_since=NOW - timedelta(hours=1))


@pytest.mark.parametrize(
    ("online", "silent", "presence"),
    [
        (True, 0, Presence.ONLINE),
        (True, 90, Presence.ONLINE),
        (True, 91, Presence.LATE),
        (True, 180, Presence.LATE),
        (True, 181, Presence.OFFLINE),
        (False, 0, Presence.OFFLINE),
        (True, None, Presence.NEVER),
    ],
)
def test_presence(online: bool, silent: int | None, presence: Presence) -> None:
    seen = None if silent is None else NOW - timedelta(seconds=silent)
    assert PATIENCE.presence(online=online, seen_at=seen, now=NOW) is presence


def test_silence_while_the_manager_was_away_does_not_count() -> None:
    fresh = Patience(timedelta(seconds=60), listening_since=NOW - timedelta(seconds=30))
    assert fresh.presence(online=True, seen_at=NOW - timedelta(days=1), now=NOW) is Presence.ONLINE


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


async def test_a_device_that_fell_silent_without_a_will_is_marked_once(manager, enrolled) -> None:
    await enrolled("cam-1", online=True, seen_at=NOW)
    await enrolled("cam-2", online=True, seen_at=NOW + timedelta(seconds=150))
    await enrolled("cam-3", online=False, seen_at=NOW)
    clock = Clock()
    watch = LivenessWatch(manager.database, manager.hub, clock, Patience(timedelta(seconds=60), NOW))
    before = manager.hub.count
    assert await watch.look() == []
    clock.at += timedelta(seconds=200)
    assert await watch.look() == ["cam-1"]
    assert await watch.look() == []
    assert manager.hub.count == before + 2  # the mark, and the alerts
    async with manager.database.read() as tx:
        lines = [row.text for row in await events.newest(tx) if row.kind == "device"]
        scopes = {alert.scope for alert in await alerts.live(tx, kind="connectivity")}
    assert lines == ["cam-1 is offline: silent for more than 180 s"]
    assert scopes == {"device:cam-1", "device:cam-3"}
    async with manager.database.write() as tx:
        (await tx.get(Device, "cam-1")).seen_at = clock.at
        (await tx.get(Device, "cam-3")).lifecycle = "revoked"
    await watch.look()
    async with manager.database.read() as tx:
        assert await alerts.live(tx, kind="connectivity") == []
