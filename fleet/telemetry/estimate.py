"""How right the answers probably are, from their confidences alone: an estimate, never a measurement, never a gate.

    a_b       share of right answers among the reference rows of bin b of `output.confidence`; bins that hold fewer
              than 20 reference rows share one with their neighbours
    accuracy  sum over b of (n_b / n) a_b, n_b = answers of the window in bin b
    error     1.96 sqrt(sum of (n_b / n)^2 a_b (1 - a_b) / m_b, and accuracy (1 - accuracy) / n): what is not known of
              the a_b, from m_b reference rows each, and chance among the n answers

It is the binned calibration of Zadrozny and Elkan (2001) averaged over new data, as confidence-based performance
estimation does. It holds while a confidence still means what it meant on the reference data, and says too much where
the model errs with confidence: docs/drift.md has the figures. Nothing that decides imports this module; a test sees
to that.

I/O: none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Fewer reference rows than this say too little of how often they are right.
MIN_ROWS: Final = 20
_SIGMAS: Final = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """`error` is what chance alone explains, at 95 %; it does not hold where confidence itself misleads."""

    accuracy: float
    reference: float  # measured on the labelled reference data
    error: float
    samples: int

    @property
    def text(self) -> str:
        """One sentence for people."""
        return (
            f"estimate: {self.accuracy:.1%} of {self.samples} answers are right (± {100 * self.error:.1f} points), "
            f"judged by confidence alone; on the reference data {self.reference:.1%} were. No labels, no measurement"
        )

    def document(self) -> dict[str, Any]:
        """Its JSON form, marked as what it is."""
        return {
            "estimate": True,
            "accuracy": round(self.accuracy, 4),
            "error": round(self.error, 4),
            "reference_accuracy": round(self.reference, 4),
            "samples": self.samples,
            "text": self.text,
        }


def estimate(counts: Sequence[int], right: Sequence[int], every: Sequence[int], *, least: int) -> Estimate | None:
    """From the `counts` of a window, and `right` of `every` reference row, over the same bins of confidence.

    None with fewer than `least` answers, or a reference that is too small to say anything.

    Raises:
        ValueError: different numbers of bins.
    """
    cells = _cells(every)
    if not len(counts) == len(right) == len(every):
        raise ValueError("counts over different bins")
    new, good, old = (np.add.reduceat(np.asarray(it, np.float64), cells) for it in (counts, right, every))
    n, m = float(new.sum()), float(old.sum())
    if n < max(least, 1) or m < MIN_ROWS:
        return None
    shares, rates = new / n, good / old
    value = float((shares * rates).sum())
    certain = (good + 0.5) / (old + 1)  # a bin without a wrong answer is not known to have none
    variance = float((shares**2 * certain * (1 - certain) / old).sum())
    variance += value * (1 - value) / n
    return Estimate(value, float(good.sum() / m), _SIGMAS * variance**0.5, round(n))


def _cells(every: Sequence[int]) -> NDArray[np.int64]:
    """Where cells begin: neighbours joined until each holds enough reference rows, the last with the one before."""
    starts, held = [0], 0
    for place, number in enumerate(every):
        if held >= MIN_ROWS:
            starts, held = [*starts, place], 0
        held += number
    return np.array(starts[:-1] if held < MIN_ROWS and len(starts) > 1 else starts, dtype=np.int64)
