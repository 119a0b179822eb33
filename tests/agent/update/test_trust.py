"""Every way in which an announcement can be wrong has its own reason."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nacl.public import PrivateKey

from agent.update import reasons
from agent.update.journal import Journal
from agent.update.lifecycle import State, Update
from agent.update.trust import Trust
from shared.errors import BadInputError
from shared.messages import Announcement
from shared.signing import NaClSigner
from tests.simulators.release_repository import Release, ReleaseRepository, tiny_model

BOX = PrivateKey.generate()
PUBLIC = bytes(BOX.public_key)


@dataclass
class Time:
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


@dataclass
class World:
    repository: ReleaseRepository
    release: Release
    journal: Journal
    trust: Trust
    time: Time


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ReleaseRepository() as repository:
        journal, time = Journal(tmp_path / "update.sqlite"), Time()
        trust = Trust(
            journal,
            root=repository.root,
            device="cam-1",
            manager_url=repository.url,
            box_key=bytes(BOX),
            clock=time,
        )
        release = repository.publish("digits", "1.0.0", tiny_model())
        yield World(repository, release, journal, trust, time)
        journal.close()


def accept(world: World, announcement: Announcement, version: int) -> None:
    """As the intake does."""
    update = replace(_update(world), assignment=version)
    world.journal.accepted(announcement, update)


def _update(world: World) -> Update:
    return Update(assignment=1, model="digits", version="1.0.0", manifest=world.release.digest, sealed_key="")


async def test_a_genuine_announcement_gives_a_verified_update(world: World) -> None:
    update = await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    assert update is not None
    assert (update.state, update.assignment, update.release) == (State.VERIFIED, 1, "digits@1.0.0")
    assert update.manifest == world.release.digest
    assert world.trust.content_key(update) == world.release.content_key


async def test_trusted_metadata_is_kept_and_not_fetched_again(world: World) -> None:
    await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    assert {"timestamp.json", "snapshot.json", "targets.json", "model-digits.json"} < set(world.journal.trusted())
    before = world.repository.requests.copy()
    await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    assert set(world.repository.requests - before) == {"/metadata/2.root.json"}


async def test_the_announced_timestamp_is_used_instead_of_a_request(world: World) -> None:
    await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    assert world.repository.requests["/metadata/timestamp.json"] == 0


async def test_an_unknown_key_is_a_forgery(world: World) -> None:
    forged = world.repository.announce("cam-1", PUBLIC, world.release, signer=NaClSigner.generate())
    with pytest.raises(reasons.ForgedError):
        await world.trust.verify(forged)


async def test_one_changed_letter_is_a_forgery(world: World) -> None:
    found = world.repository.announce("cam-1", PUBLIC, world.release)
    changed = found.assignment.replace("ro-test", "ro-tset")
    assert changed != found.assignment
    with pytest.raises(reasons.ForgedError):
        await world.trust.verify(Announcement(timestamp=found.timestamp, assignment=changed))


async def test_a_release_key_cannot_sign_assignments(world: World) -> None:
    forged = world.repository.announce("cam-1", PUBLIC, world.release, signer=world.repository.release_signer)
    with pytest.raises(reasons.ForgedError):
        await world.trust.verify(forged)


async def test_a_timestamp_by_an_unknown_key_is_a_forgery(world: World) -> None:
    other = ReleaseRepository()
    found = world.repository.announce("cam-1", PUBLIC, world.release)
    forged = Announcement(timestamp=other.files["/metadata/timestamp.json"].decode(), assignment=found.assignment)
    with pytest.raises(reasons.ForgedError):
        await world.trust.verify(forged)


async def test_another_devices_assignment_is_refused(world: World) -> None:
    with pytest.raises(reasons.WrongDeviceError):
        await world.trust.verify(world.repository.announce("cam-2", PUBLIC, world.release))


async def test_an_assignment_that_names_two_devices_is_refused(world: World) -> None:
    with pytest.raises(reasons.WrongDeviceError):
        await world.trust.verify(world.repository.announce("cam-2", PUBLIC, world.release, path="assign/cam-1"))


async def test_an_older_assignment_is_refused_with_its_number(world: World) -> None:
    old = world.repository.announce("cam-1", PUBLIC, world.release)
    new = world.repository.announce("cam-1", PUBLIC, world.release)
    accept(world, new, 2)
    update = await world.trust.verify(old)
    assert update is not None
    assert (update.state, update.reason, update.assignment) == (State.REFUSED, "E_REPLAYED", 1)


async def test_the_same_assignment_again_is_nothing_new(world: World) -> None:
    found = world.repository.announce("cam-1", PUBLIC, world.release)
    accept(world, found, 1)
    assert await world.trust.verify(found) is None


async def test_an_expired_assignment_is_refused(world: World) -> None:
    with pytest.raises(reasons.ExpiredError):
        await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release, expires_days=-1))


async def test_an_expired_timestamp_everywhere_is_refused(world: World) -> None:
    found = world.repository.announce("cam-1", PUBLIC, world.release)
    world.time.at += timedelta(days=2)
    with pytest.raises(reasons.ExpiredError):
        await world.trust.verify(found)


async def test_a_stale_announced_timestamp_is_replaced_by_the_managers(world: World) -> None:
    found = world.repository.announce("cam-1", PUBLIC, world.release)
    world.time.at += timedelta(days=2)
    world.repository.now = world.time.at
    world.repository.sign()
    update = await world.trust.verify(found)
    assert update is not None
    assert update.state is State.VERIFIED


async def test_a_clock_set_back_does_not_bring_expired_documents_to_life(world: World) -> None:
    old = world.repository.announce("cam-1", PUBLIC, world.release, expires_days=3)
    world.time.at += timedelta(days=10)
    world.repository.now = world.time.at
    world.repository.sign()
    assert await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release)) is not None
    world.time.at -= timedelta(days=10)
    assert world.journal.verified_at is not None
    with pytest.raises(reasons.ExpiredError):
        await world.trust.verify(old)


async def test_what_no_release_key_lists_is_refused(world: World) -> None:
    hidden = world.repository.publish("digits", "6.6.6", tiny_model(1), listed=False)
    update = await world.trust.verify(world.repository.announce("cam-1", PUBLIC, hidden))
    assert update is not None
    assert (update.state, update.reason) == (State.REFUSED, "E_NOT_RELEASED")


async def test_another_manifest_than_the_released_one_is_refused(world: World) -> None:
    lie = world.repository.announce("cam-1", PUBLIC, world.release, manifest="0" * 64)
    update = await world.trust.verify(lie)
    assert update is not None
    assert (update.state, update.reason) == (State.REFUSED, "E_NOT_RELEASED")


async def test_a_content_key_for_somebody_else_is_refused(world: World) -> None:
    stranger = bytes(PrivateKey.generate().public_key)
    update = await world.trust.verify(world.repository.announce("cam-1", stranger, world.release))
    assert update is not None
    assert (update.state, update.reason) == (State.REFUSED, "E_SEALED_KEY")


async def test_orders_without_a_field_are_refused(world: World) -> None:
    with pytest.raises(reasons.MetadataError):
        await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release, model=7))


@pytest.mark.parametrize(
    "document", ["", "{", "[" * 100 + "]" * 100, '{"signed": 1, "signed": 2}', "{}", '{"signed": 9' + "9" * 50 + "}"]
)
async def test_any_text_in_place_of_an_assignment_is_refused(world: World, document: str) -> None:
    found = world.repository.announce("cam-1", PUBLIC, world.release)
    with pytest.raises((BadInputError, reasons.ForgedError)):
        await world.trust.verify(Announcement(timestamp=found.timestamp, assignment=document))


@pytest.mark.parametrize("fault", [{"/metadata": 503}, {"/metadata/2.snapshot": 404}, {"/metadata/2.root": 500}])
async def test_a_manager_in_trouble_is_tried_again_later(world: World, fault: dict[str, int]) -> None:
    world.repository.faults.status = fault
    with pytest.raises(reasons.SourceUnavailableError):
        await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))


async def test_a_portals_page_counts_as_not_reached(world: World) -> None:
    world.repository.files["/metadata/2.snapshot.json"] = b"<html>pay here</html>"
    with pytest.raises(reasons.SourceUnavailableError):
        await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))


async def test_a_rotated_director_key_is_followed_and_the_old_one_forgotten(world: World) -> None:
    await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    stolen = world.repository.director_signer
    world.repository.director_signer = NaClSigner.generate()
    world.repository.sign()
    assert await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release)) is not None
    with pytest.raises(reasons.ForgedError):
        await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release, signer=stolen))


async def test_a_new_root_with_new_online_keys_is_followed(world: World) -> None:
    await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    world.repository.timestamp_signer = NaClSigner.generate()
    world.repository.sign_root()
    world.repository.sign()
    update = await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    assert update is not None
    assert "root_history/2.root.json" in world.journal.trusted()


async def test_an_older_snapshot_than_seen_is_not_believed(world: World) -> None:
    kept = dict(world.repository.files)
    world.repository.publish("digits", "1.1.0", tiny_model(1))
    await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
    world.repository.files = kept
    world.repository.versions["timestamp"] += 5
    with pytest.raises(reasons.ReplayedError):
        await world.trust.verify(world.repository.announce("cam-1", PUBLIC, world.release))
