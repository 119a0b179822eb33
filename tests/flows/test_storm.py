"""Telemetry through a real broker while broker and manager are killed: nothing lost, nothing twice."""

from pathlib import Path

import pytest

from tests.simulators.storm import Storm, mosquitto

pytestmark = pytest.mark.flow


async def test_nothing_is_lost_or_doubled_when_broker_and_manager_are_killed(tmp_path: Path) -> None:
    if mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    async with Storm(tmp_path / "storm", devices=3) as storm:
        await storm.tell(records=600, broker_kills=2, manager_kills=1)
        found = storm.found()
    assert (found.told, found.stored, found.lost, found.doubled) == (600, 600, 0, 0)
    assert found.kills == {"broker": 2, "manager": 1}
