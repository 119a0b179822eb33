"""A million records through a real broker, with a hundred broker kills and twenty manager kills: 0 lost, 0 doubled.

python -m tests.bench.ingest [--quick] [--json]

Devices are real outboxes and uplinks, the manager is a process of its own with SQLite; killed means SIGKILL, and the
broker forgets all that it knew. `--quick`: 50,000 records, 20 and 5 kills.
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench.document import Result, arguments, tell
from tests.simulators.storm import Found, Storm, mosquitto

DEVICES = 20


async def _storm(folder: Path, records: int, broker_kills: int, manager_kills: int) -> Found:
    async with Storm(folder, devices=DEVICES) as storm:
        await storm.tell(records=records, broker_kills=broker_kills, manager_kills=manager_kills)
        return storm.found()


def main() -> int:
    chosen = arguments("telemetry under kills")
    if mosquitto() is None:
        raise SystemExit("this needs mosquitto: make system-deps")
    size = (50_000, 20, 5) if chosen.quick else (1_000_000, 100, 20)
    folder = Path(tempfile.mkdtemp(prefix="flotilla-ingest-"))
    try:
        found = asyncio.run(_storm(folder / "storm", *size))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results = [
        Result("records told", found.told, "records"),
        Result("lost", found.lost, "records", 0),
        Result("doubled", found.doubled, "records", 0),
        Result("broker kills", found.kills["broker"], "kills"),
        Result("manager kills", found.kills["manager"], "kills"),
        Result("stored each second, outages included", found.stored / found.seconds, "records"),
        Result("memory of the manager, at most", found.manager_bytes / 2**20, "MiB"),
    ]
    return tell("ingest", results, as_json=chosen.json)


if __name__ == "__main__":
    sys.exit(main())
