import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from fleet.api.rollouts import document
from fleet.cli import rollout_screen, rollout_words, shadow_terms
from fleet.rollouts import forecast, gate, pacing, progress, verdicts
from fleet.rollouts.states import Effect, Evidence, Member, Rollout, State, Vitals, Wave
from shared.shadow import Terms

T0 = datetime(2026, 1, 1, 8, 16, 12, tzinfo=UTC)
WAVES = (Wave("Canary", "1 device", 1), Wave("Fleet", "100 %", 2))


def view(state: State = State.RUNNING, *states: str, **changes: Any) -> dict[str, Any]:
    """A rollout in the very form that the API answers."""
    rollout = replace(
        Rollout("ro-7f3k", "digits", "2.0.0", "canary", WAVES, T0, state=state, wave=1, bake_seconds=30), **changes
    )
    given = [*states, *["queued"] * 3][:3]
    members = tuple(
        Member(f"cam-{number}", min(number, 1), T0, state=it, previous="1.0.0", told_at=None if it == "queued" else T0)
        for number, it in enumerate(given)
    )
    known = Evidence(members, candidate=Vitals(requests=500, failed=1, p95_ms=27.2))
    waits = pacing.waits(rollout, known, T0)
    facts = progress.Facts(rollout, known, gate.judge(rollout, known, T0), {}, waits, [], "ana", T0, T0, T0)
    return json.loads(json.dumps(document(progress.view(facts))))


PLAN = {
    "model": "digits", "version": "2.0.0", "strategy": "canary", "devices": 3, "reachable": 2, "offline": ["cam-2"],
    "already": [], "previous": ["1.0.0"], "without_previous": 0, "bytes_each": 2_100_000, "bytes_total": 6_300_000,
    "waves": [
        {"index": 1, "name": "Canary", "target": "1 device", "total": 1, "bytes": 2_100_000, "hardware": {"nano": 1}},
        {"index": 2, "name": "Fleet", "target": "100 %", "total": 2, "bytes": 4_200_000, "hardware": {"nano": 2}},
    ],
    "sites": {"gate": {"devices": 1, "bytes": 2_100_000}, "": {"devices": 2, "bytes": 4_200_000}},
    "excluded": [{"device": "cam-9", "hardware": "orin", "reason": "E_PROBATION_ERRORS", "detail": "1 of 1 failed",
                  "rollout": "ro-old"}],
    "bake_seconds": 30.0, "timeout_seconds": 1800.0, "auto_rollback": True, "on_failure": ["stop-new", "roll-back"],
    "stop_does": forecast.stop_does([Effect.ROLL_BACK]), "approval": None, "max_in_flight": 5, "stage_ratio": None,
    "ramp": {"per_minute": 2.0, "factor": 2.0, "every": 10},
    "site_budget": {"in_flight_bytes": 5_000_000, "hourly_bytes": None},
    "limits": {
        "max_latency_ms": 1000.0, "max_error_ratio": 0.05, "max_psi": 0.2,
        "criteria": [{"kind": "rolled-back", "ratio": 0.0}, {"kind": "any", "ratio": 0.1}],
    },
}  # fmt: skip


def test_plan_says_what_would_happen(manager, types) -> None:
    manager.answer("POST /api/v1/rollouts", PLAN)
    result = types("rollout", "plan", "digits@2.0.0", "--waves", "1,100%", "--bake", "30s", "--target", "label:a=b")
    assert result.exit_code == 0, result.output
    assert "3 devices: 2 reachable, 1 offline get it when they come;  2.1 MB each, 6.3 MB in all" in result.stdout
    assert "stop if a device takes it back, more than 10% end badly, p95 > 1000 ms" in result.stdout
    assert "Canary: 1 (1 nano; 2.1 MB)" in result.stdout
    assert "to gate: 1 device, 2.1 MB" in result.stdout
    assert "5 at work at a time, 2 a minute, x2 after each 10 successes, 5.0 MB in flight to a site" in result.stdout
    assert "not to 1 device of class orin, where it is proven bad (ro-old: 1 of 1 failed); --force" in result.stdout
    assert "at a stop, nobody else is told" in result.stdout
    assert "at a stop, devices under way finish" in result.stdout
    assert "the version before: 1.0.0" in result.stdout
    (asked,) = manager.asked
    assert asked.path.endswith("?dry_run=true") or "dry_run=True" in asked.path
    assert asked.body == {
        "model": "digits", "version": "2.0.0", "target": {"labels": {"a": "b"}}, "strategy": "canary",
        "waves": ["1", "100%"], "bake_seconds": 30.0,
    }  # fmt: skip


