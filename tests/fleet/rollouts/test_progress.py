from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from fleet.cli import rollout_words
from fleet.rollouts import progress
from fleet.rollouts.gate import Check, Result
from fleet.rollouts.states import Evidence, Member, Rollout, State, Wave

T0 = datetime(2026, 1, 1, tzinfo=UTC)
TOLD = Member(device="d", wave=0, since=T0, previous="1.0.0", told_at=T0)
BACK = replace(TOLD, recalled_at=T0, outcome="committed", serving="2.0.0")


@pytest.mark.parametrize(
    ("member", "state", "kind"),
    [
        (replace(TOLD, told_at=None), "queued", "queued"),
        (TOLD, "queued", "queued"),
        (replace(TOLD, told_at=None, state="cancelled", reason="E_ROLLOUT_STOPPED"), "cancelled", "untouched"),
        (replace(TOLD, state="fetching"), "fetching", "running"),
        (replace(TOLD, state="committed"), "committed", "committed"),
        (replace(TOLD, state="timed-out"), "timed-out", "failed"),
        (replace(BACK, owed=True), "rolling-back", "running"),
        (replace(BACK, state="fetching"), "rolling-back", "running"),
        (replace(BACK, state="committed"), "rolled-back", "rolled-back"),
        (replace(BACK, state="failed", reason="E_LOAD"), "failed", "running"),
        (replace(BACK, outcome="refused", outcome_reason="E_HARDWARE"), "refused", "failed"),
    ],
)
def test_both_ways_of_a_device_are_shown_as_one(member: Member, state: str, kind: str) -> None:
    assert progress.shown(member)[0] == state
    counts = progress.counts([member])
    assert getattr(counts, kind.replace("-", "_")) == counts.total == 1


@pytest.mark.parametrize(
    ("state", "wave", "expected"),
    [
        (State.RUNNING, 0, ["running", "waiting"]),
        (State.RUNNING, 1, ["done", "running"]),
        (State.PAUSED, 1, ["done", "paused"]),
        (State.COMPLETED, 1, ["done", "done"]),
        (State.ROLLED_BACK, 0, ["stopped", "stopped"]),
    ],
)
def test_waves(state: State, wave: int, expected: list[str]) -> None:
    rollout = Rollout("ro-1", "m", "2", "canary", (Wave("A", "1", 1), Wave("B", "2", 1)), T0, state=state, wave=wave)
    members = [replace(TOLD, device="a"), replace(TOLD, device="b", wave=1)]
    assert [it.state for it in progress.waves(rollout, members, T0)] == expected


def test_bytes_are_planned_and_came_by_source() -> None:
    planned = replace(TOLD, total_bytes=100, fetched_bytes=100, sources={"peer": 90, "manager": 10})
    begun = replace(TOLD, total_bytes=100, fetched_bytes=20, sources={"manager": 30})  # something came twice
    found = progress.traffic([planned, begun, TOLD])
    assert found == progress.BytesView(planned=200, fetched=120, by_source={"manager": 40, "peer": 90})
    text = "fetched 120 B of 200 B planned: manager 40 B, peer 90 B"
    assert list(rollout_words.traffic({"bytes": asdict(found)})) == [text]
    assert list(rollout_words.traffic({"bytes": asdict(progress.traffic([]))})) == []


def test_a_bake_counts_down() -> None:
    rollout = Rollout("ro-1", "m", "2", "canary", (Wave("A", "1", 1),), T0, wave=0, baking_since=T0, bake_seconds=90)
    (wave,) = progress.waves(rollout, [replace(TOLD, state="committed")], T0 + timedelta(seconds=30))
    assert (wave.state, wave.sub) == ("baking", "1/1 healthy, bake 1 min left")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),
        (0.0002, "ratio", "0.02 %"),
        (0.5, "ratio", "50 %"),
        (27.24, "ms", "27.2 ms"),
        (0.058, "psi", "0.06"),
    ],
)
def test_amounts(value: float | None, unit: str, text: str) -> None:
    assert progress.amount(value, unit) == text


def test_a_gate_is_drawn_with_its_limit_in_sight() -> None:
    gate = progress.gate(Check("latency p95", Result.PASS, 27.0, 45.0, "ms", 30.0, "fine"), (26.0, 27.0))
    assert (gate.rule, gate.value_text, gate.reference_text) == ("≤ 45 ms", "27 ms", "30 ms")
    assert gate.low == 0
    assert gate.high == pytest.approx(49.5)


def test_what_may_be_asked_depends_on_the_state() -> None:
    rollout = Rollout("ro-1", "m", "2", "canary", (Wave("A", "1", 1),), T0)
    assert progress.actions(rollout) == ("pause", "promote", "abort", "rollback")
    assert progress.actions(replace(rollout, state=State.PAUSED)) == ("resume", "abort", "rollback")
    assert progress.actions(replace(rollout, state=State.ROLLED_BACK)) == ()
    assert Evidence(()).members == ()
