"""The shell of written reports: a drift alert opens, or a day is over for a model that serves -> files in a folder.

    alert without a report ──► its release, device or site ──► drift-alert-ID.html and .svg ──► the alert names it
    release that serves    ──► the fleet, once a day       ──► drift-DATE-MODEL-VERSION.html and .svg

The alert's own `body.report` says that it was done, so a restart writes nothing twice. A disk that fails is told as an
event, once until it works again, and harms nothing else.

I/O: disk, tasks.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

from fleet.api.problems import NotFoundError
from fleet.driver_parts import DriverParts
from fleet.reports import html
from fleet.reports.content import Feature, Report
from fleet.reports.errors import SpanError
from fleet.reports.folder import Folder
from fleet.reports.gathering import Wish
from fleet.reports.reporter import Reporter, plain, written
from fleet.store import alerts as alert_store
from fleet.store import devices, events, tables
from fleet.telemetry.finding import FLEET, level

logger = logging.getLogger(__name__)

REST_SECONDS: Final = 10.0
#: Looked again after so long without news, for the daily ones.
PATIENCE_SECONDS: Final = 600.0
#: Reports of one look: a storm of alerts must not keep the manager busy for hours.
MOST: Final = 20
_WEEK: Final = 7  # detection windows that a report looks back

Release = tuple[str, str]


class ReportDriver:
    """Writes reports by itself. One per manager."""

    def __init__(self, parts: DriverParts) -> None:
        chosen = parts.settings.drift_detection
        self._parts, self._wanted = parts, chosen.enable_visualization
        self._reporter = Reporter(parts)
        self._folder = Folder(parts.settings.reports_dir, chosen.report_files_kept)
        self._span = timedelta(days=chosen.detection_window_days) * _WEEK
        self._daily: dict[Release, date] = {}
        self._failing = False

    async def run(self) -> None:
        """Until cancelled: look when something was committed, and every ten minutes."""
        seen = -1
        while True:
            if self._wanted:
                await self.evaluate()
            await asyncio.sleep(REST_SECONDS)
            seen = await self._parts.hub.wait(seen, PATIENCE_SECONDS)

    async def evaluate(self) -> None:
        """Write what is owed now, some at a time; nothing when it is switched off."""
        if not self._wanted:
            return
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            live = await alert_store.live(tx, kind="drift")
            serving = await devices.serving(tx)
        for alert in [alert for alert in live if "report" not in alert.body][:MOST]:
            await self._for_alert(alert, now)
        releases = {(model, version) for versions in serving.values() for model, version in versions.items()}
        for release in sorted(releases):
            if self._daily.get(release) != now.date():
                await self._for_day(release, now)

    async def _for_alert(self, alert: tables.Alert, now: datetime) -> None:
        model, version = str(alert.body.get("model", "")), str(alert.body.get("version", ""))
        scope = alert.scope if level(alert.scope) in ("device", "site") else FLEET
        written_to = await self._write(
            Wish(model, version, scope, now - self._span, now),
            f"drift-alert-{plain(alert.id)}",
            alert.body.get("feature"),
        )
        if written_to is None and self._failing:
            return  # the disk: tried again at the next look
        async with self._parts.database.write() as tx:
            row = await alert_store.get(tx, alert.id)
            if row is not None:
                row.body = {**row.body, "report": None if written_to is None else str(written_to)}

    async def _for_day(self, release: Release, now: datetime) -> None:
        model, version = release
        stem = f"drift-{now:%Y%m%d}-{plain(f'{model}-{version}')}"
        if not await asyncio.to_thread(self._folder.has, f"{stem}.html"):
            await self._write(Wish(model, version, FLEET, now - self._span, now), stem, None)
        if not self._failing:
            self._daily[release] = now.date()

    async def _write(self, wish: Wish, stem: str, feature: object) -> Path | None:
        """The page that was written; None when there is nothing to report, or the disk fails."""
        try:
            report = await self._reporter.report(wish)
        except (NotFoundError, SpanError) as error:
            logger.info(
                "no report model=%s version=%s scope=%s: %s", wish.model, wish.version, wish.scope, error.detail
            )
            return None
        try:
            await asyncio.to_thread(self._store, report, stem, feature)
        except OSError as error:
            await self._told(f"reports of drift cannot be written to {self._folder.path}: {error.strerror or error}")
            return None
        self._failing = False
        logger.info("report written file=%s.html", stem)
        return self._folder.path.absolute() / f"{stem}.html"

    def _store(self, report: Report, stem: str, feature: object) -> None:
        """On a thread: drawing and writing."""
        files = {f"{stem}.html": written(report, "html")}
        drawn = _chosen(report.features, feature)
        if drawn is not None:
            files[f"{stem}.svg"] = html.plot(report, drawn)
        self._folder.write(files)

    async def _told(self, text: str) -> None:
        if self._failing:
            return
        self._failing = True
        logger.warning("%s", text)
        async with self._parts.database.write() as tx:
            now = self._parts.clock.now()
            await events.add(tx, kind="drift", level="warn", subject="reports", text=text, now=now)


def _chosen(features: Sequence[Feature], name: object) -> Feature | None:
    """The feature of the alert, else the first: the gravest."""
    return next((one for one in features if one.name == name), features[0] if features else None)
