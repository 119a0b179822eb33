"""A candidate in the shadow of the version that serves: what it must show, and how its figures are read.

The manager writes the terms into the assignment, the device counts, both read the counts alike.

I/O: none.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from shared.messages import ShadowFigures
from shared.sketches import Latency, merge_latency

Ratio = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]

#: One-sided confidence of `bounds`: 95 %.
_Z: Final = 1.6449


class Terms(BaseModel):
    """What a candidate is asked before it may serve. Unknown fields are ignored (ADR 6)."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    share: Share = 0.1  # of the answered requests, by chance
    min_samples: PositiveInt = 200  # answers compared, before they are judged
    min_agreement: Ratio = 0.95
    max_latency_ratio: PositiveFloat | None = 3.0  # median of one inference, against the version that serves
    max_error_ratio: Ratio = 0.01  # of the requests compared, that the candidate cannot answer
    seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 600.0  # at most, then `when_few` decides
    when_few: Literal["go-on", "hold", "fail"] = "go-on"  # too few samples by then, or no room for two versions
    stay: bool = False  # do not swap; wait for an assignment without a shadow
    absolute: NonNegativeFloat = 1e-3  # tolerance for outputs that are no class scores: absolute + relative * |value|
    relative: NonNegativeFloat = 1e-2
    memory_bytes: PositiveInt | None = None  # the candidate may take so much; None: what the device can spare
    max_cpu_ratio: Share = 0.9  # while the processors are busier nothing is sampled
    hold_seconds: Annotated[float, Field(gt=0, le=10)] = 1.0  # a request's place in memory is held for at most so long


def plus(one: ShadowFigures, other: ShadowFigures) -> ShadowFigures:
    """Both counted together."""
    return ShadowFigures(
        seconds=one.seconds + other.seconds,
        requests=one.requests + other.requests,
        samples=one.samples + other.samples,
        agreed=one.agreed + other.agreed,
        failed=one.failed + other.failed,
        crashes=one.crashes + other.crashes,
        dropped=one.dropped + other.dropped,
        skipped=one.skipped + other.skipped,
        difference=max(one.difference, other.difference),
        serving=_merged(one.serving, other.serving),
        candidate=_merged(one.candidate, other.candidate),
    )


def _merged(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return dict(merge_latency((one, other)).bins)


def agreement(found: ShadowFigures) -> float | None:
    """Share of the compared answers that agree; None before the first."""
    return found.agreed / found.samples if found.samples else None


def bounds(agreed: int, samples: int) -> tuple[float, float]:
    """Below and above which the true share lies with 5 % each (Wilson)."""
    if samples == 0:
        return 0.0, 1.0
    share, square = agreed / samples, _Z * _Z / samples
    middle = (share + square / 2) / (1 + square)
    reach = _Z * math.sqrt(share * (1 - share) / samples + square / (4 * samples)) / (1 + square)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def medians_ms(found: ShadowFigures) -> tuple[float, float] | None:
    """One inference of the version that serves and of the candidate, over the same requests."""
    was, is_now = Latency(found.serving).quantile_ms(0.5), Latency(found.candidate).quantile_ms(0.5)
    return None if was is None or is_now is None else (was, is_now)


def in_words(found: ShadowFigures) -> str:
    """`412 compared, 97.82 % agree, 1.20 ms against 1.10 ms, 3 dropped`."""
    share, medians = agreement(found), medians_ms(found)
    parts = [f"{found.samples} compared"]
    if share is not None:
        parts.append(f"{share:.2%} agree".replace("%", " %"))
    if medians is not None:
        parts.append(f"{medians[1]:.3g} ms against {medians[0]:.3g} ms")
    counted = {"failed": found.failed, "crashed": found.crashes, "dropped": found.dropped, "skipped": found.skipped}
    parts += [f"{number} {word}" for word, number in counted.items() if number]
    return ", ".join(parts)
