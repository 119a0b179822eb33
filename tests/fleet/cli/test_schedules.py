import json
from typing import Any

import pytest

SCHEDULE: dict[str, Any] = {
    "id": "sc-7f3kq", "kind": "once", "model": "digits", "version": "1.2.0", "state": "waiting", "reason": None,
    "since": "2026-01-01T00:00:00.000Z", "due": "2099-12-01T01:00:00.000Z", "cron": None, "zone": "Europe/Berlin",
    "priority": "high", "window": "settings", "target": "all", "strategy": "canary", "rollout": None, "runs": 0,
    "actions": ["pause", "cancel"], "created_by": "ana", "created_at": "2026-01-01T00:00:00.000Z",
    "updated_at": "2026-01-01T00:00:00.000Z",
}  # fmt: skip
ALIAS: dict[str, Any] = {
    "model": "digits", "alias": "stable", "version": "1.2.0", "moved_by": "ana",
    "moved_at": "2026-01-01T00:00:00.000Z", "before": "1.1.0", "schedule": "sc-7f3kq",
    "moves": [{"from": "1.1.0", "to": "1.2.0", "by": "ana", "at": "2026-01-01T00:00:00.000Z", "undone": False}],
}  # fmt: skip


def test_create_sends_what_was_asked_and_says_when_devices_swap(manager, types) -> None:
    manager.answer("POST /api/v1/schedules", SCHEDULE, 201)
    when = ("--at", "2099-12-01T02:00", "--zone", "Europe/Berlin", "--priority", "high")
    how = ("--target", "channel:candidate", "--waves", "1,100%", "--bake", "30m")
    found = types("schedule", "add", "digits@1.2.0", *when, *how)
    assert manager.asked[-1].body == {
        "model": "digits", "version": "1.2.0", "at": "2099-12-01T02:00", "zone": "Europe/Berlin", "priority": "high",
        "target": {"channel": "candidate"}, "waves": ["1", "100%"], "bake_seconds": 1800.0,
    }  # fmt: skip
    assert found.stdout == "sc-7f3kq  digits@1.2.0  due 2099-12-01 01:00 UTC\n"
    assert "swap inside the maintenance window of the manager's settings" in found.stderr


@pytest.mark.parametrize(
    ("option", "window"), [(("--any-time",), None), (("--window", "22:00-05:00"), {"start": "22:00", "end": "05:00"})]
)
def test_the_window_is_the_operators_choice(manager, types, option, window) -> None:
    manager.answer("POST /api/v1/schedules", {**SCHEDULE, "window": None}, 201)
    types("schedule", "add", "digits@stable", "--cron", "0 22 * * sat", *option)
    assert manager.asked[-1].body["window"] == window
    assert manager.asked[-1].body["cron"] == "0 22 * * sat"


@pytest.mark.parametrize(
    "words",
    [
        ("digits", "--at", "2099-12-01T02:00"),
        ("digits@1.2.0",),
        ("digits@1.2.0", "--at", "2099-12-01T02:00", "--cron", "0 2 * * *"),
        ("digits@1.2.0", "--at", "2099-12-01T02:00", "--any-time", "--window", "22:00-05:00"),
        ("digits@1.2.0", "--at", "2099-12-01T02:00", "--window", "nightly"),
    ],
)
def test_what_cannot_be_meant_is_usage(manager, types, words) -> None:
    assert types("schedule", "add", *words).exit_code == 2
    assert manager.asked == []


def test_list_show_and_steer(manager, types) -> None:
    manager.answer("GET /api/v1/schedules", {"items": [SCHEDULE], "next_cursor": None})
    manager.answer("GET /api/v1/schedules/sc-7f3kq", SCHEDULE)
    for verb, state in (("pause", "paused"), ("resume", "waiting"), ("cancel", "cancelled")):
        manager.answer(f"POST /api/v1/schedules/sc-7f3kq/{verb}", {**SCHEDULE, "state": state})
    (line,) = types("schedule", "list").stdout.splitlines()
    assert line.split("\t")[:5] == ["sc-7f3kq", "digits@1.2.0", "waiting", "2099-12-01 01:00 UTC", "high"]
    shown = types("schedule", "show", "sc-7f3kq").stdout
    assert "sc-7f3kq  digits@1.2.0  waiting  priority high" in shown
    assert types("schedule", "pause", "sc-7f3kq").stdout == "sc-7f3kq is paused.\n"
    assert types("schedule", "resume", "sc-7f3kq").stdout == "sc-7f3kq is waiting.\n"
    assert types("schedule", "cancel", "sc-7f3kq").exit_code == 2  # it asks, and nobody answers
    assert types("schedule", "cancel", "sc-7f3kq", "--yes").stdout == "sc-7f3kq is cancelled.\n"


def test_an_alias_is_moved_undone_removed_and_listed(manager, types) -> None:
    path = "/api/v1/models/digits/aliases"
    manager.answer(f"GET {path}", {"items": [ALIAS]})
    manager.answer(f"PUT {path}/stable", ALIAS)
    manager.answer(f"POST {path}/stable/undo", {**ALIAS, "version": "1.1.0", "before": "1.2.0"})
    manager.answer(f"DELETE {path}/stable", {"removed": True})
    moved = types("model", "alias", "digits", "stable", "1.2.0")
    assert manager.asked[-1].body == {"version": "1.2.0"}
    assert moved.stdout == "digits@stable is 1.2.0, it was 1.1.0\n"
    assert "flotilla schedule show sc-7f3kq" in moved.stderr
    assert types("model", "alias", "digits", "stable", "--undo").stdout.startswith("digits@stable is 1.1.0")
    assert types("model", "alias", "digits", "stable", "--remove").exit_code == 0
    assert types("model", "alias", "digits").stdout.startswith("stable\t1.2.0\t")
    assert types("model", "alias", "digits", "stable").exit_code == 2
    assert types("model", "alias", "digits", "stable", "1.2.0", "--undo").exit_code == 2


def test_prune_asks_before_it_retires(manager, types) -> None:
    items = [
        {"model": "digits", "version": "1.0.0", "goes": True, "why": "40 days old"},
        {"model": "digits", "version": "1.1.0", "goes": False, "why": "the newest version"},
    ]
    manager.answer("POST /api/v1/models/cleanup", {"items": items, "dry_run": True})
    dry = types("model", "prune", "--dry-run")
    assert dry.stdout.splitlines() == ["digits@1.0.0\tgoes\t40 days old", "digits@1.1.0\tstays\tthe newest version"]
    assert types("model", "prune").exit_code == 2
    assert [asked.path for asked in manager.asked] == ["/api/v1/models/cleanup?dry_run=true"] * 2
    done = types("model", "prune", "--yes", "--json")
    assert manager.asked[-1].path == "/api/v1/models/cleanup"
    assert json.loads(done.stdout)["items"] == items


def test_zone_and_channel_of_a_device(manager, types) -> None:
    manager.answer("PATCH /api/v1/devices/cam-7", {"id": "cam-7", "labels": {"timezone": "Europe/Berlin"}})
    found = types("device", "set", "cam-7", "--timezone", "Europe/Berlin", "--channel", "")
    assert manager.asked[-1].body == {"timezone": "Europe/Berlin", "channel": ""}
    assert found.stdout == "cam-7: timezone Europe/Berlin, channel as the manager says\n"
    assert types("device", "set", "cam-7").exit_code == 2
