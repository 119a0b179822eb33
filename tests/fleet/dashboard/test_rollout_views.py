"""One rollout, from the values of its view to what is drawn."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fleet.dashboard import distribution, facts, rollout_views
from fleet.rollouts.progress import CountsView, DeploymentView, GateView, RolloutView, TimelineEntry, WaveView

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SP = "\N{NO-BREAK SPACE}"


def deployment(device: str, state: str, wave: int = 1, **more: Any) -> DeploymentView:
    given: dict[str, Any] = {
        "device": device, "site": "Stadium", "wave": wave, "state": state, "reason": None, "detail": None,
        "since": NOW - timedelta(seconds=47), "previous": "1.0.0", "touched": state != "queued", "online": True,
        "fetched_bytes": None, "total_bytes": None,
    }  # fmt: skip
    return DeploymentView(**{**given, **more})


def gate(name: str = "latency p95", **more: Any) -> GateView:
    given: dict[str, Any] = {
        "name": name, "result": "pass", "value": 20.0, "value_text": "20 ms", "reference": 30.0,
        "reference_text": "30 ms", "limit": 45.0, "rule": "≤ 45 ms", "detail": "fine", "history": (20.0, 21.0),
        "low": 0.0, "high": 50.0,
    }  # fmt: skip
    return GateView(**{**given, **more})


WAVES = (
    WaveView(1, "Canary", "1 device", 1, 1, 0, "done", "1/1 healthy, baked 5 min"),
    WaveView(2, "Half", "50 %", 2, 1, 0, "running", "1/2 healthy, then bake 5 min"),
    WaveView(3, "Fleet", "100 %", 3, 0, 0, "waiting", "bake 5 min"),
)


def view(**more: Any) -> RolloutView:
    given: dict[str, Any] = {
        "id": "ro-1", "model": "digits", "version": "1.1.0", "previous": ("1.0.0",), "strategy": "canary",
        "state": "running", "reason": None, "since": NOW, "created_by": "ada",
        "created_at": NOW - timedelta(minutes=49), "updated_at": NOW, "wave": 2, "bake_seconds": 300.0,
        "bake_left_seconds": None, "auto_rollback": True,
        "counts": CountsView(total=6, queued=3, running=1, committed=2, failed=0, rolled_back=0, untouched=0),
        "waves": WAVES,
        "deployments": (
            deployment("a", "committed"), deployment("b", "committed", 2), deployment("c", "fetching", 2),
            deployment("d", "queued", 3),
        ),
        "gates": (gate(), gate("drift psi", result="wait", value=None, limit=None, history=())),
        "timeline": (TimelineEntry(1, NOW, "info", "ro-1", "ro-1 started"),),
        "actions": ("pause", "promote", "abort", "rollback"),
    }  # fmt: skip
    return RolloutView(**{**given, **more})


def page(shown: RolloutView | None = None, **more: Any) -> rollout_views.RolloutPage:
    given: dict[str, Any] = {
        "view": shown or view(), "now": NOW, "windows": {}, "drift": (), "feature": None, "limits": facts.Limits(),
    }  # fmt: skip
    return rollout_views.page(rollout_views.Facts(**{**given, **more}))


class TestHead:
    def test_running(self) -> None:
        shown = page()
        assert (shown.tone, shown.why, shown.previous) == ("can", None, "1.0.0")
        assert shown.words == f"2 of 6{SP}devices (33{SP}%), started by ada 49{SP}min ago"

    def test_of_nobody_just_now(self) -> None:
        nobody = view(counts=CountsView(0, 0, 0, 0, 0, 0, 0), created_at=NOW, previous=())
        assert page(nobody).words == f"0 of 0{SP}devices, started by ada just now"

    @pytest.mark.parametrize(
        ("state", "reason", "why", "tone"),
        [
            ("paused", None, "Paused by a person.", "warn"),
            ("rolled-back", "too slow", "too slow", "crit"),
            ("aborted", "by ada", "by ada", "warn"),
            ("completed", "ignored", None, "warn"),
            ("strange", "odd", "odd", "warn"),
        ],
    )
    def test_reason(self, state: str, reason: str | None, why: str | None, tone: str) -> None:
        shown = page(view(state=state, reason=reason))
        assert (shown.why, shown.why_tone) == (why, tone)


class TestActions:
    def test_consequences_in_numbers(self) -> None:
        by_verb = {one.verb: one for one in page().actions}
        assert list(by_verb) == ["pause", "promote", "abort", "rollback"]
        assert by_verb["pause"].costs == ()
        assert by_verb["promote"].costs[0] == f"Fleet: 3{SP}more devices get 1.1.0"
        assert by_verb["abort"].body == '{"rollback": false}'
        assert by_verb["abort"].command == "flotilla rollout abort ro-1 --keep"
        assert by_verb["abort"].costs == (
            f"2{SP}devices keep 1.1.0", f"1{SP}device under way finish on their own", f"3{SP}devices are not touched",
        )  # fmt: skip
        assert by_verb["rollback"].title == "Roll back ro-1 to 1.0.0?"
        assert by_verb["rollback"].costs[0].startswith(f"2{SP}devices go back to 1.0.0")
        assert by_verb["rollback"].command == "flotilla rollout rollback ro-1"

    def test_promotion_ends_the_shadow_where_devices_are_in_it(self) -> None:
        looking = view(deployments=(deployment("a", "shadowing"), deployment("b", "queued", 2)))
        (promote,) = (one for one in page(looking).actions if one.verb == "promote")
        assert (promote.title, promote.costs[0]) == ("End the shadow?", f"1{SP}device for the swap now")

    def test_where_nothing_is_under_way(self) -> None:
        idle = view(counts=CountsView(3, 3, 0, 0, 0, 0, 0), waves=WAVES[:2], previous=())
        by_verb = {one.verb: one for one in page(idle).actions}
        assert by_verb["promote"].costs[0] == "no wave is left"
        assert by_verb["abort"].costs == ("none is under way", f"3{SP}devices are not touched")
        assert by_verb["rollback"].title == "Roll back ro-1 to the version before?"
        assert by_verb["rollback"].costs[1] == "none is under way"


class TestStages:
    def test_tones_and_words(self) -> None:
        shown = page().stages
        assert [(one.tone, one.current, one.width) for one in shown] == [
            ("done", False, 100.0), ("run", True, 50.0), ("todo", False, 0.0),
        ]  # fmt: skip
        assert shown[2].words == f"3{SP}devices, bake 5 min"

    @pytest.mark.parametrize(
        ("state", "failed", "tone"),
        [("paused", 0, "paused"), ("failed", 1, "bad"), ("stopped", 1, "bad"), ("stopped", 0, "todo")],
    )
    def test_of_an_unhappy_wave(self, state: Any, failed: int, tone: str) -> None:
        wave = replace(WAVES[0], state=state, failed=failed, total=0)
        assert page(view(waves=(wave,))).stages[0].tone == tone

    def test_the_ring_of_a_baking_wave_is_the_time_that_passed(self) -> None:
        baking = view(waves=(replace(WAVES[0], state="baking"),), bake_left_seconds=75.0)
        assert page(baking).stages[0].ring == 75.0


class TestCards:
    def test_the_newest_wave_and_trouble_first(self) -> None:
        shown = page(view(deployments=(*view().deployments, deployment("z", "refused", 1, reason="E_COUNTER"))))
        assert shown.cards_title == "Devices of wave 2: Half"
        assert [card.device for card in shown.cards] == ["z", "b", "c"]
        assert (shown.cards[0].tone, shown.cards[0].note) == ("crit", "E_COUNTER")

    def test_when_it_is_over_all_that_were_touched(self) -> None:
        shown = page(view(state="rolled-back"))
        assert (shown.cards_title, [card.device for card in shown.cards]) == (
            "Devices that were touched",
            ["a", "b", "c"],
        )

    def test_before_the_first_wave(self) -> None:
        assert page(view(wave=0, waves=())).cards_title == "Devices of wave 1"

    def test_never_more_than_fit(self) -> None:
        many = tuple(deployment(f"d{n:03d}", "staged", 2) for n in range(70))
        shown = page(view(deployments=many))
        assert (len(shown.cards), shown.cards_more) == (60, 10)

    def test_bytes_only_where_bytes_were_reported(self) -> None:
        known = rollout_views.card(deployment("a", "fetching", fetched_bytes=5_700_000, total_bytes=11_400_000), NOW)
        assert (known.below, known.steps[1]) == (f"5.7 of 11.4{SP}MB", ("c", 0.5))
        unknown = rollout_views.card(deployment("a", "fetching"), NOW)
        assert (unknown.below, unknown.steps[1]) == (f"40{SP}s", ("c", 0.0))

    @pytest.mark.parametrize(
        ("state", "online", "word", "tone", "done"),
        [
            ("committed", True, "healthy", "ok", 7),
            ("queued", False, "queued, offline", "off", 0),
            ("announced", True, "announced", "can", 0),
            ("probation", True, "probation", "can", 5),
            ("rolling-back", True, "rolling-back", "can", 0),
            ("timed-out", True, "timed-out", "crit", 0),
        ],
    )
    def test_words(self, state: str, online: bool, word: str, tone: str, done: int) -> None:
        card = rollout_views.card(deployment("a", state, online=online), NOW)
        assert (card.word, card.tone, [kind for kind, _ in card.steps].count("d")) == (word, tone, done)

    def test_a_candidate_in_the_shadow_shows_what_it_compared_where_the_self_test_was(self) -> None:
        words = "412 compared, 97.82 % agree"
        card = rollout_views.card(deployment("a", "shadowing", shadow=words), NOW)
        assert (card.word, card.tone, card.below) == ("shadowing", "can", words)
        assert [kind for kind, _ in card.steps] == ["d", "d", "d", "d", "c", "", ""]

    def test_a_device_that_the_rollout_took_back_did_nothing_wrong(self) -> None:
        card = rollout_views.card(deployment("a", "rolled-back", reason="E_ROLLOUT_STOPPED"), NOW)
        assert (card.word, card.tone, card.note) == ("back on 1.0.0", "warn", "")
        alone = rollout_views.card(deployment("a", "rolled-back", reason="E_ROLLOUT_STOPPED", previous=None), NOW)
        assert alone.word == "taken back"
        by_itself = rollout_views.card(deployment("a", "rolled-back", reason="E_PROBATION_CRASH"), NOW)
        assert (by_itself.tone, by_itself.note) == ("crit", "E_PROBATION_CRASH")


class TestGates:
    def test_a_sparkline_stands_against_its_limit(self) -> None:
        first, second = page().gates
        assert (first.name, first.tone, first.limit_y) == ("Latency p95", "ok", 4.0)
        assert (second.name, second.tone, second.limit_y, second.path) == ("Drift PSI", "info", None, "")
        assert page(view(gates=(gate(result="fail"),))).gates[0].tone == "crit"


class TestChart:
    def test_without_windows(self) -> None:
        shown = page()
        assert shown.chart == {"t": [], "new": [], "old": [], "limit": None}
        assert shown.limit_words == "limit 45 ms, far above"

    def test_without_a_latency_gate_the_setting_is_the_limit(self) -> None:
        assert page(view(gates=())).limit_words == "limit 1\N{NARROW NO-BREAK SPACE}000 ms, far above"


class TestListed:
    def test_those_under_way_first(self) -> None:
        def one(name: str, state: str) -> facts.Rollout:
            return facts.Rollout(name, "digits", "1.1.0", "canary", state, None, "ada", NOW, NOW)

        many = [one("ro-3", "completed"), one("ro-2", "running"), one("ro-1", "rolled-back"), one("ro-0", "odd")]
        tallies = {"ro-2": {"committed": 1, "refused": 1, "queued": 2}, "ro-1": {"committed": 4}}
        rows = rollout_views.listed(many, tallies, NOW)
        assert [row.id for row in rows] == ["ro-2", "ro-0", "ro-3", "ro-1"]
        assert (rows[0].done, rows[0].failed, rows[0].total, rows[0].width) == (1, 1, 4, 25.0)
        assert (rows[1].tone, rows[1].width) == ("off", 0.0)
        assert (rows[3].state, rows[3].done) == ("rolled back", 0)


def drift(feature: str, psi: float | None, scope: str = "fleet", state: str = "ok", **body: Any) -> facts.Drift:
    full = {
        "edges": [1.0, 2.0, 3.0, 4.0],
        "reference": [1, 40, 50, 40, 1],
        "counts": [0, 20, 60, 30, 5],
        "ks": 0.1,
        **body,
    }
    return facts.Drift(scope, "digits", "1.1.0", feature, state, 115, psi, full)


class TestDistribution:
    def draw(self, *many: facts.Drift, chosen: str | None = None) -> Any:
        return distribution.draw(many, chosen, facts.Limits())

    def test_nothing_to_draw(self) -> None:
        assert self.draw() is None
        assert self.draw(drift("x", 0.1, counts=[1, 2])) is None
        assert self.draw(drift("x", 0.1, edges=[])) is None

    def test_the_worst_feature_unless_one_is_chosen(self) -> None:
        many = drift("x", 0.1), drift("y", 0.3, state="drifted"), drift("z", None)
        assert self.draw(*many).feature == "y"
        assert self.draw(*many).features == ("x", "y", "z")
        assert self.draw(*many, chosen="x").feature == "x"
        assert self.draw(*many, chosen="unknown").feature == "y"

    def test_the_whole_fleet_before_single_devices(self) -> None:
        assert self.draw(drift("x", 0.1), drift("x", 0.9, "device:cam-1")).scope == "all devices"
        assert self.draw(drift("x", 0.1, "device:cam-1"), drift("x", 0.9, "device:cam-2")).scope == "cam-2"

    @pytest.mark.parametrize(
        ("state", "psi", "tone", "verdict"),
        [
            ("ok", 0.06, "ok", "PSI 0.06, limit 0.20"), ("warning", 0.15, "warn", "PSI 0.15, limit 0.20"),
            ("drifted", 0.31, "crit", "PSI 0.31, limit 0.20"), ("ok", -0.01, "ok", "PSI 0.00, limit 0.20"),
            ("collecting", None, "info", "collecting: 115 samples so far"),
        ],
    )  # fmt: skip
    def test_verdict(self, state: str, psi: float | None, tone: str, verdict: str) -> None:
        drawn = self.draw(drift("x", psi, state=state))
        assert (drawn.tone, drawn.verdict) == (tone, verdict)
        assert drawn.numbers == "KS 0.100, 115 samples vs. 132 reference"

    def test_a_tiny_p_is_not_written_as_zero(self) -> None:
        assert "p = < 0.001" not in self.draw(drift("x", 0.3, p=1e-9)).numbers
        assert "p < 0.001" in self.draw(drift("x", 0.3, p=1e-9)).numbers

    def test_bars_are_as_wide_as_their_bins_and_stay_inside(self) -> None:
        drawn = self.draw(drift("x", 0.1))
        assert len(drawn.reference) == len(drawn.live) == 5
        assert all(
            0 <= y <= 150 and x >= 0 and x + w <= 520.1 and h <= 150 for x, y, w, h in (*drawn.reference, *drawn.live)
        )
        assert drawn.scale.startswith("share per unit")
        assert [text for _, text in drawn.ticks] == ["1", "1.75", "2.5", "3.25", "4"]

    def test_densities_too_far_apart_are_drawn_as_bins(self) -> None:
        drawn = self.draw(drift("x", 0.1, edges=[0.0, 0.5, 0.9999, 1.0]))
        assert drawn.scale == "share of each bin of the reference"

    def test_classes_are_counted_side_by_side(self) -> None:
        drawn = self.draw(drift("class.predicted", 0.1, kind="category"))
        assert [text for _, text in drawn.ticks] == ["0", "1", "2", "3", "4"]
        assert drawn.scale == "share of each class"
