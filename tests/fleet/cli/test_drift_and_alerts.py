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
