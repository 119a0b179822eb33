"""The same samples under the definitions of the drift libraries that people install, and under ours.

python -m tests.bench.drift_tools [--quick] [--json]

Each library computes its own figures in an environment of its own (`drift_peers`; `--quick` installs none that is not
there). Its definition as docs/drift.md states it is computed here too: how far that is from the library's own figure
is the goal, so that the page cannot say what is not so.
"""

import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.spatial import distance

from fleet.telemetry import drift
from shared.sketches import FeatureBaseline, count, quantile_edges
from tests.bench.document import Result, arguments, tell
from tests.bench.drift_peers import LIBRARIES, Missing, home

Values = NDArray[Any]
Pair = tuple[Values, Values]
GOAL: Final = 1e-9  # relative
SIGNIFICANCE: Final = 5e-5


def main() -> int:
    asked = arguments("the same samples under every library's definitions")
    pairs = data()
    found = {"ours": {name: ours(*pair) for name, pair in pairs.items()}, **told(pairs, install=not asked.quick)}
    results = []
    for name in pairs:
        for library, rows in found.items():
            if measures := rows.get(name):
                shown = {key: round(value, 4) for key, value in sorted(measures.items())[1:]}
                first = min(measures)
                results.append(Result(f"{name}: {library}, {first}", measures[first], "", peer=shown))
    for library, definitions in DEFINITIONS.items():
        for measure, definition in definitions.items():
            if library in found:
                far = max(apart(definition, pairs[name], rows.get(measure)) for name, rows in found[library].items())
                results.append(Result(f"{library} {measure}: largest distance from the definition", far, "", GOAL))
    return tell("drift_tools", results, as_json=asked.json)


def data() -> Mapping[str, Pair]:
    """Name -> reference and current samples; whole numbers are classes."""
    rng = np.random.default_rng(3)

    def normal(old: int, new: int, by: float = 0.0) -> Pair:
        return rng.normal(size=old), rng.normal(by, size=new)

    half = normal(10_000, 1000, 0.5)
    classes = rng.integers(0, 10, 10_000)
    fresh = np.where(rng.random(1000) < 0.1, 10, rng.integers(0, 10, 1000))
    return {
        "no drift, 10000 and 100": normal(10_000, 100),
        "half a sigma, 10000 and 1000": half,
        "one sigma, 1000 and 100": normal(1000, 100, 1.0),
        "lognormal x 1.2": (rng.lognormal(size=10_000), 1.2 * rng.lognormal(size=1000)),
        "half a sigma and one value at 1000": (half[0], np.append(half[1], 1000.0)),
        "constant reference": (np.zeros(10_000), np.zeros(1000)),
        "a new class, 10 %": (classes, fresh),
    }


def ours(old: Values, new: Values) -> Mapping[str, float]:
    """As the manager computes it, from counts over the bins of a release."""
    classes = old.dtype.kind == "i"
    edges = tuple(np.arange(10) + 0.5) if classes else quantile_edges(old.tolist())
    counts, kind = tuple(count(edges, old.tolist())[0]), "category" if classes else "quantity"
    feature = FeatureBaseline(name="x", group="input", kind=kind, edges=edges, counts=counts)
    (known,) = drift.compare([drift.Pair(count(edges, new.tolist())[0], counts, drift.widths(feature))], SIGNIFICANCE)
    fields = ("psi", "psi_corrected", "kl", "jsd", "js_distance", "wasserstein", "ks", "p")
    return {field: float(getattr(known, field)) for field in fields}


