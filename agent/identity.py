"""Who this device is: keys made here that never leave, and what the manager answered to enrolment.

    <state_dir>/identity/keys.json        Ed25519 seed and X25519 private key, 0600
    <state_dir>/identity/enrolment.json   id, manager, broker and its password, first trusted root, 0600

I/O: disk.
"""

import base64
import binascii
import json
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Final, Self

from nacl.public import PrivateKey
from nacl.signing import SigningKey
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.errors import IdentityError, NotEnrolledError, StateFolderError
from shared.durable import make_folder, replace_file
from shared.identifiers import DeviceId, sha256

FOLDER: Final = "identity"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """The two private keys of this device."""

    sign: bytes = field(repr=False)  # Ed25519 seed
    box: bytes = field(repr=False)  # X25519 private key

    @classmethod
    def make(cls) -> Self:
        """New keys."""
        return cls(bytes(SigningKey.generate()), bytes(PrivateKey.generate()))

    @property
    def sign_public(self) -> bytes:
        """Who signed: 32 bytes."""
        return bytes(SigningKey(self.sign).verify_key)

    @property
    def box_public(self) -> bytes:
        """To whom content keys are sealed: 32 bytes."""
        return bytes(PrivateKey(self.box).public_key)

    def signature(self, data: bytes) -> bytes:
        """64 bytes that prove possession of `sign`."""
        return SigningKey(self.sign).sign(data).signature

    @property
    def fingerprint(self) -> str:
        """Short name of these keys, for people to compare."""
        return sha256(self.sign_public + self.box_public)[:16]


class BrokerAccount(BaseModel):
    """How this device logs in at the broker."""

    model_config = ConfigDict(frozen=True)

    url: str
    username: str | None = None
    password: str | None = None


class Enrolment(BaseModel):
    """What the manager answered. `root` is the newest TUF root metadata then, signed bytes as text."""

    model_config = ConfigDict(frozen=True)

    device_id: DeviceId
    lifecycle: str
    api_key: str
    mqtt: BrokerAccount
    root: str
    manager_url: str


def agent_version() -> str:
    """Of the installed distribution."""
    try:
        return metadata.version("flotilla-edge")
    except metadata.PackageNotFoundError:
        return "0+source"


def keys(state_dir: Path) -> Keys:
    """The keys of this device; made and stored at the first call.

    Raises:
        IdentityError: the stored keys are damaged.
        StateFolderError: they cannot be read or stored.
    """
    path = state_dir / FOLDER / "keys.json"
    try:
        if path.exists():
            return _parsed(path)
        made = Keys.make()
        make_folder(path.parent)
        document = {name: base64.b64encode(value).decode() for name, value in (("sign", made.sign), ("box", made.box))}
        replace_file(path, json.dumps(document).encode())
    except OSError as error:
        raise StateFolderError(f"{path}: {error.strerror}") from None
    return made


def _parsed(path: Path) -> Keys:
    try:
        document = json.loads(path.read_bytes())
        found = Keys(*(base64.b64decode(document[name], validate=True) for name in ("sign", "box")))
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise IdentityError(f"{path} is damaged") from None
    if len(found.sign) != _KEY_BYTES or len(found.box) != _KEY_BYTES:
        raise IdentityError(f"{path} holds keys of a wrong length")
    return found


def save(state_dir: Path, enrolment: Enrolment) -> None:
    """Store what the manager answered, durably. Again: replaces it.

    Raises:
        StateFolderError: it cannot be stored.
    """
    path = state_dir / FOLDER / "enrolment.json"
    try:
        make_folder(path.parent)
        replace_file(path, enrolment.model_dump_json(indent=1).encode())
    except OSError as error:
        raise StateFolderError(f"{path}: {error.strerror}") from None


def enrolment(state_dir: Path) -> Enrolment:
    """What the manager answered.

    Raises:
        NotEnrolledError: there was no enrolment.
        IdentityError: the file is damaged.
        StateFolderError: it cannot be read.
    """
    path = state_dir / FOLDER / "enrolment.json"
    try:
        return Enrolment.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotEnrolledError(f"there is no enrolment below {state_dir}") from None
    except OSError as error:
        raise StateFolderError(f"{path}: {error.strerror}") from None
    except ValidationError:
        raise IdentityError(f"{path} is damaged") from None
