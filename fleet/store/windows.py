"""Telemetry windows and update reports, each stored once.

I/O: none.
"""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store.tables import Report, Window
from shared.messages import TelemetryWindow, UpdateReport


def insert_window(tx: AsyncSession, window: TelemetryWindow, *, now: datetime) -> None:
    """Store a window that ingest has accepted."""
    tx.add(
        Window(
            device_id=window.device,
            stream=window.stream,
            sequence=window.sequence,
            model=window.model,
            version=window.version,
            start=window.start,
            end=window.end,
            received_at=now,
            requests=window.requests,
            failed=sum(window.errors.values()),
            body=window.model_dump(mode="json", exclude_none=True),
        )
    )


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
