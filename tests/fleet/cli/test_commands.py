"""What each command asks of the manager, and what it says."""

import json

import pytest
import yaml

from fleet.cli.errors import Exit

CAM = {
    "id": "cam-7",
    "name": "north gate",
    "lifecycle": "active",
    "link": "online",
    "online": True,
    "seen_at": "2026-11-23T10:00:00.000Z",
    "serving": {"digits": "1.1.0"},
    "slots": [
        {"slot": "a", "state": "good", "model": "digits", "version": "1.1.0"},
        {"slot": "b", "state": "empty", "model": "digits"},
    ],
    "hardware": "x86_64",
    "site": "gate",
    "labels": {"lens": "wide", "line": "4"},
    "agent_version": "0.1.0",
    "enrolled_at": "2026-11-23T09:00:00.000Z",
}


def test_login_stores_only_what_the_manager_accepts(types, manager, tmp_path, monkeypatch):
    monkeypatch.delenv("FLOTILLA_URL")
    monkeypatch.delenv("FLOTILLA_TOKEN")
    manager.answer("GET /api/v1/me", {"code": "E_UNAUTHENTICATED", "title": "Sign in first"}, 401)
    manager.answer("GET /api/v1/me", {"name": "ada", "role": "admin", "permissions": []})
    file = tmp_path / "flotilla" / "cli.yaml"
    assert types("login", manager.url, "--token", "wrong").exit_code == Exit.NOT_ALLOWED
    assert not file.exists()
    done = types("login", manager.url + "/", "--token", "-", "--json", stdin="right\n")
    assert json.loads(done.stdout)["role"] == "admin"
    assert manager.asked[-1].headers["authorization"] == "Bearer right"
    assert yaml.safe_load(file.read_text()) == {"url": manager.url, "token": "right"}
    assert "right" not in types("config", "show", "--origin").stdout
    assert json.loads(types("logout", "--json").stdout)["removed"] is True


def test_login_without_token_and_terminal_is_a_usage_error(types, manager, monkeypatch):
    monkeypatch.delenv("FLOTILLA_TOKEN")
    assert types("login", manager.url).exit_code == Exit.USAGE


def test_config_show_tells_the_origin_of_each_value(types, manager):
    document = json.loads(types("config", "show", "--origin", "--json").stdout)
    assert document["url"] == {"value": manager.url, "origin": "environment FLOTILLA_URL"}
    assert document["token"]["value"] == "set"
    assert json.loads(types("config", "path", "--json").stdout)["exists"] is False


def test_invite_sends_the_wish_and_shows_the_token_alone_on_stdout(types, manager):
    manager.answer("POST /api/v1/invites", {"id": "in-1", "token": "claim-x", "manager_url": "http://fleet:8420"}, 201)
    done = types("device", "invite", "--uses", "8", "--expires", "2h", "--label", "site=gate", "--wait-for-accept")
    assert done.stdout == "claim-x\n"
    assert "flotilla-agent enroll http://fleet:8420 --token TOKEN" in done.stderr
    assert manager.asked[0].body == {
        "uses": 8,
        "expires_seconds": 7200,
        "labels": {"site": "gate"},
        "auto_accept": False,
    }


@pytest.mark.parametrize("words", [("--expires", "soon"), ("--expires", "0h"), ("--label", "site"), ("--uses", "0")])
def test_a_wish_that_makes_no_sense_is_a_usage_error(types, manager, words):
    assert types("device", "invite", *words).exit_code == Exit.USAGE
    assert manager.asked == []


def test_device_list_and_show(types, manager):
    manager.answer("GET /api/v1/devices", {"items": [CAM], "next_cursor": None})
    manager.answer("GET /api/v1/devices/cam-7", CAM)
    line = types("device", "list", "--filter", "online:true").stdout
    assert line.startswith("cam-7\tonline\tdigits@1.1.0\tx86_64\tgate\tlens=wide, line=4\t")
    assert "filter=online%3Atrue" in manager.asked[0].path
    assert json.loads(types("device", "list", "--json").stdout) == {"items": [CAM]}
    page = types("device", "show", "cam-7").stdout
    assert "good digits@1.1.0" in page
    assert "slot b    empty\n" in page
    assert "lost      nothing\n" in page
    manager.answers["GET /api/v1/devices/cam-7"] = [(200, CAM | {"shed_windows": 12})]
    assert "lost      12 telemetry windows, thrown away" in types("device", "show", "cam-7").stdout
    assert types("device", "show", "nobody").exit_code == Exit.NOT_FOUND


