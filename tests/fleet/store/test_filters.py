"""The database finds the devices that the grammar says."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet.devices.filtering import Traits, matches, parse
from fleet.store import devices
from fleet.store.database import Database
from fleet.store.tables import Device
from tests.simulators import databases

T0 = datetime(2026, 1, 1, tzinfo=UTC)
FLEET = [
    Traits("cam-1", "one", "gate", "nano", "active", "0.1", True, {"line": "4"}, {"digits": "1.0.0"}),
    Traits("cam-2", "two", "", "orin", "active", "0.2", False, {}, {"digits": "1.1.0"}),
    Traits("cam_3", "50%", "hall 3", "orin", "active", "0.2", True, {"line": "5"}, {}),
]
TEXTS = [
    "", "cam", "cam-*", "c*_3", "50%", "site:gate", "not site:gate", "label.line:4", "not label.line:4",
    "label.line:*", "serving.digits:1.*  -online:true", "hardware:orin or (site:gate online:false)",
    'site:"hall 3"', "agent:0.2 not (label.line:5 or cam-1)",
]  # fmt: skip


@pytest.fixture
async def database(tmp_path: Path):
    found = Database(databases.sqlite(tmp_path / "fleet.sqlite"))
    await found.open()
    async with found.write() as tx:
        for it in FLEET:
            tx.add(
                Device(
                    id=it.id, name=it.name, site=it.site, hardware=it.hardware, agent_version=it.agent, labels=it.label,
                    serving=it.serving, online=it.online, sign_key=b"", box_key=b"", api_key_hash="", enrolled_at=T0,
                    slots=[],
                )
            )  # fmt: skip
    yield found
    await found.close()


async def test_the_database_finds_whom_the_grammar_means(database: Database) -> None:
    async with database.read() as tx:
        for text in TEXTS:
            found = [device.id for device in await devices.active(tx, text)]
            assert found == [it.id for it in FLEET if matches(parse(text), it)], text
