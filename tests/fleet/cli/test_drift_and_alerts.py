import json
from typing import Any

ALERT = {
    "id": "al-1", "kind": "drift", "scope": "device:cam-1", "subject": "digits@1.0.0 input.brightness",
    "severity": "critical", "state": "open", "text": "digits 1.0.0 on cam-1: PSI 0.83", "body": {}, "note": None,
    "acknowledged_by": None, "opened_at": "2026-01-01T00:00:00.000Z", "updated_at": "2026-01-01T00:00:00.000Z",
    "resolved_at": None,
}  # fmt: skip


def verdict(scope: str, feature: str, state: str, psi: float, samples: int = 240) -> dict[str, Any]:
    return {
        "scope": scope, "model": "digits", "version": "1.0.0", "feature": feature, "state": state, "samples": samples,
        "since": "2026-01-01T00:00:00.000Z", "psi_corrected": psi, "kl": 0.1, "js_distance": 0.1, "ks": 0.2, "p": 1e-9,
        "min_samples": 100, "text": f"{feature}: PSI {psi:.2f}",
    }  # fmt: skip


ROWS = [
    verdict("fleet", "input.contrast", "ok", 0.01),
    verdict("device:cam-1", "output.margin", "warning", 0.9),
    verdict("device:cam-1", "input.brightness", "drifted", 0.83),
    verdict("device:cam-2", "input.contrast", "collecting", 5.0, samples=40),
]


def test_status_shows_the_worst_feature_of_each_scope(manager, types) -> None:
    manager.answer("GET /api/v1/drift", {"items": ROWS, "next_cursor": None})
    lines = [line.split("\t") for line in types("drift", "status").stdout.splitlines()]
    assert [(line[1], line[2], line[3], line[4], line[6]) for line in lines] == [
        ("device:cam-1", "240", "0.83", "✖ drifted", "input.brightness"),
        ("device:cam-2", "40 of 100", "–", "… collecting", "input.contrast"),
        ("fleet", "240", "0.01", "✔ ok", "input.contrast"),
    ]


def test_show_lists_every_distance_and_says_the_worst(manager, types) -> None:
    manager.answer("GET /api/v1/drift/digits", {"model": "digits", "items": ROWS, "next_cursor": None})
    result = types("drift", "show", "digits", "--device", "cam-1")
    assert result.exit_code == 0, result.output
    assert "scope=device%3Acam-1" in manager.asked[0].path
    assert "input.brightness: PSI 0.83" in result.stderr
    assert json.loads(types("drift", "show", "digits", "--json").stdout)["model"] == "digits"


def test_show_of_one_version_leaves_out_the_others_and_what_is_unknown_is_no_empty_list(manager, types) -> None:
    manager.answer("GET /api/v1/drift/digits", {"model": "digits", "items": ROWS, "next_cursor": None})
    manager.answer("GET /api/v1/models/digits/versions/1.0.0", {})
    shown = json.loads(types("drift", "show", "digits@1.0.0", "--json").stdout)["items"]
    assert {row["version"] for row in shown} == {"1.0.0"}
    unknown = {"code": "E_NOT_FOUND", "title": "Not found", "detail": "no model 'digts' was published here"}
    manager.answer("GET /api/v1/drift/digts", {"model": "digts", "items": [], "next_cursor": None})
    manager.answer("GET /api/v1/models/digts/versions", unknown, 404)
    assert types("drift", "show", "digts").exit_code == 3


def test_show_tells_the_estimate_of_accuracy_and_that_it_is_one(manager, types) -> None:
    text = "estimate: 91.0% of 240 answers are right (± 3.0 points), judged by confidence alone"
    row = verdict("fleet", "output.confidence", "ok", 0.01) | {"accuracy_estimate": {"estimate": True, "text": text}}
    manager.answer("GET /api/v1/drift/digits", {"model": "digits", "items": [row], "next_cursor": None})
    assert f"fleet 1.0.0: {text}" in types("drift", "show", "digits").stderr
    assert json.loads(types("drift", "show", "digits", "--json").stdout)["items"][0]["accuracy_estimate"]["estimate"]


def test_alerts_list_show_ack_resolve(manager, types) -> None:
    manager.answer("GET /api/v1/alerts", {"items": [ALERT], "next_cursor": None})
    manager.answer("GET /api/v1/alerts/al-1", ALERT)
    manager.answer("POST /api/v1/alerts/al-1/ack", {**ALERT, "state": "acknowledged"})
    manager.answer("POST /api/v1/alerts/al-1/resolve", {**ALERT, "state": "resolved"})
    assert types("alert", "list").stdout.startswith("al-1\tcritical\topen\tdrift\t")
    assert json.loads(types("alert", "list", "--json").stdout) == {"items": [ALERT]}
    assert "Next: flotilla alert ack al-1" in types("alert", "show", "al-1").stdout
    assert types("alert", "ack", "al-1", "--note", "lamp").exit_code == 0
    assert manager.asked[-1].body == {"note": "lamp"}
    assert types("alert", "resolve", "al-1").exit_code == 0
    assert types("alert", "show", "al-2").exit_code == 3


SILENCE = {
    "id": "si-1", "matcher": {"kind": "drift", "labels": {"site": "gate"}}, "comment": "works", "created_by": "ana",
    "created_at": "2026-01-01T00:00:00.000Z", "until": "2099-01-01T00:00:00.000Z", "ended_by": None, "ended_at": None,
}  # fmt: skip
CHANNEL = {
    "name": "ops", "kind": "webhook", "state": "failing", "target": "hooks.example.org", "notified": True,
    "waiting": 2, "error": "HTTP 500", "delivered_at": None,
}  # fmt: skip
DELIVERY = {
    "id": "dl-1", "channel": "ops", "purpose": "notification", "group": "g", "alerts": ["al-1"], "state": "pending",
    "attempts": 3, "outcome": "HTTP 500", "owed_at": "2026-01-01T00:00:00.000Z", "tried_at": None, "settled_at": None,
}  # fmt: skip


