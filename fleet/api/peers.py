"""Devices of one site ask about each other. Their signature is the credential, so a copy of it opens nothing else.

I/O: chance.
"""

from fastapi import APIRouter, Depends, Request, Response

from fleet.api.context import manager_of, public
from fleet.peers.desk import PeerDesk
from fleet.store import devices

router = APIRouter(tags=["releases"])


@router.post("/api/v1/peers", dependencies=[Depends(public())], summary="Which devices of my site have these chunks")
async def ask(request: Request) -> Response:
    """A signed `peer-ask/1`, answered by `peer-answer/1` (docs/protocol.md)."""
    manager = manager_of(request)
    body = await request.body()
    name = PeerDesk.named(body)
    async with manager.database.read() as tx:
        device = await devices.get(tx, name)
        members = await manager.peers.members(tx, device)
    return Response(manager.peers.answer(body, device, members).to_bytes(), media_type="application/json")
