"""Devices that leave. Their signature is the credential: nobody can leave in the name of another one.

I/O: none.
"""

from typing import Any, Final

from fastapi import APIRouter, Depends, Request

from fleet.access.roles import system
from fleet.api.context import manager_of, public
from fleet.api.problems import NotFoundError
from fleet.store import audit, devices, events
from shared import seal
from shared.leaving import TOPIC, Goodbye
from shared.messages import MAX_PAYLOAD_BYTES
from shared.seal import SealError

router = APIRouter(tags=["devices"])

_HEAD: Final = len(seal.MARK) + seal.SIGNATURE_BYTES


@router.post("/api/v1/leave", dependencies=[Depends(public())], summary="This device leaves the fleet for good")
async def leave(request: Request) -> dict[str, Any]:
    """A signed `goodbye/1` (docs/protocol.md): the device is revoked at once. Repeating it is harmless."""
    manager = manager_of(request)
    body = await request.body()
    if len(body) > MAX_PAYLOAD_BYTES or not body.startswith(seal.MARK):
        raise SealError("a goodbye without a signature")
    name = Goodbye.parse(body[_HEAD:]).device
    now = manager.clock.now()
    async with manager.database.write() as tx:
        device = await devices.get(tx, name)
        if device is None:
            raise NotFoundError(f"there is no device {name}", remedy="nothing: it is not part of this fleet")
        seal.opened(body, topic=TOPIC, key=device.sign_key, required=True)
        if device.lifecycle != "revoked":
            device.lifecycle, device.online, device.api_key_hash = "revoked", False, ""
            text = f"{device.id} left the fleet: flotilla-agent was uninstalled"
            await events.add(tx, kind="device", level="warn", subject=device.id, text=text, now=now)
            actor = system("leave")
            await audit.record(tx, actor=actor, action="device.leave", subject=device.id, body={}, now=now)
    manager.cut_off(name)
    await manager.announcer.retract(name)
    manager.hub.wake()
    return {"device": name, "lifecycle": "revoked"}
