import json
from typing import Any

FOUND: dict[str, Any] = {
    "scope": "fleet", "model": "digits", "version": "1.0.0", "source": "learned", "learned_from": "fleet",
    "pinned": True, "chosen_by": "ana", "chosen_at": "2026-01-01T00:00:00.000Z", "ordinary_days": ["a", "b"],
    "features": [
        {"feature": "input.brightness", "samples": 900, "missing": 2,
         "dispersion": {"location": 4.25, "scale": 1.0, "shape": 1.0}},
        {"feature": "output.margin", "samples": 900, "missing": 0, "dispersion": None},
    ],
}  # fmt: skip


def test_show_lists_features_and_says_where_it_comes_from(manager, types) -> None:
    manager.answer("GET /api/v1/baselines/digits/1.0.0", FOUND)
    result = types("drift", "baseline", "show", "digits@1.0.0", "--scope", "device:cam-1")
    assert "scope=device%3Acam-1" in manager.asked[-1].path
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines == [
        ["input.brightness", "900", "2", "4.2", "1.0", "1.0"], ["output.margin", "900", "0", "–", "–", "–"],
    ]  # fmt: skip
    assert "digits@1.0.0 in fleet: what was learned in fleet, pinned; 2 ordinary days" in result.stderr


def test_pin_and_relearn_say_what_was_asked(manager, types) -> None:
    manager.answer("POST /api/v1/baselines/digits/1.0.0/pin", FOUND)
    manager.answer("POST /api/v1/baselines/digits/1.0.0/relearn", FOUND)
    assert types("drift", "baseline", "pin", "digits@1.0.0").exit_code == 0
    assert manager.asked[-1].body == {"scope": "fleet", "pinned": True}
    assert types("drift", "baseline", "pin", "digits@1.0.0", "--off").exit_code == 0
    assert manager.asked[-1].body == {"scope": "fleet", "pinned": False}
    told = types("drift", "baseline", "relearn", "digits@1.0.0", "--scope", "site:hall", "--days", "3", "--json")
    assert manager.asked[-1].body == {"scope": "site:hall", "days": 3}
    assert json.loads(told.stdout)["source"] == "learned"


def test_list_and_a_release_without_version(manager, types) -> None:
    manager.answer("GET /api/v1/baselines", {"items": [FOUND], "next_cursor": None})
    assert types("drift", "baseline", "list").stdout.startswith("digits@1.0.0\tfleet\tlearned\tyes\tana\t")
    assert types("drift", "baseline", "show", "digits").exit_code == 2
