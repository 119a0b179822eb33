"""A backup that was cut, changed or made up is told, whatever its bytes are."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.backups import sealing
from fleet.backups.errors import BackupDamagedError, BackupNewerError, PassphraseError
from fleet.backups.form import FIRST_LINE, Reader, Writer
from shared.errors import RefusedError

KEY = b"k" * 32
WHOLE = (lambda it: it.part("head", chunks=True) + it.part("rows", b"abc" * 9, name="devices") + it.end())(Writer(KEY))


def read(data: bytes, key: bytes = KEY) -> bool:
    reader = Reader(io.BytesIO(data))
    for _ in reader.parts():
        pass
    return reader.sealed_by(key)


def test_what_was_written_is_read_and_its_seal_fits_this_key_only():
    assert [part.kind for part in Reader(io.BytesIO(WHOLE)).parts()] == ["head", "rows"]
    assert read(WHOLE)
    assert not read(WHOLE, b"x" * 32)


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_a_backup_that_is_cut_anywhere_is_refused(length):
    with pytest.raises(BackupDamagedError):
        read(WHOLE[:length])


def test_what_follows_the_end_is_refused():
    with pytest.raises(BackupDamagedError, match="follows"):
        read(WHOLE + b"x")


@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_no_bit_can_be_turned_unnoticed(place, bit):
    changed = bytearray(WHOLE)
    changed[place] ^= 1 << bit
    try:
        fits = read(bytes(changed))
    except RefusedError:
        return
    assert not fits


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_a_backup_or_refused(data):
    with pytest.raises(RefusedError):
        read(FIRST_LINE + data)


def test_parts_cannot_change_places():
    head, rows = Writer(KEY).part("head"), Writer(KEY)
    rows.part("head")
    a, b = rows.part("rows", b"a"), rows.part("rows", b"b")
    end = rows.end()
    assert read(head + a + b + end)
    assert not read(head + b + a + end)


def test_a_later_form_names_itself():
    with pytest.raises(BackupNewerError):
        read(b"flotilla-backup/2\n" + WHOLE)


def test_a_short_passphrase_is_refused_and_a_wrong_one_opens_nothing():
    with pytest.raises(PassphraseError, match="12 are the least"):
        sealing.new_lock("short")
    lock = sealing.new_lock("correct horse battery")
    sealed = lock.seal({"keys/pepper": b"p" * 32})
    assert sealing.lock_of(lock.terms(), "correct horse battery").open(sealed) == {"keys/pepper": b"p" * 32}
    with pytest.raises(PassphraseError):
        sealing.lock_of(lock.terms(), "correct horse batteries").open(sealed)


@pytest.mark.parametrize("wrong", [{"salt": "!"}, {"operations": 10**9}, {"memory_bytes": 2**40}, {"kdf": "md5"}])
def test_a_head_cannot_make_this_machine_work_for_hours(wrong):
    terms = {"kdf": "argon2id", "salt": "AAAAAAAAAAAAAAAAAAAAAA==", "operations": 3, "memory_bytes": 8192}
    with pytest.raises(BackupDamagedError):
        sealing.lock_of({**terms, **wrong}, "correct horse battery")


def test_nothing_of_a_passphrase_is_in_the_terms():
    lock = sealing.new_lock("correct horse battery")
    assert lock.key.hex() not in repr(lock)
    assert set(lock.terms()) == {"kdf", "salt", "operations", "memory_bytes"}
