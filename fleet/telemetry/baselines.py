"""What a window is compared with: the reference that travels with the release.

I/O: none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet.telemetry import drift
from shared.compact import EDGES_HEX
from shared.messages import FeatureCounts
from shared.sketches import CONFIDENCE, RIGHT, Baseline

Counts = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Reference:
    """One feature of a release's baseline, ready to compare with."""

    group: str  # input, output, class
    kind: str
    digest: str  # of the bin edges
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    widths: tuple[float, ...]
    missing: int = 0


def references(body: Mapping[str, Any]) -> Mapping[str, Reference]:
    """Feature -> its reference; empty when the release has none, or none that can be read."""
    try:
        baseline = Baseline.model_validate(body)
    except ValidationError:
        return {}
    return {
        feature.name: Reference(
            group=feature.group,
            kind=feature.kind,
            digest=feature.digest,
            edges=feature.edges,
            counts=feature.counts,
            widths=drift.widths(feature),
            missing=feature.missing,
        )
        for feature in baseline.features
        if feature.name != RIGHT and len(feature.counts) == len(feature.edges) + 1 and sum(feature.counts) > 0
    }


def right(body: Mapping[str, Any]) -> Counts | None:
    """Right answers and all answers of the reference in each bin of confidence; None where it had no labels."""
    try:
        features = {feature.name: feature for feature in Baseline.model_validate(body).features}
    except ValidationError:
        return None
    if CONFIDENCE not in features or RIGHT not in features:
        return None
    every, good = features[CONFIDENCE], features[RIGHT]
    if good.digest != every.digest or len(good.counts) != len(every.counts):
        return None
    return good.counts, every.counts


def fits(reference: Reference, counts: FeatureCounts) -> bool:
    """Counts over other bins are never merged: they would mean something else. Compact windows cut the digest."""
    same = len(counts.edges) >= EDGES_HEX and reference.digest.startswith(counts.edges)
    return same and len(counts.counts) == len(reference.counts)