def verdict(result: str, at: str) -> dict[str, Any]:
    known = Evidence((), candidate=Vitals(requests=500, failed=400))
    started = Rollout("ro-7f3k", "digits", "2.0.0", "canary", WAVES, T0, wave=0)
    return json.loads(json.dumps(
        {"id": 1, "at": at, "result": result, **verdicts.to_json(verdicts.make(started, known, T0))}
    ))  # fmt: skip


def test_why_shows_each_check_with_its_numbers_and_what_came_before(manager, types) -> None:
    rows = [verdict("fail", "2026-01-01T08:20:00.000Z"), verdict("wait", "2026-01-01T08:16:12.000Z")]
    manager.answer("GET /api/v1/rollouts/ro-7f3k/verdicts", {"items": rows, "next_cursor": None})
    result = types("rollout", "show", "ro-7f3k", "--why")
    assert result.exit_code == 0, result.output
    assert "2026-01-01 08:20:00Z  wave 1  fail" in result.stdout
    assert "✖  errors                  80 %, limit 5 %" in result.stdout
    assert "     80.00% of 500 requests failed, at least 73.93%" in result.stdout
    assert "   2026-01-01 08:16:12Z  wait  errors: 80.00% of 500" in result.stdout
    documented = types("rollout", "show", "ro-7f3k", "--why", "--json")
    assert json.loads(documented.stdout)["items"] == rows


def test_why_before_the_first_verdict(manager, types) -> None:
    manager.answer("GET /api/v1/rollouts/ro-7f3k/verdicts", {"items": [], "next_cursor": None})
    assert "has not said anything yet" in types("rollout", "show", "ro-7f3k", "--why").stdout


@pytest.mark.parametrize(("given", "asked"), [("board", {"channel": "board"}), ("https://x", {"url": "https://x"})])
def test_a_webhook_is_a_channel_or_a_url(manager, types, given: str, asked: dict[str, str]) -> None:
    manager.answer("POST /api/v1/rollouts", view(), 201)
    assert types("rollout", "start", "digits@2.0.0", "--yes", "--webhook", given).exit_code == 0
    assert manager.asked[0].body["gate"] == {"webhook": asked}


def test_a_shadow_is_asked_for_in_a_few_words_and_shown_in_the_plan(manager, types) -> None:
    terms = Terms(share=0.05, min_samples=500, min_agreement=0.97, seconds=3600, when_few="hold", stay=True)
    manager.answer("POST /api/v1/rollouts", PLAN | {"shadow": terms.model_dump(mode="json")})
    words = "share=5%,samples=500,agreement=0.97,latency=2,time=1h,few=hold,stay"
    result = types("rollout", "plan", "digits@2.0.0", "--shadow", words, "--min-agreement", "95")
    assert result.exit_code == 0, result.output
    assert "first in the shadow: 5% of the requests, 500 samples, 97.0% must agree; then waits for promote" in (
        result.stdout
    )
    (asked,) = manager.asked
    assert asked.body["gate"] == {"min_shadow_agreement": 0.95}
    assert asked.body["shadow"] == {
        "share": 0.05, "min_samples": 500, "min_agreement": 0.97, "max_latency_ratio": 2.0, "seconds": 3600.0,
        "when_few": "hold", "stay": True,
    }  # fmt: skip
    assert shadow_terms.read("10%") == {"share": 0.1}


def test_a_device_in_the_shadow_shows_its_figures_and_promotion_says_what_it_ends(manager, types) -> None:
    looking = view(State.RUNNING, "shadowing", wave=0, shadow=Terms())
    looking["deployments"][0]["shadow"] = "412 compared, 97.82 % agree"
    assert rollout_words.phase(looking["deployments"][0]) == "shadowing (412 compared, 97.82 % agree)"
    manager.answer("GET /api/v1/rollouts/ro-7f3k", looking)
    result = types("rollout", "promote", "ro-7f3k", "--plan")
    assert result.stdout.strip() == "1 device swaps without more comparison; later ones compare nothing."


def test_start_with_yes_answers_the_rollout(manager, types) -> None:
    manager.answer("POST /api/v1/rollouts", view(), 201)
    result = types("rollout", "start", "digits@2.0.0", "--yes", "--json")
    assert json.loads(result.stdout)["id"] == "ro-7f3k"
    assert len(manager.asked) == 1


