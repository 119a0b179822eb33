"""Which faults of a camera are seen by which features, on real pictures with a real model, and what they cost.

python -m tests.bench.digits_drift [--quick] [--json]

Rounds: 400 of scikit-learn's digits become the reference of a release (baseline by the code of `flotilla model
publish`), 1000 others are what a camera sees, whole or by hundreds, each with one fault. The worker's session and
probes, the agent's windows and the manager's memory and alarm do the rest, with the error budget of 1000 devices.
"Found" is an alarm after one day. Beside it: accuracy, and what the manager estimates of it without labels.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from agent.serving import worker_session, worker_wire
from agent.serving.observations import Sample
from agent.serving.worker_probe import Prober
from agent.telemetry.window import Stamp, Subject, Window
from fleet.releases import packing, reference_run
from fleet.releases.reading import read_model
from fleet.settings import FleetSettings
from fleet.telemetry import baselines, estimate
from fleet.telemetry.board import Board
from fleet.telemetry.finding import Finding
from fleet.telemetry.layout import Layout
from fleet.telemetry.looking import Needs
from fleet.telemetry.verdict import Rule
from shared.messages import HostMetrics, TelemetryWindow
from shared.sketches import CONFIDENCE, Baseline
from tests.bench.document import Result, arguments, tell
from tests.simulators import corruptions, digits

TRAIN: Final = 397
REFERENCE: Final = 400
LIVE: Final = 1000
SIZES: Final = (100, 1000)
PRIOR: Final = "class 8 x 3"
GROUPS: Final = ("input", "output", "embedding", "class")
HARM: Final = 0.02  # of accuracy lost: a fault is harmful from here on
#: Rows of a fleet that the budget of false alarms is shared by: 1000 devices with 20 features.
ROWS: Final = 20_000
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Seen:
    """What became of one fault: of each group, how often it rang; accuracy and its estimates."""

    rang: dict[int, dict[str, list[bool]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    accuracy: list[float] = field(default_factory=list)
    estimated: list[float] = field(default_factory=list)
    thresholded: list[float] = field(default_factory=list)  # average thresholded confidence, from raw values

    def share(self, size: int, group: str) -> float:
        """Percent of the looks at `size` samples in which `group` rang."""
        return 100 * float(np.mean(self.rang[size][group]))


@dataclass(frozen=True)
class Release:
    """One published model with the reference of this round."""

    session: worker_session.Session
    prober: Prober
    baseline: Baseline
    layout: Layout
    right: baselines.Counts
    threshold: float  # of confidence: as many reference rows are above as were answered rightly


def main() -> int:
    chosen = arguments("which faults of a camera are seen by which features")
    found = play(rounds=3 if chosen.quick else 20)
    clean = float(np.mean(found["none"].accuracy))
    harmful = [name for name, seen in found.items() if clean - np.mean(seen.accuracy) >= HARM]
    missed = [name for name in harmful if found[name].share(1000, "any") < 100]
    off = {name: 100 * (np.mean(seen.estimated) - np.mean(seen.accuracy)) for name, seen in found.items()}
    results = [Result("harmful faults that all groups miss, n = 1000", len(missed), "faults", 0.0)]
    for size in SIZES:
        looks = found["none"].share(size, "any")
        results.append(Result(f"looks at the clean camera that ring, n = {size}", looks, "%", 0.0))
    for name, seen in found.items():
        truth = 100 * float(np.mean(seen.accuracy))
        guesses = {"estimate": 100 * float(np.mean(seen.estimated)), "ATC": 100 * float(np.mean(seen.thresholded))}
        tags = " (harmful)" if name in harmful else ""
        results.append(Result(f"{name}{tags}: accuracy", truth, "%", peer=rounded(guesses)))
        for size in SIZES:
            groups = {group: seen.share(size, group) for group in GROUPS}
            results.append(Result(f"{name}: found, n = {size}", seen.share(size, "any"), "%", peer=rounded(groups)))
    results.append(Result("mean error of the estimate", float(np.mean(np.abs(list(off.values())))), "points"))
    results.append(Result("largest error of the estimate", max(map(abs, off.values())), "points"))
    return tell("digits_drift", results, as_json=chosen.json)


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 1) for name, value in values.items()}


def play(*, rounds: int, seed: int = 1, faults: tuple[str, ...] = (*corruptions.ALL, PRIOR)) -> dict[str, Seen]:
    """Every fault, `rounds` times with another reference and other pictures."""
    found = {name: Seen() for name in faults}
    pictures, labels, model = trained()
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        order = rng.permutation(len(pictures))
        reference, live = order[:REFERENCE], order[REFERENCE : REFERENCE + LIVE]
        with tempfile.TemporaryDirectory(prefix="flotilla-digits-") as folder:
            release = publish(model, pictures[reference], labels[reference], Path(folder))
            for name, seen in found.items():
                some = live[corruptions.more_of(labels[live], 8, 3, rng)] if name == PRIOR else live
                fault = corruptions.ALL.get(name, corruptions.ALL["none"])
                look(release, fault(pictures[some], rng).astype(np.float32), labels[some], seen)
    return found


def trained() -> tuple[np.ndarray, np.ndarray, bytes]:
    """Pictures that the model never saw, their digits, and the model with its layer before the last."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pictures = (values / 16).astype(np.float32).reshape(-1, 8, 8)
    order = np.random.default_rng(7).permutation(len(pictures))
    learn, rest = order[:TRAIN], order[TRAIN:]
    return pictures[rest], labels[rest], digits.with_hidden(digits.build(*digits.fit(pictures[learn], labels[learn])))


