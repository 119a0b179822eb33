"""How a device becomes known. The only route that strangers may write to.

I/O: chance.
"""

import base64
import binascii
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.access.secrets import new_secret
from fleet.api.context import Problem, manager_of, public
from fleet.devices import enrolment
from fleet.releases.errors import NotInitialisedError
from fleet.store import releases
from shared.errors import BadInputError
from shared.identifiers import DeviceId

router = APIRouter(tags=["enrolment"])


class Enrolment(BaseModel):
    """Keys are raw 32 bytes in base64; `proof` signs the claim (docs/protocol.md)."""

    model_config = ConfigDict(extra="forbid")

    claim_token: Annotated[str, Field(max_length=200)] = ""  # without: `deployment.require_device_authentication`
    device_id: DeviceId
    name: Annotated[str, Field(max_length=128)] = ""
    hardware: Annotated[str, Field(max_length=64)] = ""
    agent_version: Annotated[str, Field(max_length=32)] = ""
    sign_key: Annotated[str, Field(max_length=64)]
    box_key: Annotated[str, Field(max_length=64)]
    proof: Annotated[str, Field(max_length=128)]


@router.post(
    "/api/v1/enroll", status_code=201, dependencies=[Depends(public())], summary="Enrol this device with a claim token"
)
async def enroll(new: Enrolment, request: Request) -> dict[str, Any]:
    """Repeating it with the same keys while the token is valid is harmless: a new API key replaces the old one."""
    manager = manager_of(request)
    address = request.client.host if request.client else ""
    if not manager.enrolments.take(address, manager.clock.monotonic()):
        raise Problem(
            429,
            "E_TOO_MANY",
            "Too many attempts",
            "this address tries to enrol too often",
            "wait a minute",
            headers={"Retry-After": "60"},
        )
    settings = manager.settings
    api_key = new_secret("key", settings.security.api_key_length)
    async with manager.database.write() as tx:
        root = await releases.document(tx, "root")
        if root is None:
            raise NotInitialisedError(
                "this manager has no root of trust yet", remedy="an admin runs once: flotilla init"
            )
        device = await enrolment.admit(
            tx,
            _claim(new, manager.pepper.digest(new.claim_token)),
            api_key_hash=manager.pepper.digest(api_key),
            now=manager.clock.now(),
            need_invite=settings.deployment.require_device_authentication,
        )
    manager.hub.wake()
    return {
        "device_id": device.id,
        "lifecycle": device.lifecycle,
        "api_key": api_key,
        "mqtt": {"url": manager.mqtt_url, "username": device.id, "password": api_key},
        "root": root.data.decode(),
        "manager_url": manager.manager_url,
    }


def _claim(new: Enrolment, token_hash: str) -> enrolment.Claim:
    try:
        proof = base64.b64decode(new.proof, validate=True)
    except (ValueError, binascii.Error):
        raise BadInputError("proof is not base64") from None
    return enrolment.Claim(
        token_hash=token_hash,
        token_digest=enrolment.token_digest(new.claim_token),
        device_id=new.device_id,
        name=new.name,
        hardware=new.hardware,
        agent_version=new.agent_version,
        sign_key=enrolment.raw_key(new.sign_key, "sign_key"),
        box_key=enrolment.raw_key(new.box_key, "box_key"),
        proof=proof,
    )