def test_a_window_and_a_priority_are_asked_for_and_shown(manager, types) -> None:
    shown = {**PLAN, "window": "22:00 to 05:00, local time", "priority": "high", "goes_before": {"ro-a": 2}}
    manager.answer("POST /api/v1/rollouts", shown)
    result = types("rollout", "plan", "digits@2.0.0", "--window", "22:00-05:00", "--priority", "high")
    assert manager.asked[-1].body["window"] == {"start": "22:00", "end": "05:00"}
    assert manager.asked[-1].body["priority"] == "high"
    assert "devices fetch and test at once, and swap only from 22:00 to 05:00, local time" in result.stdout
    assert "goes before ro-a on 2 devices, as its priority is high" in result.stdout
    types("rollout", "plan", "digits@2.0.0", "--in-window")
    assert manager.asked[-1].body["window"] == "settings"
    manager.answer("GET /api/v1/rollouts/ro-7f3k", {**view(), "window": "22:00 to 05:00, local time"})
    assert "  devices swap 22:00 to 05:00, local time" in types("rollout", "show", "ro-7f3k").stdout


def test_start_without_yes_asks_and_without_terminal_refuses(manager, types) -> None:
    manager.answer("POST /api/v1/rollouts", PLAN)
    result = types("rollout", "start", "digits@2.0.0")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert len(manager.asked) == 1  # the plan, nothing else


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (view(State.COMPLETED, "committed", "committed", "committed"), 0),
        (view(State.COMPLETED, "committed", "committed", "failed"), 8),
        (view(State.ROLLED_BACK, "rolled-back", reason="cam-0 took it back"), 1),
        (view(State.ABORTED, "committed"), 1),
    ],
)
def test_watch_tells_each_change_once_and_how_it_ended(manager, types, last, code) -> None:
    for found in (view(State.RUNNING, "fetching"), view(State.RUNNING, "probation"), last):
        manager.answer("GET /api/v1/rollouts/ro-7f3k", found)
    result = types("rollout", "watch", "ro-7f3k")
    assert result.exit_code == code, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "08:16:12Z wave=1 cam-0 queued→fetching"
    assert "08:16:12Z wave=1 cam-0 fetching→probation" in lines
    assert lines[-1].startswith(f"08:16:12Z ro-7f3k running→{last['state']}")
    assert len(lines) == len(set(lines))
    if last["state"] == "completed":
        assert any("wave=2 Fleet running→done" in line for line in lines)
    if last["state"] == "rolled-back":
        assert any(line.startswith("08:16:12Z gate failures wait→fail") for line in lines)


def test_watch_as_json_lines(manager, types) -> None:
    manager.answer("GET /api/v1/rollouts/ro-7f3k", view(State.COMPLETED, "committed"))
    lines = [json.loads(line) for line in types("rollout", "watch", "ro-7f3k", "--jsonl").stdout.splitlines()]
    assert [(line.get("device"), line["to"]) for line in lines] == [("cam-0", "committed"), (None, "completed")]


def test_wait_gives_up_with_its_own_exit_code(manager, types, monkeypatch) -> None:
    manager.answer("GET /api/v1/rollouts/ro-7f3k", view())
    monkeypatch.setattr("fleet.cli.rollouts.POLL_SECONDS", 0.01)
    result = types("rollout", "wait", "ro-7f3k", "--timeout", "1s")
    assert result.exit_code == 7


def test_abort_says_first_what_it_does_to_whom(manager, types) -> None:
    manager.answer("GET /api/v1/rollouts/ro-7f3k", view(State.RUNNING, "committed", "fetching"))
    result = types("rollout", "abort", "ro-7f3k", "--plan")
    assert result.stdout.strip() == "1 device go back to 1.0.0, 1 stop where they are, 1 untouched."
    assert [it.method for it in manager.asked] == ["GET"]
    keep = types("rollout", "abort", "ro-7f3k", "--keep", "--plan")
    assert keep.stdout.startswith("1 device keep 2.0.0, 1 finish what they began")


def test_abort_with_yes(manager, types) -> None:
    manager.answer("POST /api/v1/rollouts/ro-7f3k/abort", view(State.ROLLING_BACK, "committed"))
    result = types("rollout", "abort", "ro-7f3k", "--rollback", "--reason", "dusk", "--yes")
    assert result.exit_code == 0, result.output
    assert manager.asked[0].body == {
        "reason": "dusk",
        "effects": ["stop-new", "cancel-queued", "interrupt", "roll-back"],
    }


def test_each_effect_of_an_abort_can_be_named(manager, types) -> None:
    manager.answer("POST /api/v1/rollouts/ro-7f3k/abort", view(State.ABORTING, "committed"))
    assert types("rollout", "abort", "ro-7f3k", "--effects", "cancel-queued,interrupt", "--yes").exit_code == 0
    assert manager.asked[0].body == {"reason": "", "effects": ["cancel-queued", "interrupt"]}
    assert types("rollout", "abort", "ro-7f3k", "--effects", "undo", "--yes").exit_code == 2
    assert types("rollout", "abort", "ro-7f3k", "--effects", "interrupt", "--keep", "--yes").exit_code == 2


