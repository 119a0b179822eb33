"""What the journal and the slot record keep over a restart, and what they refuse to guess."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.update.journal import INBOX_LIMIT, Journal
from agent.update.lifecycle import Ending, State, Update
from agent.update.probation import Tally
from agent.update.reasons import DamagedJournalError
from agent.update.slot_disk import SlotDisk
from agent.update.slots import Record, Slot
from agent.update.slots import State as SlotState
from shared.messages import Announcement, Phase

UPDATE = Update(assignment=3, model="digits", version="1.1.0", manifest="0" * 64, sealed_key="k", slot="b")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "update.sqlite")
    yield journal
    journal.close()


def announcement(number: int) -> Announcement:
    return Announcement(timestamp="{}", assignment=f'{{"n": {number}}}')


def test_sqlite_waits_for_the_disk(journal: Journal) -> None:
    assert journal._database.execute("PRAGMA synchronous").fetchone() == (2,)


def test_announcements_leave_in_order_and_only_when_dealt_with(journal: Journal) -> None:
    assert journal.take_in(announcement(1))
    assert journal.take_in(announcement(2))
    assert journal.take_in(announcement(1))
    assert journal.oldest() == announcement(1)
    journal.refused(announcement(1))
    assert journal.oldest() == announcement(2)
    assert not journal.take_in(announcement(1))


def test_a_flood_does_not_grow_the_inbox(journal: Journal) -> None:
    for number in range(3 * INBOX_LIMIT):
        journal.take_in(announcement(number))
    assert journal.oldest() == announcement(2 * INBOX_LIMIT)


def test_an_accepted_assignment_is_seen_and_waits(journal: Journal) -> None:
    assert journal.seen == 0
    journal.take_in(announcement(1))
    journal.accepted(announcement(1), UPDATE)
    assert (journal.seen, journal.oldest()) == (3, None)
    assert journal.update("next") == UPDATE
    assert journal.promote() == UPDATE
    assert journal.update("next") is None
    assert journal.update("current") == UPDATE


def test_the_current_update_survives_a_restart(journal: Journal, tmp_path: Path) -> None:
    journal.save(UPDATE)
    journal.save_manifest("0" * 64, b"m")
    journal.close()
    again = Journal(tmp_path / "update.sqlite")
    assert again.update("current") == UPDATE
    assert again.manifest("0" * 64) == b"m"
    again.finish()
    assert again.update("current") is None
    assert again.manifest("0" * 64) is None
    again.close()


def test_two_current_updates_are_misuse(journal: Journal) -> None:
    journal.save(UPDATE)
    with pytest.raises(RuntimeError):
        journal.promote()


def test_an_adopted_update_goes_on_under_the_newer_number(journal: Journal) -> None:
    current = Update(assignment=2, model="digits", version="1.1.0", manifest="0" * 64, sealed_key="o", slot="b")
    journal.save(current)
    journal.accepted(announcement(1), UPDATE)
    adopted = journal.adopt(current, UPDATE)
    assert (adopted.assignment, adopted.sealed_key, adopted.state) == (3, "k", State.VERIFIED)
    assert journal.update("current") == adopted
    assert journal.update("next") is None


def test_floors_only_rise(journal: Journal) -> None:
    journal.committed(UPDATE, minimum_counter=4)
    journal.committed(UPDATE, minimum_counter=2)
    assert (journal.floor("digits"), journal.floor("other")) == (4, 0)


def test_bad_releases_keep_their_first_reason(journal: Journal) -> None:
    journal.mark_bad("0" * 64, "E_LOAD", "first")
    journal.mark_bad("0" * 64, "E_ONNX", "second")
    assert journal.bad("0" * 64) == ("E_LOAD", "first")
    journal.committed(UPDATE, minimum_counter=0)
    assert journal.bad("0" * 64) is None


def test_what_served_last_is_the_last_of_the_good_ones(journal: Journal) -> None:
    for digest in ("1", "2"):
        journal.committed(replace(UPDATE, manifest=digest, rollout=f"ro-{digest}"), minimum_counter=0)
    assert journal.goods("digits") == ("1", "2")
    journal.went_back("digits", "1")
    assert journal.goods("digits") == ("2", "1")
    assert (journal.rollout_of("digits", "1"), journal.rollout_of("digits", "3")) == ("ro-1", None)
    assert journal.goods("letters") == ()


def test_what_was_taken_back_by_hand_is_not_for_the_same_rollout(journal: Journal) -> None:
    update = replace(UPDATE, rollout="ro-1")
    assert not journal.taken_back(update)
    journal.take_back(UPDATE.manifest, "ro-1")
    assert journal.taken_back(update)
    assert not journal.taken_back(replace(UPDATE, rollout="ro-2"))
    assert not journal.taken_back(UPDATE)
    journal.committed(update, minimum_counter=0)
    assert not journal.taken_back(update)


def test_the_last_ending_of_each_model_is_kept(journal: Journal) -> None:
    assert journal.ending("digits") is None
    for version in ("1.0.0", "1.1.0"):
        ending = Ending("digits", version, Phase.ROLLED_BACK, NOW, "E_LOAD", "no")
        journal.ended(ending)
    assert journal.ending("digits") == ending


def test_verified_time_only_moves_forward(journal: Journal) -> None:
    journal.save_trusted({"targets.json": b"{}"}, verified_at=NOW)
    journal.save_trusted({"targets.json": b"{ }"}, verified_at=NOW - timedelta(days=1))
    assert journal.verified_at == NOW
    assert journal.trusted() == {"targets.json": b"{ }"}


def test_performance_survives_a_restart(journal: Journal) -> None:
    tally = Tally()
    for _ in range(60):
        tally.answered(3.0, None)
    journal.save_performance("digits", "1.0.0", tally.performance)
    assert journal.performance("digits", "1.0.0") == tally.performance
    assert journal.performance("digits", "9.9.9").requests == 0


def test_a_file_that_is_no_journal_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "update.sqlite"
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(DamagedJournalError):
        Journal(path)
    assert path.read_bytes().startswith(b"not a database")


def test_an_update_that_cannot_be_read_is_not_guessed(journal: Journal) -> None:
    journal.save(UPDATE)
    journal._database.execute("UPDATE updates SET body = CAST('{}' AS BLOB)")
    with pytest.raises(DamagedJournalError):
        journal.update("current")


def test_the_slot_record_round_trips(tmp_path: Path) -> None:
    disk = SlotDisk(tmp_path)
    assert disk.read("digits") == Record("digits")
    assert disk.models() == ()
    record = Record("digits", a=Slot(SlotState.GOOD, "1.0.0", "0" * 64, 1), active="a", last_good="a")
    disk.write(record)
    assert disk.read("digits") == record
    assert disk.models() == ("digits",)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": "digits", "active": "c"}'])
def test_a_slot_record_that_cannot_be_read_is_not_guessed(tmp_path: Path, content: bytes) -> None:
    disk = SlotDisk(tmp_path)
    disk.write(Record("digits"))
    (tmp_path / "models/digits/slots.json").write_bytes(content)
    with pytest.raises(DamagedJournalError):
        disk.read("digits")
