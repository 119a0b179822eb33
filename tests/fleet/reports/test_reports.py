import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.reports import document, drawing, html
from fleet.reports.comparing import compare
from fleet.reports.composing import compose
from fleet.reports.content import LEVELS, Number, Performance, Report
from fleet.reports.reporter import name, written
from fleet.telemetry import drift
from fleet.telemetry.figures import Figure
from fleet.telemetry.verdict import Rule
from tests.fleet.reports.made import HOSTILE, NOW, SETTINGS, facts, layout, performance, report

VOID = {"meta", "rect", "path", "circle", "br"}


class Checked(HTMLParser):
    """Fails on a tag that is not closed in its turn; remembers tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: bytes) -> Checked:
    found = Checked()
    found.feed(page.decode())
    found.close()
    assert found.open == []
    return found


def numbers(one: Report) -> Iterator[Number]:
    yield from one.numbers
    yield from one.coverage.numbers
    for feature in one.features:
        yield from feature.numbers


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30), st.integers(1, 60), st.sampled_from([2, 40, 5000])
)
def test_any_sums_give_a_page_that_parses_stays_small_and_explains_every_number(
    seed: int, devices: int, features: int, columns: int, most: int
) -> None:
    made = report(seed, devices=devices, features=features, columns=columns, most=most)
    page = html.render(made)
    assert len(page) < 1_000_000
    text = " ".join(parsed(page).text.split())
    for one in numbers(made):
        assert one.meaning.endswith(".")
        assert "Here:" in one.meaning
        assert " ".join(one.meaning.split()) in text
    for figure in made.performance.figures:
        assert figure.text in text


def test_a_thousand_devices_with_twenty_features_and_the_longest_names_stay_below_a_megabyte() -> None:
    made = report(3, devices=1000, features=21, columns=60, name="&" * 50)
    page = html.render(made)
    assert len(page) < 1_000_000
    assert made.features_more == 1
    assert made.strips[1].more == 960
    assert "and 960 more, none of them worse." in parsed(page).text


def test_names_from_devices_are_only_ever_text() -> None:
    made = report(2, name=HOSTILE)
    page = parsed(html.render(made))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert all(not key.startswith("on") and key not in ("href", "src") for key, _ in page.attributes)


def test_the_page_names_nothing_outside_itself() -> None:
    text = html.render(report()).decode()
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src &#39;none&#39;" in text


def test_json_has_the_numbers_of_the_page() -> None:
    made = report()
    said: dict[str, Any] = json.loads(written(made, "json"))
    assert said == document.document(made)
    assert [it["feature"] for it in said["features"]] == [it.name for it in made.features]
    first = {it["name"]: it for it in said["features"][0]["numbers"]}
    assert set(first) == {
        "samples", "psi_corrected", "psi_limit", "ks", "wasserstein", "kl", "js_distance", "shift", "missing"
    }  # fmt: skip
    assert all(it["level"] in LEVELS and it["meaning"] for it in first.values())


def test_sizes_are_those_of_the_statistics_that_are_shown_everywhere() -> None:
    made, rule = layout(3), Rule.of(SETTINGS)
    counts = np.random.default_rng(4).integers(1, 60, (2, 3, made.size))
    found = compare(counts, np.stack([made.vector] * 2), np.full((2, 3), 2.0), made, rule)
    here, there = made.bins.sums(counts[1, 2][None])[0], made.bins.sums(made.vector[None])[0]
    table = drift.table(here, there, made.widths, made.numbers, rule.significance)
    assert found[1].psi[2] == pytest.approx([it.psi_corrected for it in table], abs=1e-12)
    assert found[1].limit[2] == pytest.approx([2 * it.psi_limit for it in table], rel=1e-12)
    assert found[1].total_samples.tolist() == [int(counts[1, :, made.places[it]].sum()) for it in made.names]


def test_too_few_samples_get_no_grade_but_the_smallest_psi_that_could_be_seen() -> None:
    made = report(devices=1, columns=1, most=2)
    feature = next(it for it in made.features if it.kind == "quantity" and it.level == "unknown")
    assert "insufficient data: smallest detectable PSI = " in feature.text
    assert any("insufficient data" in it.meaning for it in feature.numbers if it.name == "psi_corrected")
    assert all(cell in ("none", "few") for strip in made.strips for row in strip.rows for cell in row.cells)


def test_a_figure_of_a_kind_that_nobody_foresaw_is_shown_like_the_others() -> None:
    more = Figure("accuracy_estimate", 0.9, 0.85, 0.95, 0.93, 0.05, 400, 100, "watch", estimate=True)
    made = replace(report(), performance=performance(more))
    text = parsed(html.render(made)).text
    assert "accuracy_estimate (estimate)" in text
    assert "90.0 %" in text


def test_an_estimate_that_got_worse_asks_nobody_to_act() -> None:
    worse = Figure("accuracy_estimate", 0.5, 0.4, 0.6, 0.93, 0.05, 400, 100, "worse", estimate=True)
    quiet = replace(facts(7, devices=2, features=2, columns=3), alerts=(), alerted={}, states={})
    assert compose(replace(quiet, performance=Performance((worse,), (), "", None)), NOW).level == "watch"
    measured = replace(worse, estimate=False)
    assert compose(replace(quiet, performance=Performance((measured,), (), "", None)), NOW).level == "act"


def test_timeline_marks_alarms_and_what_is_only_high() -> None:
    made = report(5)
    feature = made.features[0]
    drawn = drawing.timeline(feature.timeline, made.cuts, made.column_seconds)
    assert len(drawn.dots) == sum(1 for it in feature.timeline if it.psi is not None)
    assert drawn.line.startswith("M") or all(it.cell in ("few", "none") for it in feature.timeline)
    assert {it[1] for it in drawn.cuts} >= {"low", "medium"}
    flagged = [replace(it, alarm=place in (2, 3)) for place, it in enumerate(feature.timeline)]
    bands = drawing.timeline(flagged, made.cuts, made.column_seconds).alarms
    assert bands == ((round(2 * 520 / 7, 1), round(2 * 520 / 7, 1)),)


def test_file_names_are_plain_whatever_the_model_is_called() -> None:
    assert name(report(), "pdf") == "drift-digits-1.0.0-fleet-20261126T1045.pdf"
    odd = replace(report(), model='../"x', scope="site:a/b")
    assert name(odd, "html") == "drift-..--x-1.0.0-site-a-b-20261126T1045.html"
