"""Observations of one model version in one phase -> the counts of one telemetry window.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from agent.serving.observations import NO_CLASS, Feedback, Observation, Sample, WorkerDied
from shared import sketches
from shared.messages import LAST_CLASS, FeatureCounts, HostMetrics, TelemetryWindow

#: Most bins of one feature that a message carries; features with more are left out.
MAX_BINS: Final = 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """What a window is about. A window never mixes two of them."""

    model: str
    version: str
    manifest: str  # digest of the release's manifest
    phase: Literal["probation", "serving"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the outbox adds to a message."""

    device: str
    stream: str
    sequence: int
    at: datetime


@dataclass(slots=True)
class Window:
    """An open window. `start` is the device's wall time."""

    subject: Subject
    start: datetime
    features: Mapping[str, sketches.FeatureBaseline]
    requests: int = 0
    labelled: int = 0
    correct: int = 0
    restarts: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latency: dict[int, int] = field(default_factory=dict)
    counts: dict[str, list[int]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    confusion: dict[tuple[int, int], int] = field(default_factory=dict)
    batches: dict[int, int] = field(default_factory=dict)

    def add(self, observation: Observation) -> None:
        """Count `observation`, which is about this window's model version."""
        match observation:
            case Sample():
                self._sample(observation)
            case Feedback():
                self.labelled += 1
                self.correct += observation.correct
                self._confuse(observation.truth, observation.predicted)
            case WorkerDied():
                self.restarts += 1

    def _sample(self, sample: Sample) -> None:
        self.requests += 1
        if sample.error is not None:
            self.errors[sample.error] = self.errors.get(sample.error, 0) + 1
            return
        if sample.batch > 0:
            size = sample.batch.bit_length() - 1
            self.batches[size] = self.batches.get(size, 0) + 1
        place = sketches.latency_bin(sample.latency_ms)
        self.latency[place] = self.latency.get(place, 0) + 1
        for name, values in sample.features.items():
            baseline = self.features.get(name)
            if baseline is None or len(baseline.edges) >= MAX_BINS:
                continue
            counts, missing = sketches.count(baseline.edges, values)
            known = self.counts.get(name)
            self.counts[name] = counts if known is None else sketches.add(known, counts)
            self.missing[name] = self.missing.get(name, 0) + missing

    def _confuse(self, truth: int, predicted: int) -> None:
        """Classes that are not counted apart share the last place: what a message holds is bounded."""
        if predicted == NO_CLASS:
            return
        pair = (truth if 0 <= truth < LAST_CLASS else LAST_CLASS, min(predicted, LAST_CLASS))
        self.confusion[pair] = self.confusion.get(pair, 0) + 1

    @property
    def empty(self) -> bool:
        """True when nothing was observed."""
        return not (self.requests or self.labelled or self.restarts)

    def close(self, stamp: Stamp, *, boot: str, end: datetime, host: HostMetrics) -> TelemetryWindow:
        """The message. A wall clock that went back makes a window of no length, not an error."""
        return TelemetryWindow(
            device=stamp.device,
            stream=stamp.stream,
            sequence=stamp.sequence,
            at=stamp.at,
            boot=boot,
            model=self.subject.model,
            version=self.subject.version,
            manifest=self.subject.manifest,
            phase=self.subject.phase,
            start=min(self.start, end),
            end=end,
            requests=self.requests,
            errors=self.errors,
            latency=self.latency,
            features={
                name: FeatureCounts(
                    edges=self.features[name].digest, counts=tuple(counts), missing=self.missing.get(name, 0)
                )
                for name, counts in self.counts.items()
            },
            labelled=self.labelled,
            correct=self.correct,
            confusion=tuple((*pair, number) for pair, number in sorted(self.confusion.items())),
            batches=dict(sorted(self.batches.items())),
            restarts=self.restarts,
            host=host,
        )
