"""Two managers on one PostgreSQL: one leads; killed or stopped, the other takes over, and nothing is doubled."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.demo.operator import Operator
from tests.simulators import postgresql
from tests.simulators.fleet import Fleet
from tests.simulators.two_managers import TwoManagers

pytestmark = pytest.mark.flow

#: Promised; the lease is shorter.
TAKE_OVER_SECONDS = 15.0


@pytest.fixture
def managers(tmp_path: Path, mosquitto: int) -> Iterator[TwoManagers]:
    with postgresql.server() as postgres:
        found = TwoManagers(tmp_path / "managers", postgres, mosquitto)
        try:
            found.start()
            yield found
        finally:
            found.stop()


def fleet_at(managers: TwoManagers, number: int) -> Fleet:
    """The fleet as seen through one of the managers; devices are told that one's address."""
    url, home = managers.urls[number], managers.households[0]
    operator = Operator(url=url, token=managers.token, keys=home.folder / "keys", show=lambda _: None)
    return Fleet(home, operator, url, managers.token, managers.mosquitto)


def test_the_other_manager_takes_over_a_rollout_and_nothing_is_doubled(managers: TwoManagers) -> None:
    assert [managers.role(0), managers.role(1)] == ["leader", "follower"]
    fleet = fleet_at(managers, 1)  # devices fetch from the second; what people type goes there, too
    try:
        fleet.operator.asks("init")
        fleet.add_devices("cam-1", "cam-2")
        fleet.publish("1.0.0")
        rollout = fleet.start_rollout("1.0.0", waves="1,100%", bake="2s")
        fleet.until(lambda: "fetching" in phases(managers, rollout) or None)
        managers.households[0].kill("fleet")
        assert managers.await_lead(1) < TAKE_OVER_SECONDS
        fleet.until(lambda: "committed" in phases(managers, rollout) or None)
        managers.households[0].start_manager()
        assert managers.role(0) == "follower"

        managers.signal(1, signal.SIGSTOP)  # it hangs: its connections stay open
        assert managers.await_lead(0) < TAKE_OVER_SECONDS
        managers.signal(1, signal.SIGCONT)
        managers.households[1].wait_end("fleet")  # it finds its term over
        assert "E_LEAD_LOST" in managers.households[1].log("fleet", 200)
        managers.households[1].start_manager()
        assert managers.role(1) == "follower"

        ended = fleet.ended(rollout)
        assert ended["state"] == "completed", ended["reason"]
        assert {fleet.serving("cam-1"), fleet.serving("cam-2")} == {"1.0.0"}
        assert_nothing_doubled(managers, rollout)
        assert_doctor_sees_what_is_not_shared(managers)
        assert fleet.operator.asks("status")["role"] == "follower"
        assert fleet.operator.asks("audit", "verify")["intact"] is True
    finally:
        fleet.stop()


def phases(managers: TwoManagers, rollout: str) -> list[str]:
    return [phase for (phase,) in managers.sql("select phase from reports where rollout_id = $1", rollout)]


def assert_nothing_doubled(managers: TwoManagers, rollout: str) -> None:
    owed = "select device_id, count(*), count(performed_at) from owed_actions where rollout_id = $1 group by 1"
    assert sorted(managers.sql(owed, rollout)) == [("cam-1", 1, 1), ("cam-2", 1, 1)]
    assert sorted(managers.sql("select id, assignment from devices")) == [("cam-1", 1), ("cam-2", 1)]
    commits = "select device_id, count(*) from reports where rollout_id = $1 and phase = 'committed' group by 1"
    assert sorted(managers.sql(commits, rollout)) == [("cam-1", 1), ("cam-2", 1)]
    sequences = "select device_id, stream, sequence from reports"
    for table in (sequences, "select device_id, stream, sequence from windows"):
        rows = managers.sql(table)
        assert len(rows) == len(set(rows))
    bodies = [json.loads(body) for (body,) in managers.sql("select body from windows")]
    starts = [(body["device"], body["version"], body["phase"], body["start"]) for body in bodies]
    assert len(starts) == len(set(starts))
    alerts = managers.sql("select kind, scope, subject from alerts where state != 'resolved'")
    assert len(alerts) == len(set(alerts))
    terms = managers.sql("select term from leadership")
    assert terms == [(3,)]


def assert_doctor_sees_what_is_not_shared(managers: TwoManagers) -> None:
    assert managers.doctor(1) == {"keys": "pass", "managers": "pass", "depot": "pass"}
    folder = managers.households[1].manager_folder
    (folder / "depot").unlink()
    (folder / "keys" / "pepper").write_bytes(b"x" * 32)
    assert managers.doctor(1) == {"keys": "pass", "managers": "fail", "depot": "fail"}