def publish(model: bytes, pictures: np.ndarray, labels: np.ndarray, folder: Path) -> Release:
    """As `flotilla model publish --embedding hidden`, as far as the baseline, and a worker that has loaded it."""
    facts = read_model("model.onnx", model)
    measured = reference_run.run(
        model, {"image": pictures}, labels, declared=facts.inputs, golden_rows=32, embedding="hidden"
    )
    baseline = packing.baseline_of(packing.Label("digits", "1.0.0"), measured)
    path = folder / "model.onnx"
    path.write_bytes(model)
    (folder / worker_session.GOLDEN).write_bytes(measured.golden)
    body = baseline.model_dump(mode="json")
    right = baselines.right(body)
    assert right is not None
    assert measured.accuracy is not None
    return Release(
        session=worker_session.load(str(path), providers=[worker_session.CPU], threads=1),
        prober=Prober(along=worker_session.projection(str(path))),
        baseline=baseline,
        layout=Layout.of(baselines.references(body)),
        right=right,
        threshold=float(np.quantile(measured.features[CONFIDENCE], 1 - measured.accuracy)),
    )


def look(release: Release, pictures: np.ndarray, labels: np.ndarray, seen: Seen) -> None:
    """A day of the manager for each hundred of these pictures, and one for all of them."""
    parts = []
    for start in range(0, len(pictures), SIZES[0]):
        some = pictures[start : start + SIZES[0]]
        answers = release.session.run({"image": some})
        right = answers["scores"].argmax(axis=1) == labels[start : start + SIZES[0]]
        sure = answers["scores"].max(axis=1) >= release.threshold
        parts.append((observed(release, some, answers), right, sure))
    for size in SIZES:
        step = size // SIZES[0]
        for start in range(0, len(parts), step):
            findings = judged(release, [window for window, _, _ in parts[start : start + step]])
            rang = {one.feature.partition(".")[0] for one in findings if one.alarm is not None}
            for group in GROUPS:
                seen.rang[size][group].append(group in rang)
            seen.rang[size]["any"].append(bool(rang))
    confidence = next(one for one in findings if one.feature == CONFIDENCE)
    guess = estimate.estimate(confidence.counts, *release.right, least=100)
    assert guess is not None
    seen.estimated.append(guess.accuracy)
    seen.accuracy.append(float(np.mean(np.concatenate([right for _, right, _ in parts]))))
    seen.thresholded.append(float(np.mean(np.concatenate([sure for _, _, sure in parts]))))


def observed(release: Release, pictures: np.ndarray, answers: dict[str, np.ndarray]) -> TelemetryWindow:
    """The telemetry window of a device that answered these pictures."""
    known = {feature.name: feature for feature in release.baseline.features}
    window = Window(Subject("digits", "1.0.0", "0" * 64, "serving"), NOW, known)
    for features in traced(release.prober, pictures, answers):
        window.add(Sample("digits", "1.0.0", request_id="", latency_ms=1.0, features=features))
    stamp = Stamp("cam-1", "s", 1, NOW)
    sent = window.close(stamp, boot="b", end=NOW, host=HostMetrics())
    return TelemetryWindow.parse(sent.to_wire())


def traced(
    prober: Prober, pictures: np.ndarray, answers: dict[str, np.ndarray]
) -> Iterator[dict[str, tuple[float, ...]]]:
    prober.add(1, {"image": pictures}, answers)
    for _, packed in prober.flush():
        yield worker_wire.unpack_features(packed)


def judged(release: Release, windows: list[TelemetryWindow]) -> list[Finding]:
    """What the manager finds after a day with these windows."""
    board, rule = Board("digits", "1.0.0", release.layout, 7), Rule.of(FleetSettings())
    board.advance(0)
    for window in windows:
        vector, refused = release.layout.flat(window.features)
        assert not refused
        board.add(["device:cam-1"], 0, vector)
    needs = Needs(rule.min_samples, rule.significance, rule.limits({"device": ROWS}))
    return board.look(board.due(), needs, ())


if __name__ == "__main__":
    sys.exit(main())
