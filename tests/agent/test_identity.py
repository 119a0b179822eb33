from pathlib import Path

import pytest
from nacl.public import PublicKey, SealedBox
from nacl.signing import VerifyKey

from agent import identity
from agent.errors import IdentityError, NotEnrolledError, StateFolderError
from agent.identity import BrokerAccount, Enrolment
from shared import signing

ENROLMENT = Enrolment(
    device_id="dev-a",
    lifecycle="accepted",
    api_key="secret",
    mqtt=BrokerAccount(url="mqtt://b:1883", username="dev-a", password="secret"),
    root='{"signed": 1}',
    manager_url="http://m",
)


def test_keys_are_made_once_and_stay(tmp_path: Path) -> None:
    first = identity.keys(tmp_path)
    assert identity.keys(tmp_path) == first
    assert identity.keys(tmp_path / "another") != first


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    identity.keys(tmp_path)
    identity.save(tmp_path, ENROLMENT)
    folder = tmp_path / "identity"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        "keys.json": 0o600,
        "enrolment.json": 0o600,
    }


def test_keys_sign_and_open_what_is_sealed_for_them(tmp_path: Path) -> None:
    keys = identity.keys(tmp_path)
    assert VerifyKey(keys.sign_public).verify(b"hello", keys.signature(b"hello")) == b"hello"
    assert signing.unseal(signing.seal(b"content key", keys.box_public), keys.box) == b"content key"
    assert SealedBox(PublicKey(keys.box_public)) is not None


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    keys = identity.keys(tmp_path)
    assert str(keys.sign) not in repr(keys)
    assert str(keys.box) not in repr(keys)


@pytest.mark.parametrize("text", ["", "{}", '{"sign": "AA==", "box": "AA=="}', '{"sign": 1, "box": 2}', "[]"])
def test_damaged_keys_are_never_replaced_silently(text: str, tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity/keys.json").write_text(text)
    with pytest.raises(IdentityError):
        identity.keys(tmp_path)
    assert (tmp_path / "identity/keys.json").read_text() == text


def test_an_enrolment_survives(tmp_path: Path) -> None:
    identity.save(tmp_path, ENROLMENT)
    identity.save(tmp_path, ENROLMENT)
    assert identity.enrolment(tmp_path) == ENROLMENT


def test_no_enrolment_says_how_to_enroll(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolledError) as caught:
        identity.enrolment(tmp_path)
    assert "flotilla-agent enroll" in caught.value.remedy


def test_a_damaged_enrolment_is_told(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity/enrolment.json").write_text('{"device_id": "dev-a"}')
    with pytest.raises(IdentityError):
        identity.enrolment(tmp_path)


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "identity").write_text("")
    with pytest.raises(StateFolderError):
        identity.save(tmp_path, ENROLMENT)
