"""Telemetry through a real broker while broker and manager are killed: nothing lost, nothing twice."""

from pathlib import Path

import pytest

from tests.simulators.storm import Storm, mosquitto

pytestmark = pytest.mark.flow

#: About a minute on a quiet machine; `make bench BENCH=ingest` tells a million.
RECORDS = 50_000


async def test_nothing_is_lost_or_doubled_when_broker_and_manager_are_killed(tmp_path: Path) -> None:
    if mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    async with Storm(tmp_path / "storm", devices=20) as storm:
        await storm.tell(records=RECORDS, broker_kills=3, manager_kills=2)
        found = storm.found()
    assert (found.told, found.stored, found.lost, found.doubled) == (RECORDS, RECORDS, 0, 0)
    assert found.kills == {"broker": 3, "manager": 2}
