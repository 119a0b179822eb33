"""Is the manager alive, is it ready, how is it doing: for systemd, load balancers, Prometheus.

I/O: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import func, select

from fleet.api.context import Actor, allow, manager_of, public
from fleet.store import devices, leadership
from fleet.store.tables import Alert, Deployment, Device, Metadata, Rollout
from shared.errors import FlotillaError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

router = APIRouter(tags=["health"])


@router.get("/healthz", dependencies=[Depends(public())], summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", dependencies=[Depends(public())], summary="Database and broker answer; 503 when not")
async def readyz(request: Request) -> JSONResponse:
    """`checks` says which part is missing. An uninitialised trust is told, but does not make the manager unready.

    `role` is leader or follower, `leader` where the one that leads is (null: nobody yet). A follower needs no broker.
    """
    manager = manager_of(request)
    leads = manager.leadership.leads
    connected = manager.link.connected or not leads
    checks = {"database": "ok", "broker": "ok" if connected else manager.link.failure or "no connection"}
    trust, leader = "unknown", manager.manager_url if leads else None
    try:
        async with manager.database.read() as tx:
            root = await tx.scalar(select(func.max(Metadata.version)).where(Metadata.role == "root"))
            behind = await manager.repository.behind(tx)
            row = None if leads else await leadership.leader(tx)
        leader = leader if row is None else row.url
        trust = "initialised" if root else "not initialised: flotilla init"
        trust = "restored from a backup: flotilla init" if behind else trust
    except (FlotillaError, OSError, RuntimeError) as error:
        checks["database"] = type(error).__name__
    ready = all(state == "ok" for state in checks.values())
    role = "leader" if leads else "follower"
    body = {"ready": ready, "checks": checks, "trust": trust, "role": role, "leader": leader}
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", response_class=PlainTextResponse, summary="Prometheus text format")
async def metrics(request: Request, _actor: Annotated[Actor, Depends(allow("devices:read"))]) -> PlainTextResponse:
    """Give Prometheus a token with the role viewer (`authorization: credentials_file`)."""
    manager = manager_of(request)
    async with manager.database.read() as tx:
        gauges = await _gauges(tx)
    gauges["flotilla_messages_stored_total"] = {"": manager.ingest.stored}
    gauges["flotilla_messages_dropped_total"] = {"": manager.ingest.dropped}
    gauges["flotilla_messages_forged_total"] = {"": manager.ingest.forged}
    gauges["flotilla_leader"] = {"": int(manager.leadership.leads)}
    gauges["flotilla_leader_term"] = {"": manager.leadership.term}
    gauges["flotilla_pieces_sent_bytes_total"] = {"": manager.courier.sent_bytes}
    gauges["flotilla_peer_turns_total"] = {"": manager.peers.ledger.turns}
    gauges["flotilla_peer_turns_beyond_total"] = {"": manager.peers.ledger.turns_beyond}
    gauges["flotilla_broker_connected"] = {"": int(manager.link.connected)}
    return PlainTextResponse("\n".join(_lines(gauges)) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


async def _gauges(tx: AsyncSession) -> dict[str, dict[str, Any]]:
    online = await tx.scalar(select(func.count()).select_from(Device).where(Device.online))
    return {
        "flotilla_devices": _by("lifecycle", await devices.count_by_lifecycle(tx)),
        "flotilla_devices_online": {"": online or 0},
        "flotilla_rollouts": _by("state", await _count(tx, Rollout.state)),
        "flotilla_deployments": _by("state", await _count(tx, Deployment.state)),
        "flotilla_alerts": _by("state", await _count(tx, Alert.state)),
    }


async def _count(tx: AsyncSession, column: Any) -> dict[str, int]:
    rows = await tx.execute(select(column, func.count()).group_by(column))
    return {row[0]: row[1] for row in rows}


def _by(label: str, numbers: Mapping[str, int]) -> dict[str, int]:
    return {f'{{{label}="{value}"}}': number for value, number in sorted(numbers.items())}


def _lines(gauges: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, series in gauges.items():
        yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
        yield from (f"{name}{labels} {value}" for labels, value in series.items())
