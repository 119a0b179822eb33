"""Telemetry windows and update reports, each stored once.

I/O: none.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import insert, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Deployment, Report, UtcDateTime, Window
from shared.messages import TelemetryWindow, UpdateReport


async def insert_windows(tx: AsyncSession, said: Sequence[TelemetryWindow], *, now: datetime) -> None:
    """Store windows that ingest has accepted, all of them or none."""
    rows = [
        {
            "device_id": window.device,
            "stream": window.stream,
            "sequence": window.sequence,
            "model": window.model,
            "version": window.version,
            "start": window.start,
            "end": window.end,
            "received_at": now,
            "requests": window.requests,
            "failed": sum(window.errors.values()),
            "body": window.model_dump(mode="json", exclude_none=True),
            "counted": False,
        }
        for window in said
    ]
    if rows:
        await (await tx.connection()).execute(insert(Window), rows)


async def deployments(tx: AsyncSession, said: Sequence[UpdateReport]) -> Sequence[Deployment]:
    """What these reports speak of, in `tx`: as long as somebody holds it, `tx.get` of one asks nobody."""
    rollouts = {report.rollout for report in said if report.rollout}
    if not rollouts:
        return ()
    names = {report.device for report in said}
    query = select(Deployment).where(Deployment.rollout_id.in_(rollouts), Deployment.device_id.in_(names))
    return (await tx.scalars(query)).all()


def insert_report(tx: AsyncSession, report: UpdateReport, *, now: datetime) -> None:
    """Store a report that ingest has accepted."""
    tx.add(
        Report(
            device_id=report.device,
            stream=report.stream,
            sequence=report.sequence,
            rollout_id=report.rollout,
            phase=report.phase,
            received_at=now,
            body=report.model_dump(mode="json", exclude_none=True),
        )
    )


Name = tuple[str, str, int]  # device, stream, sequence


class Performance(NamedTuple):
    """What one window says of how well and how fast a release answers."""

    name: Name
    received_at: datetime
    start: datetime  # by the device's clock, as `end`
    end: datetime
    model: str
    version: str
    latency: Mapping[str, int]
    labelled: int
    correct: int
    confusion: Sequence[tuple[int, int, int]]

    @property
    def device(self) -> str:
        """Who told it."""
        return self.name[0]


async def performances(
    tx: AsyncSession, after: datetime, *, page: int, model: str | None = None
) -> AsyncIterator[Performance]:
    """Of every window (of one model) that came later than `after`, in order, read by so many at a time."""
    order = (Window.received_at, Window.device_id, Window.stream, Window.sequence)
    body = (Window.body[name] for name in ("latency", "labelled", "correct", "confusion"))
    columns = (*order, Window.start, Window.end, Window.model, Window.version, *body)
    query = select(*columns).order_by(*order).limit(page)
    query = query if model is None else query.where(Window.model == model)
    condition = Window.received_at > after
    while True:
        rows = (await tx.execute(query.where(condition))).all()
        for row in rows:
            latency, labelled, correct, confusion = row[8:]
            yield Performance(
                name=(row[1], row[2], row[3]),
                received_at=row[0],
                start=row[4],
                end=row[5],
                model=row[6],
                version=row[7],
                latency=latency or {},
                labelled=labelled or 0,
                correct=correct or 0,
                confusion=confusion or (),
            )
        if len(rows) < page:
            return
        last = (literal(rows[-1][0], UtcDateTime()), *rows[-1][1:4])
        condition = tuple_(*order) > tuple_(*last)
