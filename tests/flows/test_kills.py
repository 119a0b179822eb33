"""kill -9 at bad moments: the work goes on where it stood, and nothing is done twice."""

import json
import sqlite3
from collections.abc import Iterator

import pytest

from tests.flows.conftest import broker
from tests.simulators.fleet import Fleet, running

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two devices that serve 1.0.0."""
    folder = tmp_path_factory.mktemp("kills")
    with broker(folder) as port, running(folder / "fleet", port) as made:
        made.add_devices("cam-1", "cam-2")
        made.publish("1.0.0")
        assert made.roll_out("1.0.0")["state"] == "completed"
        yield made


def test_a_rollout_survives_the_sudden_death_of_the_manager(fleet: Fleet) -> None:
    fleet.publish("1.1.0")
    rollout = fleet.start_rollout("1.1.0", waves="1,100%", bake="2s")
    for at in ("fetching", "probation", "committed"):
        seen = lambda at=at: any(phase == at for phase in phases(fleet, rollout)) or None  # noqa: E731
        fleet.until(seen)
        fleet.restart_manager()
    ended = fleet.ended(rollout)
    assert ended["state"] == "completed", ended["reason"]
    assert {fleet.serving("cam-1"), fleet.serving("cam-2")} == {"1.1.0"}
    assert [camera.tally.failed for camera in fleet.cameras] == [0, 0]
    assert_nothing_doubled(fleet, rollout)


def phases(fleet: Fleet, rollout: str, device: str = "%") -> list[str]:
    with sqlite3.connect(fleet.database) as connection:
        query = "select phase from reports where rollout_id = ? and device_id like ?"
        return [phase for (phase,) in connection.execute(query, (rollout, device))]


def assert_nothing_doubled(fleet: Fleet, rollout: str) -> None:
    with sqlite3.connect(fleet.database) as connection:
        owed = connection.execute(
            "select device_id, count(*), count(performed_at) from owed_actions where rollout_id = ? group by 1",
            (rollout,),
        ).fetchall()
        commits = connection.execute(
            "select device_id, count(*) from reports where rollout_id = ? and phase = 'committed' group by 1",
            (rollout,),
        ).fetchall()
        windows = connection.execute("select body from windows").fetchall()
    assert sorted(owed) == [("cam-1", 1, 1), ("cam-2", 1, 1)]
    assert sorted(commits) == [("cam-1", 1), ("cam-2", 1)]
    bodies = [json.loads(body) for (body,) in windows]
    starts = [(body["device"], body["version"], body["phase"], body["start"]) for body in bodies]
    assert len(starts) == len(set(starts))


def test_an_update_survives_the_sudden_death_of_the_agent(fleet: Fleet) -> None:
    fleet.publish("1.2.0")
    rollout = fleet.start_rollout("1.2.0")
    for at in ("fetching", "probation"):
        seen = lambda at=at: any(phase == at for phase in phases(fleet, rollout, "cam-1")) or None  # noqa: E731
        fleet.until(seen)
        fleet.household.kill("cam-1")
        fleet.household.run_agent("cam-1")
    ended = fleet.ended(rollout)
    assert ended["state"] == "completed", ended["reason"]
    assert fleet.serving("cam-1") == "1.2.0"
