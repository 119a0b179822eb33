"""The main result of tests.bench.digits_drift on fewer pictures: no fault that does harm is missed by all features."""

import numpy as np
import pytest

from tests.bench import digits_drift

HARMLESS = "none"
HARMFUL = ("blur 0.8", "noise 0.25", "dead column", "shifted 1 px", "upside down")


@pytest.fixture(scope="module")
def seen() -> dict[str, digits_drift.Seen]:
    return digits_drift.play(rounds=1, faults=(HARMLESS, *HARMFUL))


def test_a_clean_camera_raises_no_alarm(seen: dict[str, digits_drift.Seen]) -> None:
    assert {size: seen[HARMLESS].share(size, "any") for size in digits_drift.SIZES} == {100: 0, 1000: 0}


@pytest.mark.parametrize("fault", HARMFUL)
def test_a_fault_that_does_harm_is_found(seen: dict[str, digits_drift.Seen], fault: str) -> None:
    assert seen[HARMLESS].accuracy[0] - seen[fault].accuracy[0] >= digits_drift.HARM
    assert seen[fault].share(1000, "any") == 100


def test_turned_pictures_look_like_others_and_only_answers_and_embedding_tell(
    seen: dict[str, digits_drift.Seen],
) -> None:
    turned = seen["upside down"]
    assert {group: turned.share(1000, group) for group in ("input", "output", "embedding")} == {
        "input": 0, "output": 100, "embedding": 100,
    }  # fmt: skip


def test_the_estimate_is_near_the_truth_without_a_fault_and_too_high_where_the_model_errs_with_confidence(
    seen: dict[str, digits_drift.Seen],
) -> None:
    off = {name: float(np.subtract(one.estimated, one.accuracy).mean()) for name, one in seen.items()}
    assert abs(off[HARMLESS]) < 0.03
    assert off["upside down"] > 0.2
