"""The root of trust of this fleet: what people signed, and the public keys that they must name.

I/O: chance.
"""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.api.context import Actor, allow, manager_of
from fleet.releases import documents
from fleet.store import audit, devices, events
from fleet.store import releases as store
from shared.identifiers import NAME_PATTERN

router = APIRouter(tags=["trust"])


class NewTrust(BaseModel):
    """Signed documents, as text."""

    model_config = ConfigDict(extra="forbid")

    root: Annotated[str, Field(description="TUF root: the first one, or the next one", max_length=1 << 20)]
    targets: Annotated[str, Field(description="TUF top-level targets signed for it", max_length=4 << 20)]
    roles: Annotated[dict[str, str], Field(description="model roles that had to be signed anew", max_length=1024)] = {}


class Trust(BaseModel):
    """What this manager trusts and holds."""

    initialised: bool
    root: str | None
    targets: str | None
    roles: dict[str, str]
    online_keys: dict[str, dict[str, Any]]
    escrow_key: str
    floor: Annotated[int, Field(description="after a restore: no version or counter is below this")] = 0
    served: Annotated[
        list[str], Field(description="after a restore: models that devices serve, known here or not")
    ] = []


@router.get("/api/v1/trust", summary="Signed documents and the manager's public keys")
async def get_trust(request: Request, _actor: Annotated[Actor, Depends(allow("releases:read"))]) -> Trust:
    """Everything that is needed to sign a release for this fleet."""
    manager = manager_of(request)
    async with manager.database.read() as tx:
        known = {role: row.data.decode() for role, row in (await store.newest_documents(tx)).items()}
        floor = await store.floor(tx)
        served = {model for models in (await devices.serving(tx)).values() for model in models} if floor else set()
        served = {model for model in served if re.fullmatch(NAME_PATTERN, model)}  # nobody signed what devices say
    return Trust(
        initialised="root" in known and "targets" in known,
        root=known.get("root"),
        targets=known.get("targets"),
        roles={role: text for role, text in known.items() if role.startswith("model-")},
        online_keys=manager.online_keys.public(),
        escrow_key=manager.online_keys.escrow_public(),
        floor=floor,
        served=sorted(served),
    )


@router.post("/api/v1/trust", summary="Give the manager its first, or its next, root of trust")
async def post_trust(new: NewTrust, request: Request, actor: Annotated[Actor, Depends(allow("trust:write"))]) -> Trust:
    """Accepted only if every device would accept it. Repeating it is harmless."""
    manager = manager_of(request)
    now = manager.clock.now()
    root, targets = new.root.encode(), new.targets.encode()
    async with manager.database.write() as tx:
        before = await store.document(tx, "root")
        await manager.repository.trust(
            tx, root=root, targets=targets, roles={role: text.encode() for role, text in new.roles.items()}, now=now
        )
        version = documents.version_of(root)
        await audit.record(
            tx, actor=actor, action="trust.write", subject=f"root {version}", body={"roles": sorted(new.roles)}, now=now
        )
        if before is None or before.version != version:
            text = "root of trust set" if before is None else f"root of trust renewed: version {version}"
            await events.add(tx, kind="release", level="info", subject=f"root {version}", text=text, now=now)
    manager.hub.wake()
    return await get_trust(request, actor)
