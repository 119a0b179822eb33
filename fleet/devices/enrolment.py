"""Let a device in: a claim token that somebody made for it, and the proof that it holds the key it names.

I/O: none.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.access.roles import system
from fleet.store import audit, devices, events, releases
from fleet.store.tables import Device, Invite
from shared.errors import BadInputError, RefusedError
from shared.identifiers import sha256

KEY_BYTES: Final = 32
_CONTEXT: Final = b"flotilla/enroll/1"


class ClaimError(RefusedError):
    """The claim token opens nothing: unknown, expired, or used up."""

    code = "E_CLAIM"
    status: ClassVar[int] = 403
    default_remedy = "ask an operator for a new one: flotilla device invite"


class ProofError(RefusedError):
    """The device could not prove that it holds the key it names."""

    code = "E_PROOF"
    status: ClassVar[int] = 403
    default_remedy = "enrol with flotilla-agent, which makes its keys itself"


class TakenError(RefusedError):
    """Another device enrolled under this id, or this one was shut out."""

    code = "E_DEVICE_EXISTS"
    status: ClassVar[int] = 409
    default_remedy = "choose another --id, or revoke the old device first and remove it: flotilla device reject ID"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a device asks with. Keys are raw."""

    token_hash: str  # as the manager keeps it
    token_digest: str  # SHA-256 of the token, as the device signed it
    device_id: str
    name: str
    hardware: str
    agent_version: str
    sign_key: bytes
    box_key: bytes
    proof: bytes


def raw_key(text: str, what: str) -> bytes:
    """The 32 bytes in base64 `text`.

    Raises:
        BadInputError: not 32 bytes in base64.
    """
    try:
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise BadInputError(f"{what} is not {KEY_BYTES} bytes in base64")
    return key


def signed_bytes(token_digest: str, device_id: str, box_key: bytes) -> bytes:
    """What the device signs with its new key."""
    return b"|".join((_CONTEXT, token_digest.encode(), device_id.encode(), base64.b64encode(box_key)))


def token_digest(token: str) -> str:
    """The form of a claim token inside the signed bytes."""
    return sha256(token.encode())


def check_proof(claim: Claim) -> None:
    """Return if the claim is signed by the key that it names.

    Raises:
        ProofError: it is not.
    """
    said = signed_bytes(claim.token_digest, claim.device_id, claim.box_key)
    try:
        VerifyKey(claim.sign_key).verify(said, claim.proof)
    except (BadSignatureError, ValueError, TypeError):
        raise ProofError("the proof is not a signature by sign_key over this enrolment") from None


#: The digest of a claim without a token.
NO_TOKEN: Final = token_digest("")


async def admit(
    tx: AsyncSession, claim: Claim, *, api_key_hash: str, now: datetime, need_invite: bool = True
) -> Device:
    """The device, enrolled with a fresh API key. The same device with the same keys may come again.

    Without `need_invite` a device may come without a claim token; it waits until somebody accepts it.

    Raises:
        ProofError, ClaimError, TakenError: it may not come in.
    """
    check_proof(claim)
    invite = None
    if need_invite or claim.token_digest != NO_TOKEN:
        invite = await devices.invite_of(tx, claim.token_hash, now)
        if invite is None:
            missing = claim.token_digest == NO_TOKEN
            raise ClaimError("no claim token was given" if missing else "the claim token is unknown or expired")
    known = await devices.get(tx, claim.device_id)
    if known is not None:
        return await _again(tx, known, claim, api_key_hash, now)
    if invite is not None and not await devices.use_invite(tx, invite.id, now):
        raise ClaimError("the claim token was used as often as it may be")
    device = _new(claim, invite, api_key_hash, now)
    device.assignment = await releases.floor(tx)  # it may have been here before, in a time that a restore undid
    tx.add(device)
    waits = "" if device.lifecycle == "active" else " and waits to be accepted"
    await _tell(tx, device, f"{device.id} enrolled{waits}", "device.enroll", invite, now)
    return device


async def _again(tx: AsyncSession, known: Device, claim: Claim, api_key_hash: str, now: datetime) -> Device:
    if known.lifecycle == "revoked":
        raise TakenError(f"device {known.id} was revoked")
    if (known.sign_key, known.box_key) != (claim.sign_key, claim.box_key):
        raise TakenError(f"another device is enrolled as {known.id}")
    known.api_key_hash = api_key_hash
    await _tell(tx, known, f"{known.id} enrolled again with the same keys", "device.enroll-again", None, now)
    return known


def _new(claim: Claim, invite: Invite | None, api_key_hash: str, now: datetime) -> Device:
    return Device(
        id=claim.device_id,
        name=claim.name or claim.device_id,
        site=invite.site if invite else "",
        labels=dict(invite.labels) if invite else {},
        hardware=claim.hardware,
        lifecycle="active" if invite is not None and invite.auto_accept else "pending",
        sign_key=claim.sign_key,
        box_key=claim.box_key,
        api_key_hash=api_key_hash,
        enrolled_at=now,
        agent_version=claim.agent_version,
        slots=[],
        serving={},
    )


async def _tell(tx: AsyncSession, device: Device, text: str, action: str, invite: Invite | None, now: datetime) -> None:
    await events.add(tx, kind="device", level="info", subject=device.id, text=text, now=now)
    body = {"lifecycle": device.lifecycle, "fingerprint": fingerprint(device.sign_key)}
    if invite is not None:
        body["invite"] = invite.id
    await audit.record(tx, actor=system("enrolment"), action=action, subject=device.id, body=body, now=now)


def fingerprint(sign_key: bytes) -> str:
    """The first 16 hexadecimal characters of the key's digest: what the waiting room compares."""
    return sha256(sign_key)[:16]