def test_silences_are_made_listed_and_ended(manager, types) -> None:
    manager.answer("POST /api/v1/silences", SILENCE, 201)
    manager.answer("GET /api/v1/silences", {"items": [SILENCE], "next_cursor": None})
    manager.answer("DELETE /api/v1/silences/si-1", {**SILENCE, "ended_at": "2026-01-01T00:00:00.000Z"})
    made = types("alert", "silence", "al-1", "--for", "30m", "--comment", "works")
    assert "flotilla alert unsilence si-1" in made.stderr
    assert manager.asked[-1].body == {"alert": "al-1", "seconds": 1800, "comment": "works"}
    types("alert", "silence", "--kind", "drift", "--label", "site=gate", "--comment", "works")
    assert manager.asked[-1].body["matcher"] == {"kind": "drift", "labels": {"site": "gate"}}
    line = types("alert", "silences").stdout.split("\t")
    assert line[:2] == ["si-1", "kind:drift site=gate"]
    assert types("alert", "unsilence", "si-1").stdout == "si-1 is over.\n"
    assert types("alert", "silence", "--comment", "what").exit_code == 2
    assert types("alert", "silence", "al-1", "--kind", "drift", "--comment", "both").exit_code == 2


def test_channels_deliveries_and_the_test_of_a_channel(manager, types) -> None:
    manager.answer("GET /api/v1/channels", {"items": [CHANNEL], "next_cursor": None})
    manager.answer("GET /api/v1/deliveries", {"items": [DELIVERY], "next_cursor": None})
    manager.answer("POST /api/v1/channels/ops/test", {"channel": "ops", "delivered": True, "answer": "HTTP 200"})
    failed = {"channel": "ops", "delivered": False, "code": "E_CHANNEL_DOWN", "answer": "HTTP 500", "hint": "look"}
    manager.answer("POST /api/v1/channels/ops/test", failed)
    assert types("alert", "channels").stdout.startswith("ops\twebhook\tfailing\tyes\t2\tnever\thooks.example.org")
    assert types("alert", "deliveries", "--channel", "ops").stdout.startswith("dl-1\tops\tnotification\tpending\t3\t")
    assert types("alert", "test", "ops").stdout == "ops: delivered, HTTP 200\n"
    result = types("alert", "test", "ops")
    assert (result.exit_code, "E_CHANNEL_DOWN" in result.stdout, "look" in result.stderr) == (1, True, True)


FIGURE = {
    "metric": "accuracy", "value": 0.93, "low": 0.91, "high": 0.945, "reference": 0.95, "limit": 0.05, "samples": 400,
    "needed": 100, "state": "watch", "estimate": False, "text": "it was 95.0 % at publish: a little worse.",
}  # fmt: skip
STANDING = {
    "scope": "fleet", "version": "1.0.0", "since": "2026-01-01T00:00:00+00:00", "as_of": "2026-01-01T00:00:00+00:00",
    "figures": [FIGURE, {**FIGURE, "metric": "latency", "value": 31.4, "low": None, "high": None, "state": "unknown"}],
}  # fmt: skip


def test_drift_show_tells_performance_with_its_interval_and_its_age(manager, types) -> None:
    manager.answer("GET /api/v1/drift/digits", {"model": "digits", "items": [], "performance": [STANDING]})
    said = types("drift", "show", "digits").stderr
    assert "performance of 1.0.0 on fleet, as of " in said
    assert " d ago:" in said
    assert "▲ accuracy   93.0 % (91.0 % to 94.5 %)  it was 95.0 % at publish" in said
    assert "… latency    31.4 ms  " in said
    assert "performance of" not in types("drift", "show", "digits", "--device", "cam-1").stderr


def test_report_is_stored_in_a_file_and_said_where(manager, types, tmp_path) -> None:
    manager.answer("GET /api/v1/drift/report", {"headline": "Nothing to do"})
    file = tmp_path / "report.json"
    done = types("drift", "report", "digits@1.1.0", "--since", "24h", "--format", "json", "--site", "hall 3",
                 "--output", str(file))  # fmt: skip
    assert done.exit_code == 0
    assert str(file) in done.stdout
    assert "Nothing to do" in done.stderr
    assert file.read_bytes() == b'{"headline": "Nothing to do"}'
    asked = manager.asked[-1].path
    assert asked.startswith("/api/v1/drift/report?model=digits&version=1.1.0&since=24h&format=json&site=hall")
    assert types("drift", "report", "digits", "--format", "json", "--output", "-").stdout == file.read_text()


def test_report_that_cannot_be_made_or_stored_says_why(manager, types, tmp_path) -> None:
    problem = {"code": "E_REPORT_EMPTY", "title": "Not found", "detail": "nothing of digits", "hint": "--since"}
    manager.answer("GET /api/v1/drift/report", problem, 404)
    manager.answer("GET /api/v1/drift/report", {"headline": "x"})
    refused = types("drift", "report", "digits")
    assert (refused.exit_code, "E_REPORT_EMPTY" in refused.stderr) == (3, True)
    nowhere = types("drift", "report", "digits", "--output", str(tmp_path / "no" / "where.html"))
    assert (nowhere.exit_code, "cannot write" in nowhere.stderr) == (2, True)