def told(pairs: Mapping[str, Pair], *, install: bool) -> dict[str, Mapping[str, Mapping[str, float]]]:
    """Library and its version -> what it makes of each data set; without those that cannot be had."""
    found: dict[str, Mapping[str, Mapping[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="flotilla-tools-") as folder:
        for name, (old, new) in pairs.items():
            np.savez(Path(folder) / f"{name}.npz", old=old, new=new)
        for library in LIBRARIES:
            try:
                if not install and not (home() / f"drift-{library.name}" / "installed.json").is_file():
                    raise Missing("it is not installed, and --quick installs nothing")
                library.install()
                found[library.name] = library.measured(Path(folder))
                print(f"{library.name} {library.version()}", file=sys.stderr)
            except Missing as reason:
                print(f"skipped {library.name}: {reason}", file=sys.stderr)
    return found


def apart(definition: Callable[[Values, Values], float], pair: Pair, value: float | None) -> float:
    """Relative distance of a library's figure from what its definition says; 0 where both are not numbers."""
    if value is None:
        return 0.0
    said = float(definition(*pair))
    if not math.isfinite(said) or not math.isfinite(value):
        return 0.0 if str(said) == str(value) else math.inf
    return abs(said - value) / max(abs(said), 1e-6)


def sturges(old: Values, new: Values, *, filled: bool = True) -> Pair:
    """evidently: shares over equal-width bins of both samples, or one bin a value; zeros become small (not for JS)."""
    if old.dtype.kind != "i" and len(np.unique(old)) > 20:
        edges = np.histogram_bin_edges(np.concatenate([old, new]), bins="sturges")
        shares = [np.histogram(side, edges)[0] / len(side) for side in (old, new)]
    else:
        shares = [np.array([(side == it).mean() for it in np.union1d(old, new)]) for side in (old, new)]
    for side in shares if filled else ():
        least = side[side > 0].min()
        side[side == 0] = least / 1e6 if least <= 1e-4 else 1e-4
    return shares[0], shares[1]


def ten(old: Values, new: Values) -> Pair:
    """frouros, PSI: ten bins of equal width over both."""
    edges = np.histogram(np.concatenate([old, new]), bins=10)[1]
    q, p = (np.histogram(side, edges)[0] / len(side) for side in (old, new))
    tiny = np.finfo(float).tiny
    return np.where(q == 0, tiny, q), np.where(p == 0, tiny, p)


def doane(old: Values, new: Values) -> Pair:
    """nannyml: Doane's bins of the reference, and one for what lies outside of them."""
    if old.dtype.kind == "i":
        every = np.union1d(old, new)
        return tuple(np.array([(side == it).mean() for it in every]) for side in (old, new))  # type: ignore[return-value]
    edges = np.histogram_bin_edges(old, bins="doane")
    q, p = (np.histogram(side, edges)[0] / len(side) for side in (old, new))
    return np.append(q, 0.0), np.append(p, max(0.0, 1 - p.sum()))


def symmetric(q: Values, p: Values) -> float:
    return float(((p - q) * np.log(p / q)).sum())


def two_sample(old: Values, new: Values) -> float:
    table = [[(side == it).sum() for it in np.union1d(old, new)] for side in (old, new)]
    return float(stats.chi2_contingency(table).pvalue)


def one_sample(old: Values, new: Values) -> float:
    """evidently: the reference's shares count as known."""
    every = np.union1d(old, new)
    expected = np.array([(old == it).mean() for it in every]) * len(new)
    with np.errstate(divide="ignore"):
        chi2 = ((np.array([(new == it).sum() for it in every]) - expected) ** 2 / expected).sum()
    return float(special.chdtrc(len(every) - 1, chi2))


def floored(old: Values, new: Values) -> float:
    """deepchecks: shares of classes, none below 0.01."""
    q, p = (np.maximum([(side == it).mean() for it in np.union1d(old, new)], 0.01) for side in (old, new))
    return symmetric(q, p)


#: Library -> measure -> its definition, of reference and current samples.
DEFINITIONS: Final[Mapping[str, Mapping[str, Callable[[Values, Values], float]]]] = {
    "evidently": {
        "psi": lambda old, new: symmetric(*sturges(old, new)),
        "kl": lambda old, new: float(stats.entropy(*sturges(old, new))),
        "js": lambda old, new: float(distance.jensenshannon(*sturges(old, new, filled=False))),
        "w1": lambda old, new: float(stats.wasserstein_distance(old, new)) / max(float(old.std()), 0.001),
        "chi2_p": one_sample,
    },
    "frouros": {
        "psi": lambda old, new: symmetric(*ten(old, new)),
        "w1": lambda old, new: float(stats.wasserstein_distance(old, new)),
        "ks": lambda old, new: float(stats.ks_2samp(old, new).statistic),
        "chi2_p": two_sample,
    },
    "nannyml": {"js": lambda old, new: float(distance.jensenshannon(*doane(old, new), base=2))},
    "deepchecks": {"psi": floored},
    "alibi-detect": {  # keeps 32 bits
        "ks": lambda old, new: float(np.float32(stats.ks_2samp(old, new).statistic)),
        "chi2_p": lambda old, new: float(np.float32(two_sample(old, new))),
    },
}


if __name__ == "__main__":
    raise SystemExit(main())
