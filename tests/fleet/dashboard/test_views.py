"""Rows in, view models out: every state that a page can show, without a page."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.dashboard import conditions, drawing, facts, series, views
from shared.sketches import Latency, latency_bin

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SP = "\N{NO-BREAK SPACE}"


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def device(name: str = "cam-1", **more: Any) -> facts.Device:
    given: dict[str, Any] = {
        "id": name, "name": name, "site": "Stadium", "hardware": "x86_64", "lifecycle": "active", "online": True,
        "seen_at": ago(1), "serving": {"digits": "1.0.0"},
        "slots": (facts.Slot("a", "good", "digits", "1.0.0"), facts.Slot("b", "empty")),
    }  # fmt: skip
    return facts.Device(**{**given, **more})


def window(name: str = "cam-1", end: float = 5, *, ms: float = 10, requests: int = 100, **more: Any) -> facts.Window:
    latency = Latency({latency_bin(ms): requests} if requests else {})
    given: dict[str, Any] = {
        "device": name, "model": "digits", "version": "1.0.0", "start": ago(end + 10), "end": ago(end),
        "received_at": ago(end), "requests": requests, "failed": 0, "latency": latency,
        "p95_ms": latency.quantile_ms(0.95),
    }  # fmt: skip
    return facts.Window(**{**given, **more})


def rollout(state: str = "running", name: str = "ro-1", version: str = "1.1.0") -> facts.Rollout:
    return facts.Rollout(name, "digits", version, "canary", state, None, "ada", ago(100), ago(1))


def deployment(state: str, **more: Any) -> facts.Deployment:
    given: dict[str, Any] = {
        "rollout": "ro-1", "device": "cam-1", "wave": 0, "state": state, "reason": None, "detail": None,
        "since": ago(5), "previous": "1.0.0",
    }  # fmt: skip
    return facts.Deployment(**{**given, **more})


def alert(severity: str, scope: str = "device:cam-1", **more: Any) -> facts.Alert:
    given: dict[str, Any] = {
        "id": f"al-{severity}", "kind": "drift", "scope": scope, "subject": "digits@1.0.0", "severity": severity,
        "state": "open", "text": "brightness moved", "opened_at": ago(300),
    }  # fmt: skip
    return facts.Alert(**{**given, **more})


def fleet(**more: Any) -> facts.Fleet:
    return facts.Fleet(**{"now": NOW, "devices": (device(),), **more})


class TestCondition:
    @pytest.mark.parametrize(("version", "word"), [("1.0.0", "Drift alert"), ("2.0.0", "Healthy")])
    def test_an_alert_of_the_whole_fleet_counts_for_those_that_serve_its_release(self, version: str, word: str) -> None:
        drifting = alert("critical", "fleet", subject=f"digits@{version} input.brightness")
        one = device(serving={"digits": "1.0.0"})
        assert conditions.condition(one, fleet(devices=(one,), alerts=(drifting,))).word == word

    @pytest.mark.parametrize(("scope", "word"), [("site:hall", "Drift alert"), ("site:yard", "Healthy")])
    def test_an_alert_of_a_site_counts_for_its_devices(self, scope: str, word: str) -> None:
        one = device(serving={"digits": "1.0.0"}, site="hall")
        assert conditions.condition(one, fleet(devices=(one,), alerts=(alert("critical", scope),))).word == word

    @pytest.mark.parametrize(
        ("more", "state", "word", "note"),
        [
            ({"lifecycle": "pending"}, "wait", "Pending", "flotilla device accept cam-1"),
            ({"seen_at": None}, "off", "Offline", "enrolled, never seen"),
            ({"online": False, "seen_at": ago(7300)}, "off", "Offline", f"silent for 2{SP}h"),
            ({"seen_at": ago(200)}, "off", "Offline", f"silent for 3{SP}min"),
            ({"seen_at": ago(100)}, "warn", "Late", f"silent for 1{SP}min"),
            ({"serving": {}}, "ok", "Healthy", "no model yet"),
            ({}, "ok", "Healthy", ""),
        ],
    )
    def test_of_the_device_alone(self, more: dict[str, Any], state: str, word: str, note: str) -> None:
        one = device(**more)
        assert conditions.condition(one, fleet(devices=(one,))) == conditions.Condition(state, word, note)

    @pytest.mark.parametrize(
        ("found", "state", "word"),
        [
            ((alert("low"), alert("critical")), "crit", "Drift alert"),
            ((alert("high", kind="security"),), "crit", "Security alert"),
            ((alert("high", kind="performance"),), "crit", "Alert"),
            ((alert("medium"),), "warn", "Degraded"),
            (
                (alert("critical", scope="fleet", subject="digits@9.0.0 x"), alert("high", scope="device:cam-2")),
                "ok",
                "Healthy",
            ),
        ],
    )
    def test_with_alerts(self, found: tuple[facts.Alert, ...], state: str, word: str) -> None:
        shown = conditions.condition(device(), fleet(alerts=found))
        assert (shown.state, shown.word) == (state, word)

    def test_a_severe_alert_counts_more_than_silence_and_a_mild_one_less(self) -> None:
        away = device(online=False)
        assert conditions.condition(away, fleet(alerts=(alert("high"),))).state == "crit"
        assert conditions.condition(away, fleet(alerts=(alert("low"),))).state == "off"

    @pytest.mark.parametrize(
        ("one", "state", "note"),
        [
            (deployment("queued"), "ok", ""),
            (deployment("committed"), "ok", ""),
            (deployment("staged"), "can", "1.1.0 staged"),
            (deployment("fetching"), "can", "1.1.0 fetching"),
            (deployment("fetching", fetched_bytes=25, total_bytes=100), "can", f"1.1.0 fetching 25{SP}%"),
            (deployment("refused", reason="E_COUNTER"), "warn", "1.1.0 refused: E_COUNTER"),
            (deployment("timed-out"), "warn", "1.1.0 timed-out"),
            (deployment("staged", device="cam-2"), "ok", ""),
            (deployment("staged", rollout="ro-0"), "ok", ""),
            (deployment("announced", recalled=True, outcome="committed"), "can", "going back to 1.0.0"),
            (deployment("announced", recalled=True, previous=None), "can", "going back to nothing"),
            (deployment("committed", recalled=True, outcome="committed"), "ok", ""),
            (deployment("refused", recalled=True, outcome="refused"), "ok", ""),
        ],
    )
    def test_in_a_rollout(self, one: facts.Deployment, state: str, note: str) -> None:
        shown = conditions.condition(device(), fleet(rollouts=(rollout(),), deployments=(one,)))
        assert (shown.state, shown.note) == (state, note)

    def test_a_rollout_that_is_over_changes_nothing(self) -> None:
        over = fleet(rollouts=(rollout("rolled-back"),), deployments=(deployment("refused"),))
        assert conditions.condition(device(), over).state == "ok"

    def test_failing_requests(self) -> None:
        shown = conditions.condition(device(), fleet(windows={"cam-1": (window(failed=7),)}))
        assert (shown.state, shown.note) == ("warn", f"7.0{SP}% of requests fail")


class TestFleet:
    def test_without_devices_every_figure_is_a_dash_not_a_zero(self) -> None:
        view = views.fleet(facts.Fleet(now=NOW))
        assert (view.total, view.rate, view.p95, view.running) == (0, None, None, None)
        assert view.offline == "no devices yet"
        assert view.rows == view.sites == view.versions == ()

    def test_columns_exist_only_for_what_devices_report(self) -> None:
        view = views.fleet(fleet(windows={"cam-1": (window(cpu_ratio=0.95),)}))
        assert (view.has_cpu, view.has_gpu, view.has_temperature) == (True, False, False)
        assert view.rows[0].cpu is not None
        assert (view.rows[0].cpu.width, view.rows[0].cpu.tone) == (95, "warn")
        view = views.fleet(fleet(windows={"cam-1": (window(gpu_ratio=0.5, temperature_celsius=51.4),)}))
        assert (view.has_cpu, view.has_gpu, view.rows[0].temperature) == (False, True, "51 °C")

    def test_old_windows_are_not_shown_as_now(self) -> None:
        view = views.fleet(fleet(windows={"cam-1": (window(end=3600, cpu_ratio=0.5),)}))
        assert (view.rate, view.p95, view.rows[0].latency, view.rows[0].cpu) == (None, None, None, None)
        assert view.rate_words == "no windows lately"
        assert view.p95_words == "no requests lately"

    def test_a_window_that_is_followed_by_a_longer_one_is_shown_until_that_comes(self) -> None:
        growing = (window(end=1500, start=ago(3420)), window(end=1200, start=ago(1500)))  # 32 minutes, 5 to the hour
        assert views.fleet(fleet(windows={"cam-1": growing})).rows[0].latency is not None
        old = tuple(replace(one, received_at=ago(3900)) for one in growing)
        assert views.fleet(fleet(windows={"cam-1": old})).rows[0].latency is None

    def test_nothing_of_a_silent_device_is_shown_as_now(self) -> None:
        gone = device(online=False, seen_at=ago(20))
        drift = facts.Drift("device:cam-1", "digits", "1.0.0", "x", "ok", 10, 0.1)
        row = views.fleet(fleet(devices=(gone,), windows={"cam-1": (window(),)}, drift=(drift,))).rows[0]
        assert (row.latency, row.cpu, row.drift, row.spark) == (None, None, None, "")

    def test_figures(self) -> None:
        windows = {"cam-1": tuple(window(end=5 + 10 * back, failed=1) for back in range(4, -1, -1))}
        view = views.fleet(fleet(windows=windows))
        assert view.rate == "10.0"
        assert view.rate_words == f"1.00{SP}% failed"
        assert view.p95 is not None
        assert float(view.p95) == pytest.approx(10, rel=0.02)
        assert view.p95_words.startswith("median ")

    def test_no_failure_is_said_in_words(self) -> None:
        assert views.fleet(fleet(windows={"cam-1": (window(),)})).rate_words == "none failed"

    def test_worst_first_then_by_id_and_revoked_ones_are_gone(self) -> None:
        many = (
            device("a"), device("b", lifecycle="pending", site=""), device("c", online=False), device("d"),
            device("e", lifecycle="revoked"), device("f", seen_at=ago(100)),
        )  # fmt: skip
        view = views.fleet(fleet(devices=many, alerts=(alert("high", "device:d"),)))
        assert [row.id for row in view.rows] == ["d", "f", "c", "b", "a"]
        assert (view.total, view.online, view.attention) == (5, 3, 4)
        assert view.offline == f"1 offline at 1{SP}site, 1 to accept"
        assert [site.name for site in view.sites] == ["Stadium", "No site"]
        assert ("wait", "key", "pending") in view.key

    def test_everything_well(self) -> None:
        view = views.fleet(fleet())
        assert view.offline == "all of them"
        assert "wait" not in {state for state, _, _ in view.key}

    def test_drift_shows_the_worst_feature_of_the_serving_release(self) -> None:
        def one(feature: str, psi: float | None, state: str = "ok", version: str = "1.0.0") -> facts.Drift:
            return facts.Drift("device:cam-1", "digits", version, feature, state, 500, psi)

        def meter(*drift: facts.Drift) -> Any:
            return views.fleet(fleet(drift=drift)).rows[0].drift

        worst = meter(one("x", 0.1), one("y", 0.31, "drifted"), one("z", 0.9, version="0.9.0"), one("n", None))
        assert (worst.text, worst.tone, worst.width) == ("0.31", "crit", 77)
        assert "y: PSI 0.31, limit 0.20" in worst.title
        assert meter(one("x", 0.12, "warning")).tone == "warn"
        assert meter(one("x", -0.01)).text == "0.00"
        assert meter(one("x", None, "collecting")).text == "collecting"
        assert meter(one("x", 0.4, "collecting")).text == "collecting"
        assert meter() is None

    def test_slots_show_what_the_device_said(self) -> None:
        both = device(
            slots=(facts.Slot("a", "good", "digits", "1.0.0"), facts.Slot("b", "probation", "digits", "1.1.0")),
            serving={"digits": "1.1.0"},
        )
        row = views.fleet(fleet(devices=(both,), rollouts=(rollout(),))).rows[0]
        (name, chips), tone = row.models[0], row.tone
        assert (name, [(chip.text, chip.tone) for chip in chips], tone) == (
            "digits",
            [("1.0.0", ""), ("1.1.0", "can")],
            "c",
        )
        assert chips[1].title == "slot B: 1.1.0, probation, serving"
        empty = views.fleet(fleet()).rows[0].models[0][1]
        assert [(chip.text, chip.tone) for chip in empty] == [("1.0.0", "serving"), ("–", "")]

    def test_the_filter_finds_words_and_keys(self) -> None:
        one = replace(device(), site="Main Gate", name="Gate 1", labels={"tier": "Canary"})
        find = views.fleet(fleet(devices=(one,))).rows[0].find
        for word in ("cam-1", "gate 1", "site:main-gate", "state:healthy", "model:digits@1.0.0", "tier:canary"):
            assert word in find

    def test_never_seen(self) -> None:
        assert views.fleet(fleet(devices=(device(seen_at=None),))).rows[0].seen == "never"

    def test_versions_newest_first_new_one_marked(self) -> None:
        many = [
            device(f"d{n}", serving={"digits": version})
            for n, version in enumerate(("1.0.0", "1.0.0", "1.1.0", "0.9.0"))
        ]
        releases = [
            facts.Release("digits", version, n, "released") for n, version in enumerate(("0.9.0", "1.0.0", "1.1.0"))
        ]
        found = views.fleet(fleet(devices=many, rollouts=(rollout(),), releases=releases)).versions
        assert [(one.version, one.count, one.tone) for one in found[0][1]] == [
            ("1.1.0", 1, "can"), ("1.0.0", 2, "stable"), ("0.9.0", 1, "old"),
        ]  # fmt: skip
        assert [(one.left, one.width) for one in found[0][1]] == [(0.0, 250.0), (250.0, 500.0), (750.0, 250.0)]

    def test_a_version_in_the_field_that_was_withdrawn_says_why(self) -> None:
        releases = [
            facts.Release("digits", "1.0.0", 1, "withdrawn", "sees sevens"),
            facts.Release("digits", "1.1.0", 2, "released"),
        ]
        many = [device(f"d{n}", serving={"digits": version}) for n, version in enumerate(("1.0.0", "1.1.0"))]
        found = views.fleet(fleet(devices=many, releases=releases)).versions
        assert {one.version: one.withdrawn for one in found[0][1]} == {"1.0.0": "sees sevens", "1.1.0": None}

    def test_the_rollout_card(self) -> None:
        going = fleet(rollouts=(rollout("completed", "ro-2"), rollout()), deployments=(deployment("committed"),))
        card = views.fleet(going).running
        assert card == views.Running("ro-1", "digits", "1.1.0", f"running, 1 of 1{SP}device", True)
        over = views.fleet(fleet(rollouts=(rollout("rolled-back"),))).running
        assert over == views.Running("ro-1", "digits", "1.1.0", "rolled back", False)
        assert views.fleet(fleet(rollouts=(rollout("paused"),))).running == views.Running(
            "ro-1", "digits", "1.1.0", "paused", True
        )

    def test_alerts_open_first_worst_first_newest_first(self) -> None:
        many = (
            alert("low"), alert("critical", state="acknowledged", acknowledged_by="ada"), alert("medium"),
            alert("high", "rollout:ro-1"), alert("high", "fleet", id="al-new", opened_at=ago(5)),
        )  # fmt: skip
        view = views.fleet(fleet(alerts=many))
        assert [one.id for one in view.alerts] == ["al-new", "al-high", "al-medium", "al-low", "al-critical"]
        assert [one.where for one in view.alerts][:2] == ["fleet", "ro-1"]
        assert view.alerts[-1].acknowledged_by == "ada"
        assert (view.alerts_open, view.alerts_severe, view.alerts_mild) == (4, 2, 2)

    def test_feed_names_the_subject_once(self) -> None:
        events = (
            facts.Event(2, ago(30), "device", "ok", "cam-1", "is back"),
            facts.Event(1, ago(3000), "rollout", "strange", "ro-1", "ro-1 started", "ro-1"),
        )
        first, second = views.fleet(fleet(events=events)).feed
        assert (first.who, first.text, first.age, first.href) == ("cam-1", "is back", f"30{SP}s", None)
        assert (second.who, second.level, second.href) == ("", "info", "/rollouts/ro-1")


class TestSeries:
    def test_throughput_adds_devices_and_puts_late_windows_in_their_own_place(self) -> None:
        on_time = [window("a", end=5 + 10 * back) for back in range(5, -1, -1)]
        late = [window("b", end=5 + 10 * back, received_at=ago(5)) for back in range(5, -1, -1)]
        assert series.throughput({"a": on_time, "b": late}, NOW) == pytest.approx([20.0] * 6)

    def test_throughput_without_windows_or_with_old_ones_is_nothing(self) -> None:
        assert series.throughput({}, NOW) == ()
        assert series.throughput({"a": ()}, NOW) == ()
        assert series.throughput({"a": (window(end=500),)}, NOW) == ()
        assert series.throughput({"a": (window(start=ago(5), end=5),)}, NOW) == ()

    def test_a_gap_is_zero_between_and_absent_before(self) -> None:
        gap = [window("a", end=45), window("a", end=5)]
        assert series.throughput({"a": gap}, NOW) == pytest.approx(
            [10, 0, 0, 0, 10][: len(series.throughput({"a": gap}, NOW))]
        )

    def test_latency_of_both_versions_over_time(self) -> None:
        old = [window("a", end=5 + 10 * back, ms=30) for back in range(3, -1, -1)]
        new = [window("b", end=5 + 10 * back, ms=20, version="1.1.0") for back in (1, 0)]
        other = [window("c", model="other"), window("c", version="0.1.0")]
        times, fresh, before = series.latency({"a": old, "b": new, "c": other}, "digits", "1.1.0", ["1.0.0"])
        assert [after - now for now, after in itertools.pairwise(times)] == [10, 10, 10]
        assert fresh[:2] == [None, None]
        assert fresh[2:] == pytest.approx([20, 20], rel=0.02)
        assert before == pytest.approx([30] * 4, rel=0.02)

    def test_latency_of_nothing(self) -> None:
        assert series.latency({}, "digits", "1.1.0", []) == ([], [], [])

    def test_a_long_history_is_cut_at_the_old_end(self) -> None:
        many = [window("a", end=5 + 10 * back) for back in range(200, -1, -1)]
        times, _, _ = series.latency({"a": many}, "digits", "1.0.0", [])
        assert len(times) == 120


class TestDrawing:
    def test_sparkline(self) -> None:
        assert drawing.spark([]) == drawing.spark([1]) == ""
        assert drawing.spark([0, 1], 84, 22) == "M2.0,20.0L82.0,2.0"
        assert drawing.spark([3, 3], 84, 22) == "M2.0,11.0L82.0,11.0"
        assert drawing.spark([0, 9], 84, 22, 0, 1) == "M2.0,20.0L82.0,2.0"

    @pytest.mark.parametrize(
        ("seconds", "words", "seen"),
        [
            (3, "now", "now"),
            (47, f"40{SP}s", "now"),
            (61, f"1{SP}min", f"1{SP}min"),
            (7300, f"2{SP}h", f"2{SP}h"),
            (200000, f"2{SP}d", f"2{SP}d"),
        ],
    )
    def test_ages(self, seconds: float, words: str, seen: str) -> None:
        assert (drawing.ago(seconds), drawing.seen(seconds)) == (words, seen)

    def test_span_of_seconds(self) -> None:
        assert drawing.span(12) == f"12{SP}s"

    def test_sizes(self) -> None:
        assert drawing.part_of(8_200_000, 11_400_000) == f"8.2 of 11.4{SP}MB"
        assert drawing.part_of(1, 2) == f"1 of 2{SP}B"

    def test_figures(self) -> None:
        assert (drawing.figure(None), drawing.figure(18402, 0)) == ("–", "18\N{NARROW NO-BREAK SPACE}402")
        assert (drawing.rate(None), drawing.rate(3.14), drawing.rate(314.1)) == ("–", "3.1", "314")
        assert (drawing.percent(None), drawing.percent(0.5)) == ("–", f"50{SP}%")
        assert (drawing.milliseconds(None), drawing.milliseconds(0.25), drawing.milliseconds(3.21)) == (
            None,
            "0.25",
            "3.2",
        )
        assert (drawing.many(1, "device"), drawing.many(2, "device"), drawing.many(2, "is", "are")) == (
            f"1{SP}device", f"2{SP}devices", f"2{SP}are",
        )  # fmt: skip

    def test_initials(self) -> None:
        assert [drawing.initials(name) for name in ("m.okafor", "admin", "-")] == ["MO", "AD", "-"]


def test_what_is_silenced_or_escalated_is_marked_and_a_channel_that_fails_is_told() -> None:
    alerts = (alert("low", state="escalated"), alert("critical", state="silenced"), alert("high"))
    found = views.fleet(fleet(alerts=alerts, failing=(("ops", "HTTP 500"),)))
    assert [(one.severity, one.mark) for one in found.alerts] == [
        ("high", ""), ("low", "escalated"), ("critical", "silenced"),
    ]  # fmt: skip
    assert found.alerts_open == 2
    assert found.failing == ("ops fails: HTTP 500",)
    assert '"seconds": 28800' in found.alerts[0].silence
