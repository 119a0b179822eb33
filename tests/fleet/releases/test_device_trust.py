"""The device's own verifier accepts what this manager signs, and nothing that was changed on the way."""

import json

import httpx2
import pytest

from agent.update.journal import Journal
from agent.update.lifecycle import State
from agent.update.trust import Trust
from fleet.devices.assigning import Order
from fleet.store import releases as store
from shared import signing
from shared.messages import Announcement


@pytest.fixture
def box():
    return signing.PrivateKey.generate()


def assigned(workshop, box, *, version=1, release="1.0.0", device="cam-1", activate="now"):
    row = workshop.write(store.find, "digits", release)
    text = workshop.manager.director.assign(
        device=device, box_key=bytes(box.public_key), release=row, order=Order("ro-1", activate), version=version,
        now=workshop.clock.now(),
    )  # fmt: skip
    return workshop.write(workshop.manager.director.announcement, text)


def device(workshop, box, tmp_path):
    root = httpx2.get(f"{workshop.url}/metadata/1.root.json", trust_env=False).content
    journal = Journal(tmp_path / "update.sqlite")
    return Trust(journal, root=root, device="cam-1", manager_url=workshop.url, box_key=bytes(box), clock=workshop.clock)


async def test_a_device_follows_the_managers_order(founded, box, tmp_path):
    founded.publish("1.0.0")
    trust = device(founded, box, tmp_path)
    update = await trust.verify(assigned(founded, box))
    assert update is not None
    assert (update.state, update.model, update.version) == (State.VERIFIED, "digits", "1.0.0")
    assert len(trust.content_key(update)) == signing.CONTENT_KEY_BYTES


async def test_a_device_understands_when_to_swap(founded, box, tmp_path):
    founded.publish("1.0.0")
    trust = device(founded, box, tmp_path)
    found = [await trust.verify(assigned(founded, box, activate=when)) for when in ("now", "later", "never")]
    assert [(it.later, it.called_off) for it in found] == [(False, False), (True, False), (False, True)]


async def test_a_device_follows_through_a_change_of_keys(founded, box, tmp_path):
    founded.publish("1.0.0")
    trust = device(founded, box, tmp_path)
    assert (await trust.verify(assigned(founded, box))).state is State.VERIFIED
    founded.asks("key", "rotate", "release-1")
    founded.asks("key", "rotate", "root-1")
    assert (await trust.verify(assigned(founded, box, version=2))).state is State.VERIFIED


async def test_a_changed_order_is_refused(founded, box, tmp_path):
    founded.publish("1.0.0")
    trust = device(founded, box, tmp_path)
    announcement = assigned(founded, box)
    changed = json.loads(announcement.assignment)
    changed["signed"]["version"] = 9
    forged = Announcement(timestamp=announcement.timestamp, assignment=json.dumps(changed))
    with pytest.raises(Exception, match="signed by") as caught:
        await trust.verify(forged)
    assert caught.value.code == "E_SIGNATURE"
