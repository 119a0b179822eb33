"""Facts of any size from a seed, without a database: features, devices, columns, alerts, names."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from fleet.reports import comparing
from fleet.reports.composing import compose
from fleet.reports.content import Alert, Performance, Report
from fleet.reports.facts import Facts, Member, Subject
from fleet.reports.span import Columns
from fleet.settings import FleetSettings
from fleet.telemetry import baselines
from fleet.telemetry.figures import Figure, figures
from fleet.telemetry.layout import Layout
from fleet.telemetry.performance import Limits, Tally
from fleet.telemetry.vectors import Calendar
from fleet.telemetry.verdict import Rule
from shared.sketches import Baseline, FeatureBaseline, Latency, count, quantile_edges

NOW = datetime(2026, 11, 26, 10, 45, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'&$x_1$"
SETTINGS = FleetSettings()


def layout(features: int, name: str = "input.f") -> Layout:
    rng = np.random.default_rng(1)
    values = rng.normal(0.5, 0.1, 2000)
    edges = quantile_edges(list(values))
    counts = tuple(count(edges, values)[0])
    made = [
        FeatureBaseline(name=f"{name}{it}"[:64], group="input", kind="quantity", edges=edges, counts=counts)
        for it in range(features - 1)
    ]
    made.append(
        FeatureBaseline(
            name="class.predicted", group="class", kind="category",
            edges=tuple(0.5 + it for it in range(9)), counts=(200,) * 10,
        )
    )  # fmt: skip
    baseline = Baseline(model="digits", version="1.0.0", samples=2000, features=tuple(made))
    return Layout.of(baselines.references(baseline.model_dump(mode="json")))


def facts(seed: int, *, devices: int, features: int, columns: int, name: str = "cam-", most: int = 400) -> Facts:
    """Random sums: some cells empty, some small, some far away from the reference."""
    rng, made, rule = np.random.default_rng(seed), layout(features, name), Rule.of(SETTINGS)
    calendar = Calendar.of(1.0)
    hours = 24
    first = calendar.day(calendar.hour(NOW)) * 24 - (columns - 1) * hours
    cut = Columns(first, hours, columns)
    subject = Subject("digits", "1.0.0", "fleet", calendar.begin(first), NOW, cut, calendar)
    heavy = np.ones((1, len(made.names)))
    whole = np.zeros((columns, made.size), dtype=np.int64)
    sites: dict[str, Any] = {}
    found = []
    for number in range(devices):
        counts = rng.integers(0, most, (columns, made.size)) * (rng.random((columns, 1)) < 0.8)
        site = f"{name}site {number % 40}"
        one = comparing.compare(counts[None], made.vector[None], heavy, made, rule)[0]
        found.append(comparing.device(f"{name}{number}", site, one, made))
        whole += counts
        sites[site] = sites[site] + counts if site in sites else counts
    alerts = [
        Alert(f"al-{it}", "drift", f"device:{name}{it}", "high", "open" if it % 2 else "resolved",
              f"{name} moved " * 40, NOW - timedelta(days=it), None if it % 2 else NOW)
        for it in range(min(devices, 100))
    ]  # fmt: skip
    one = comparing.compare(whole[None], made.vector[None], heavy, made, rule)[0]
    return Facts(
        subject=subject, rule=rule, layout=made, whole=one,
        sites={key: comparing.compare(it[None], made.vector[None], heavy, made, rule)[0] for key, it in sites.items()},
        devices=found,
        members=[Member(f"{name}{it}", f"{name}site", NOW, True, it % 3) for it in range(devices + 30)],
        alerts=alerts, alerted={it.scope: [(made.names[0], it)] for it in alerts}, states={made.names[0]: "drifted"},
        performance=performance(), requests=1000, failed=20, others=("0.9.0", name),
    )  # fmt: skip


def performance(*more: Figure) -> Performance:
    tally = Tally.of(500, 430, [(it % 10, it % 10 if it % 7 else 0, 5) for it in range(100)], {"120": 400, "150": 100})
    known = figures(Limits.of(SETTINGS), tally, {"accuracy": 0.95, "precision": 0.9}, Latency({110: 1000}))
    return Performance((*known, *more), ("cam-1",), "Latency is compared with the past.", NOW)


def report(seed: int = 1, **more: Any) -> Report:
    size = {"devices": 6, "features": 4, "columns": 7, **more}
    return compose(facts(seed, **size), NOW)
