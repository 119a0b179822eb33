"""A report as JSON: the same numbers and sentences as on paper. Names and meanings stay (docs/drift.md).

I/O: none.
"""

from datetime import datetime
from typing import Any, Final

from fleet.reports.content import Alert, Feature, Number, Report, Row
from fleet.telemetry.figures import figure_document
from shared.clock import rfc3339

TYPE: Final = "drift-report/1"


def document(report: Report) -> dict[str, Any]:
    """The JSON form."""
    return {
        "type": TYPE,
        "model": report.model,
        "version": report.version,
        "scope": report.scope,
        "since": rfc3339(report.since),
        "until": rfc3339(report.until),
        "made_at": rfc3339(report.made_at),
        "level": report.level,
        "headline": report.headline,
        "advice": report.advice,
        "other_versions": list(report.others),
        "cuts": dict(report.cuts),
        "numbers": [_number(one) for one in report.numbers],
        "features": [_feature(one) for one in report.features],
        "features_left_out": report.features_more,
        "column_seconds": report.column_seconds,
        "columns": [rfc3339(one) for one in report.columns],
        "strips": [
            {"title": strip.title, "rows": [_row(row) for row in strip.rows], "left_out": strip.more}
            for strip in report.strips
        ],
        "alerts": [_alert(one) for one in report.alerts],
        "alerts_left_out": report.alerts_more,
        "performance": {
            "as_of": _time(report.performance.as_of),
            "figures": [figure_document(one) for one in report.performance.figures],
            "slower_devices": list(report.performance.slower),
            "note": report.performance.note,
        },
        "coverage": {
            "numbers": [_number(one) for one in report.coverage.numbers],
            "silent_devices": [{"device": one.device, "seen_at": _time(one.seen_at)} for one in report.coverage.silent],
            "silent_left_out": report.coverage.silent_more,
        },
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def _number(one: Number) -> dict[str, Any]:
    return {"name": one.name, "value": one.value, "text": one.text, "level": one.level, "meaning": one.meaning}


def _feature(one: Feature) -> dict[str, Any]:
    return {
        "feature": one.name,
        "group": one.group,
        "kind": one.kind,
        "level": one.level,
        "text": one.text,
        "numbers": [_number(it) for it in one.numbers],
        "edges": list(one.edges),
        "reference": list(one.reference),
        "counts": list(one.live),
        "timeline": [
            {
                "start": rfc3339(point.start),
                "samples": point.samples,
                "psi_corrected": point.psi,
                "psi_limit": point.limit,
                "state": point.cell,
                "alarm": point.alarm,
            }
            for point in one.timeline
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "cells": list(row.cells),
        "alarms": sorted(row.alarms),
        "samples": row.samples,
        "worst_feature": row.worst or None,
        "psi_corrected": row.psi,
    }


def _alert(one: Alert) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "scope": one.scope,
        "severity": one.severity,
        "state": one.state,
        "text": one.text,
        "opened_at": rfc3339(one.opened_at),
        "resolved_at": _time(one.resolved_at),
    }