def test_approve_says_what_became_of_it(manager, types) -> None:
    manager.answer("POST /api/v1/rollouts/ro-7f3k/approve", view(State.RUNNING))
    assert types("rollout", "approve", "ro-7f3k").stdout.strip() == "ro-7f3k is running."


def test_everything_that_a_rollout_may_be_asked_reaches_the_manager(manager, types) -> None:
    manager.answer("POST /api/v1/rollouts", PLAN)
    words = (
        "--strategy blue-green --stage-ratio 90 --rate 2:3:5 --site-bytes 9 --site-hourly-bytes 99 --force"
        " --require-approval --priority high --on-failure stop-new,roll-back"
    )
    asked = types("rollout", "plan", "digits@2.0.0", *words.split(), "--filter", "site:gate or cam*")
    assert asked.exit_code == 0, asked.output
    assert manager.asked[0].body == {
        "model": "digits", "version": "2.0.0", "target": {"filter": "site:gate or cam*"}, "strategy": "blue-green",
        "stage_ratio": 0.9, "ramp": {"per_minute": 2.0, "factor": 3.0, "every": 5}, "force": True,
        "site_budget": {"in_flight_bytes": 9, "hourly_bytes": 99}, "require_approval": True, "priority": "high",
        "on_failure": ["stop-new", "roll-back"],
    }  # fmt: skip
    assert types("rollout", "plan", "digits@2.0.0", "--rate", "fast").exit_code == 2


def test_a_device_that_is_held_shows_what_it_waits_for(manager, types) -> None:
    manager.answer("GET /api/v1/rollouts/ro-7f3k", view(State.PAUSED, "committed"))
    assert "queued (waits for the rollout to be resumed)" in types("rollout", "show", "ro-7f3k").stdout


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pause_and_resume(manager, types, verb) -> None:
    manager.answer(f"POST /api/v1/rollouts/ro-7f3k/{verb}", view())
    assert types("rollout", verb, "ro-7f3k").exit_code == 0


def test_promote_tells_what_is_skipped(manager, types) -> None:
    baking = view(State.RUNNING, "committed", wave=0, baking_since=T0)
    manager.answer("GET /api/v1/rollouts/ro-7f3k", baking)
    result = types("rollout", "promote", "ro-7f3k", "--plan")
    assert result.stdout.strip() == "This skips 30 s of watching; then Fleet (2 devices) follows."


@pytest.mark.parametrize(
    "words",
    [
        ["digits"],
        ["digits@1.0.0", "--target", "x:y"],
        ["digits@1.0.0", "--bake", "soon"],
        ["digits@1.0.0", "--shadow", "share=much"],
        ["digits@1.0.0", "--shadow", "shore=10%"],
    ],
)
def test_misuse_is_exit_2(manager, types, words) -> None:
    assert types("rollout", "plan", *words).exit_code == 2


def test_list_and_show(manager, types) -> None:
    row = {
        "id": "ro-7f3k", "model": "digits", "version": "2.0.0", "state": "running", "wave": 1, "waves": 2,
        "committed": 1, "devices": 3, "created_by": "ana", "created_at": "2026-01-01T08:16:12Z", "reason": None,
    }  # fmt: skip
    manager.answer("GET /api/v1/rollouts", {"items": [row], "next_cursor": None})
    manager.answer("GET /api/v1/rollouts/ro-7f3k", view(State.RUNNING, "committed", "refused"))
    assert types("rollout", "list").stdout.startswith("ro-7f3k\tdigits@2.0.0\trunning\t1/2\t1/3\tana")
    text = types("rollout", "show", "ro-7f3k").stdout
    assert "digits 1.0.0 → 2.0.0   running   ro-7f3k · by ana · 1/3 devices" in text
    assert text.index("cam-1") < text.index("cam-0")  # trouble first


def test_the_live_page_holds_everything_and_fits() -> None:
    console = Console(width=100, height=30, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    found = copy.deepcopy(view(State.RUNNING, "committed", "fetching"))
    console.print(rollout_screen.frame(found, link="http://fleet/rollouts/ro-7f3k", height=30, every=False))
    text = console.export_text()
    console.file.close()
    for word in ("digits 1.0.0 → 2.0.0", "▶ running", "Canary", "1/1", "cam-1", "fetching", "errors", "0.2 %", "≤ 5 %"):
        assert word in text, word
    assert len(text.splitlines()) <= 30


def test_a_download_shows_its_share() -> None:
    found = {
        "state": "fetching",
        "fetched_bytes": 93,
        "total_bytes": 100,
        "online": True,
        "reason": None,
        "detail": None,
    }
    assert rollout_words.phase(found) == "fetching 93 %"
