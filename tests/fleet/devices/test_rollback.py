"""One device goes back by hand: a new signed assignment of the version in its other slot, announced and retained."""

import asyncio
import json
from datetime import UTC, datetime

from nacl.public import PrivateKey

from fleet.store.tables import Device, Metadata, Release
from shared.messages import Announcement
from shared.signing import new_content_key, seal, unseal

SLOTS = [
    {"slot": "a", "state": "good", "model": "digits", "version": "1.0.0"},
    {"slot": "b", "state": "good", "model": "digits", "version": "1.1.0"},
]


async def test_a_device_is_sent_back_and_hears_of_it(admin, manager, enrolled, device_link) -> None:
    box, content_key = PrivateKey.generate(), new_content_key()
    await enrolled("cam-1", slots=SLOTS, serving={"digits": "1.1.0"}, box_key=bytes(box.public_key), assignment=4)
    async with manager.database.write() as tx:
        tx.add(Metadata(role="timestamp", version=7, data=b'{"signed": "now"}'))
        tx.add(
            Release(
                model="digits",
                version="1.0.0",
                counter=1,
                manifest_digest="a" * 64,
                manifest=b"{}",
                escrow_key=seal(content_key, bytes(manager.online_keys.escrow.public_key)),
                baseline={},
                published_by="x",
                published_at=datetime.now(UTC),
            )
        )
    plan = {"device": "cam-1", "model": "digits", "from": "1.1.0", "to": "1.0.0"}
    dry = await admin.post("/api/v1/devices/cam-1/rollback", params={"dry_run": True})
    assert dry.json() == plan | {"dry_run": True}
    assert (await admin.post("/api/v1/devices/cam-1/rollback")).json() == plan | {"assignment": 5}
    async with manager.database.read() as tx:
        device = await tx.get(Device, "cam-1")
        assert device.assignment == 5
    link = await device_link("cam-1")  # it comes later, and hears it all the same
    async with asyncio.timeout(5):
        heard = await anext(link.messages())
    announcement = Announcement.parse(heard.payload)
    assert announcement.timestamp == '{"signed": "now"}'
    target = json.loads(announcement.assignment)["signed"]["targets"]["assign/cam-1"]["custom"]
    assert (target["version"], target["rollout"]) == ("1.0.0", "manual")
    assert unseal(target["sealed_key"], bytes(box)) == content_key