def test_label_changes_some_and_keeps_the_rest(types, manager):
    manager.answer("GET /api/v1/devices/cam-7", CAM)
    manager.answer("PATCH /api/v1/devices/cam-7", CAM)
    assert types("device", "label", "cam-7", "lens-", "floor=2-").exit_code == 0
    assert manager.asked[-1].body == {"labels": {"line": "4", "floor": "2-"}}


@pytest.mark.parametrize("verb", ["reject", "revoke", "rollback"])
def test_what_touches_a_device_wants_a_yes(types, manager, verb):
    plan = {"device": "cam-7", "model": "digits", "from": "1.1.0", "to": "1.0.0"}
    manager.answer(f"POST /api/v1/devices/cam-7/{verb}", plan)
    refused = types("device", verb, "cam-7")
    assert refused.exit_code == Exit.USAGE
    assert "--yes" in refused.stderr
    assert all("dry_run=true" in asked.path for asked in manager.asked)
    assert types("device", verb, "cam-7", "--yes").exit_code == 0
    assert "dry_run" not in manager.asked[-1].path


def test_rollback_plan_changes_nothing(types, manager):
    plan = {"device": "cam-7", "model": "digits", "from": "1.1.0", "to": "1.0.0", "dry_run": True}
    manager.answer("POST /api/v1/devices/cam-7/rollback", plan)
    assert json.loads(types("device", "rollback", "cam-7", "--plan", "--json").stdout) == plan
    assert [asked.path for asked in manager.asked] == ["/api/v1/devices/cam-7/rollback?dry_run=true"]


def test_metrics(types, manager):
    window = {"end": "2026-11-23T10:00:00.000Z", "model": "digits", "version": "1.1.0", "requests": 60, "failed": 0}
    window |= {"p95_ms": 1.25, "host": {"cpu_ratio": 0.5, "memory_used_bytes": 2_000_000}}
    manager.answer("GET /api/v1/devices/cam-7/metrics", {"items": [window], "next_cursor": None})
    assert types("device", "metrics", "cam-7").stdout == (
        "2026-11-23T10:00:00.000Z\tdigits@1.1.0\t60\t0\t1.2 ms\t50 %\t2.0 MB\t–\n"
    )


