from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.serving.observations import Feedback, Sample, WorkerDied
from agent.telemetry.window import MAX_BINS, Stamp, Subject, Window
from shared.messages import HostMetrics, TelemetryWindow
from shared.sketches import FeatureBaseline, Latency

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
SUBJECT = Subject("digits", "1.0.0", "ab" * 32, "probation")
BRIGHTNESS = FeatureBaseline(
    name="input.brightness", group="input", kind="quantity", edges=(0.0, 0.5, 1.0), counts=(0, 5, 5, 0)
)


def opened() -> Window:
    return Window(SUBJECT, START, {"input.brightness": BRIGHTNESS})


def closed(window: Window, end: datetime = START + timedelta(seconds=60)) -> TelemetryWindow:
    stamp = Stamp("dev-a", "s1", 7, START)
    return window.close(stamp, boot="b1", end=end, host=HostMetrics(cpu_ratio=0.5))


def sample(latency_ms: float = 10.0, error: str | None = None, **features: tuple[float, ...]) -> Sample:
    named = {name.replace("_", "."): values for name, values in features.items()}
    return Sample("digits", "1.0.0", "r", latency_ms, error, named)


def test_values_are_counted_over_the_bins_of_the_baseline() -> None:
    window = opened()
    window.add(sample(input_brightness=(-1.0, 0.0, 0.4, 0.5)))
    window.add(sample(input_brightness=(2.0, float("nan"), float("inf"))))
    counted = closed(window).features["input.brightness"]
    assert counted.counts == (1, 2, 1, 1)
    assert counted.missing == 2
    assert counted.edges == BRIGHTNESS.digest


def test_a_feature_without_baseline_or_with_too_many_bins_is_left_out() -> None:
    window = opened()
    wide = FeatureBaseline(name="w", group="class", kind="category", edges=tuple(range(MAX_BINS)), counts=())
    window.features = {**window.features, "w": wide}
    window.add(Sample("digits", "1.0.0", "r", 1.0, None, {"unknown": (1.0,), "w": (1.0,)}))
    assert closed(window).features == {}
    assert closed(window).requests == 1


def test_latency_is_within_a_bin_of_two_percent() -> None:
    window = opened()
    for _ in range(100):
        window.add(sample(latency_ms=20.0))
    median = Latency(closed(window).latency).quantile_ms(0.5)
    assert median == pytest.approx(20.0, rel=0.02)


def test_a_failed_request_counts_as_error_but_not_as_latency_or_feature() -> None:
    window = opened()
    window.add(sample(error="timeout", input_brightness=(0.5,)))
    window.add(sample(error="timeout"))
    window.add(sample(error="busy"))
    message = closed(window)
    assert (message.requests, message.errors) == (3, {"timeout": 2, "busy": 1})
    assert (message.latency, message.features) == ({}, {})


def test_feedback_and_dead_workers_are_counted() -> None:
    window = opened()
    assert window.empty
    window.add(Feedback("digits", "1.0.0", "r", correct=True))
    window.add(Feedback("digits", "1.0.0", "q", correct=False))
    window.add(WorkerDied("digits", "1.0.0", "SIGKILL"))
    assert not window.empty
    message = closed(window)
    assert (message.labelled, message.correct, message.restarts, message.requests) == (2, 1, 1, 0)


def test_feedback_counts_true_against_predicted_classes() -> None:
    window = opened()
    for truth, predicted in ((3, 3), (3, 5), (3, 3), (200, 4), (4, 31), (-1, 4)):
        window.add(Feedback("digits", "1.0.0", "r", truth == predicted, truth, predicted))
    window.add(Feedback("digits", "1.0.0", "r", correct=True))  # of an answer without classes
    message = closed(window)
    assert message.confusion == ((3, 3, 2), (3, 5, 1), (4, 31, 1), (31, 4, 2))
    assert (message.labelled, message.correct) == (7, 3)


def test_runs_of_the_model_are_counted_by_their_size() -> None:
    window = opened()
    for batch in (1, 1, 8, 15, 16, 0):
        window.add(replace(sample(), batch=batch))
    window.add(replace(sample(error="timeout"), batch=4))
    assert closed(window).batches == {0: 2, 3: 2, 4: 1}


def test_the_message_says_what_it_is_about_and_fits_on_the_wire() -> None:
    window = opened()
    window.add(sample(input_brightness=(0.1,)))
    message = closed(window)
    assert TelemetryWindow.parse(message.to_bytes()) == message
    assert (message.device, message.stream, message.sequence, message.boot) == ("dev-a", "s1", 7, "b1")
    assert (message.model, message.version, message.manifest, message.phase) == (
        "digits",
        "1.0.0",
        "ab" * 32,
        "probation",
    )
    assert message.end - message.start == timedelta(seconds=60)
    assert message.host.cpu_ratio == 0.5


def test_a_clock_that_went_back_gives_a_window_of_no_length() -> None:
    message = closed(opened(), end=START - timedelta(hours=1))
    assert message.start == message.end == START - timedelta(hours=1)