def test_watch_shows_the_events_of_one_device_as_lines(types, manager):
    events = [{"subject": "cam-7", "text": "is back", "at": "2026-11-23T10:00:00Z", "level": "ok"}, {"subject": "x"}]
    manager.answer("GET /api/v1/events", "".join(f"data: {json.dumps(event)}\n\n" for event in events))
    manager.answer("GET /api/v1/devices/cam-7", {"id": "cam-7"})
    done = types("device", "watch", "cam-7", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == events[:1]
    assert done.exit_code == Exit.UNREACHABLE  # the stream ended by itself
    assert types("device", "watch", "cam-9").exit_code == Exit.NOT_FOUND  # and does not wait for ever


def test_an_address_at_which_something_else_answers_is_told_as_such(types, manager):
    manager.answer("GET /api/v1/devices", {"detail": "Not Found"}, 404)
    done = types("device", "list")
    assert done.exit_code == Exit.UNREACHABLE
    assert "E_ANSWER" in done.stderr
    assert "is not a Flotilla manager" in done.stderr


def test_token_create_list_revoke(types, manager):
    manager.answer("POST /api/v1/tokens", {"id": "to-1", "token": "flt-x"}, 201)
    past, future = "2020-01-01T00:00:00Z", "2120-01-01T00:00:00Z"
    rows = [
        {"id": "to-1", "name": "a", "role": "admin", "expires_at": future, "revoked_at": None, "created_at": past},
        {"id": "to-2", "name": "b", "role": "viewer", "expires_at": past, "revoked_at": None, "created_at": past},
        {"id": "to-3", "name": "c", "role": "viewer", "expires_at": None, "revoked_at": past, "created_at": past},
    ]
    manager.answer("GET /api/v1/tokens", {"items": rows, "next_cursor": None})
    manager.answer("DELETE /api/v1/tokens/to-1", rows[0])
    assert types("token", "create", "night", "--role", "operator", "--expires", "30d").stdout == "flt-x\n"
    assert manager.asked[0].body == {"name": "night", "role": "operator", "expires_seconds": 30 * 86400}
    assert [line.split("\t")[3] for line in types("token", "list").stdout.splitlines()] == [
        "valid",
        "expired",
        "revoked",
    ]
    assert types("token", "revoke", "to-1").exit_code == Exit.USAGE
    assert types("token", "revoke", "to-1", "--yes").exit_code == 0


def test_audit_verify_tells_by_exit_code(types, manager, tmp_path):
    rows = [{"sequence": 2, "hash": "b"}, {"sequence": 1, "hash": "a"}]
    manager.answer("GET /api/v1/audit", {"items": rows, "next_cursor": None})
    manager.answer("GET /api/v1/audit/verify", {"intact": True, "first_broken": None, "head": {}})
    export = types("audit", "export").stdout
    assert [json.loads(line)["sequence"] for line in export.splitlines()] == [1, 2]
    kept = tmp_path / "audit.jsonl"
    kept.write_text(export)
    assert types("audit", "verify").exit_code == 0
    assert types("audit", "verify", "--against", str(kept)).exit_code == 0
    kept.write_text(export + '{"sequence": 3, "hash": "cut off"}\n')
    done = types("audit", "verify", "--against", str(kept), "--json")
    assert (done.exit_code, json.loads(done.stdout)["first_broken"]) == (Exit.FAILED, 3)
    kept.write_text("no export")
    assert types("audit", "verify", "--against", str(kept)).exit_code != 0


def test_audit_verify_fails_on_a_broken_chain(types, manager):
    manager.answer("GET /api/v1/audit/verify", {"intact": False, "first_broken": 7, "head": None})
    done = types("audit", "verify")
    assert (done.exit_code, "row 7" in done.stdout) == (Exit.FAILED, True)


def test_status_counts_what_there_is(types, manager):
    rollout = {"id": "ro-1", "model": "digits", "version": "1.1.0", "state": "running"}
    alert = {"id": "al-1", "severity": "high", "state": "open", "text": "dark", "opened_at": "2026-11-23T10:00:00Z"}
    manager.answer("GET /api/v1/devices", {"items": [CAM, {**CAM, "id": "b", "link": "offline"}], "next_cursor": None})
    manager.answer("GET /api/v1/rollouts", {"items": [rollout, {**rollout, "state": "completed"}], "next_cursor": None})
    manager.answer("GET /api/v1/alerts", {"items": [alert, {**alert, "state": "resolved"}], "next_cursor": None})
    document = json.loads(types("status", "--json").stdout)
    assert document["devices"] == {"total": 2, "online": 1, "offline": 1}
    assert document["serving"] == {"digits@1.1.0": 2}
    assert (document["rollouts"], document["alerts"]) == ([rollout], [alert])
    text = types("status").stdout
    assert "2: 1 offline, 1 online" in text
    assert "ro-1 digits@1.1.0 running" in text
    assert document["role"] is None


def test_status_tells_which_manager_leads(types, manager):
    for kind in ("devices", "rollouts", "alerts"):
        manager.answer(f"GET /api/v1/{kind}", {"items": [], "next_cursor": None})
    manager.answer("GET /readyz", {"ready": True, "role": "follower", "leader": "http://other:8420"})
    assert f"manager   {manager.url} (follows http://other:8420)" in types("status").stdout
    document = json.loads(types("status", "--json").stdout)
    assert (document["role"], document["leader"]) == ("follower", "http://other:8420")


def test_open_shows_the_address(types, manager):
    assert types("open", "rollouts").stdout == f"{manager.url}/rollouts\n"


def test_doctor_finds_what_is_wrong(types, manager, tmp_path):
    file = tmp_path / "flotilla" / "cli.yaml"
    file.parent.mkdir()
    file.write_text("url: http://x\n")
    file.chmod(0o644)
    manager.answer("GET /readyz", {"ready": True})
    manager.answer("GET /api/v1/me", {"name": "ada", "role": "viewer"})
    waiting = {**CAM, "id": "new", "lifecycle": "pending"}
    manager.answer("GET /api/v1/devices", {"items": [{**CAM, "online": False}, waiting], "next_cursor": None})
    manager.answer("GET /api/v1/alerts", {"items": [{"state": "open", "text": "dark"}], "next_cursor": None})
    manager.answer("GET /api/v1/audit/verify", {"code": "E_FORBIDDEN", "title": "no"}, 403)
    done = types("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.exit_code == 0
    assert {name for name, one in found.items() if one["state"] == "warn"} == {
        "settings",
        "waiting",
        "devices",
        "alerts",
    }
    assert found["waiting"]["fix"] == "flotilla device accept new"
    assert found["clock"]["state"] == "pass"


def test_doctor_fails_without_manager(types, monkeypatch):
    monkeypatch.setenv("FLOTILLA_URL", "http://127.0.0.1:9")
    done = types("doctor")
    assert done.exit_code == Exit.FAILED
    assert "flotilla-fleet run" in done.stdout


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(types, kind):
    assert "_FLOTILLA_COMPLETE" in types("completion", kind).stdout
