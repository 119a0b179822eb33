"""How long all statistics of a large fleet take, beside the drift libraries that people install.

python -m tests.bench.drift_speed [--quick] [--json]

Ours: counts of 100,000 devices x 20 features against the reference: every distance, components and tails, on one core.
Peers: their own functions on raw samples of one feature (1000 against 10,000), each in an environment of its own under
`~/.cache/flotilla-bench`. They start from raw samples and we from counts; raw samples never arrive at a manager.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fleet.telemetry import calibrated, drift
from fleet.telemetry.dispersion import Dispersion
from tests.bench.document import Result, arguments, tell
from tests.bench.drift_alarms import BINS, FEATURES, board_of
from tests.bench.peers import home

DEVICES: Final = 100_000
ROUND: Final = 1000  # devices at once: bounds the memory
GOAL_SECONDS: Final = 10.0
GOAL_MEGABYTES: Final = 2000.0
GOAL_RATIO: Final = 1000.0
_INSTALL_SECONDS: Final = 900.0
_RUN_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Library:
    """`code` sets up `old` and `new`, and ends with a function `one()` that compares them once."""

    name: str
    requirements: tuple[str, ...]
    code: str


LIBRARIES: Final = (
    Library(
        "evidently",
        ("evidently", "pandas<3"),
        "import pandas as pd\n"
        "from evidently.legacy.calculations.stattests import psi_stat_test as t\n"
        "from evidently.legacy.core import ColumnType\n"
        "a, b = pd.Series(old), pd.Series(new)\n"
        "def one(): return t.func(a, b, ColumnType.Numerical, 0.1)\n",
    ),
    Library(
        "nannyml",
        ("nannyml", "statsmodels"),
        "import pandas as pd\n"
        "from nannyml.drift.univariate.methods import ContinuousJensenShannonDistance\n"
        "from nannyml.thresholds import ConstantThreshold\n"
        "from nannyml.chunk import SizeBasedChunker\n"
        "a, b = pd.Series(old, name='x'), pd.Series(new, name='x')\n"
        "t = ConstantThreshold(upper=0.1)\n"
        "def one():\n"
        "    m = ContinuousJensenShannonDistance(chunker=SizeBasedChunker(1000), threshold=t)\n"
        "    m.fit(a); return m.calculate(b)\n",
    ),
    Library(
        "frouros",
        ("frouros",),
        "from frouros.detectors.data_drift import PSI\n"
        "d = PSI(num_bins=10)\n"
        "d.fit(X=old)\n"
        "def one(): return d.compare(X=new)\n",
    ),
)
_TIMED: Final = """
import json, time, warnings
import numpy as np
warnings.simplefilter('ignore')
rng = np.random.default_rng(1)
old, new = rng.normal(size=10000), rng.normal(size=1000)
{code}
one()
began, rounds = time.process_time(), 0
while time.process_time() - began < 2.0:
    one(); rounds += 1
print(json.dumps(rounds / (time.process_time() - began)))
"""


def main() -> int:
    asked = arguments(str(__doc__).splitlines()[0])
    devices = DEVICES // (20 if asked.quick else 1)
    seconds = ours(devices) * DEVICES / devices
    rate = DEVICES * FEATURES / seconds
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rates: dict[str, float] = {}
    for library in LIBRARIES:
        try:
            rates[library.name] = round(measured(library), 1)
        except Missing as reason:
            print(f"skipped {library.name}: {reason}", file=sys.stderr)
    results = [
        Result("all statistics of 100,000 devices x 20 features, CPU", seconds, "s", GOAL_SECONDS),
        Result("most memory of the process", megabytes, "MB", GOAL_MEGABYTES),
        Result("features a second, one core", rate, "/s", None),
    ]
    alike = psi_rate(devices)
    results.append(Result("PSI alone (as the peers: one distance), one core", alike, "/s", None, rates))
    if rates:
        share = GOAL_RATIO * max(rates.values()) / alike
        results.append(Result("a thousand times the fastest peer, as a share of it", share, "of 1", 1.0))
    return tell("drift_speed", results, as_json=asked.json)


def ours(devices: int) -> float:
    """CPU seconds for every distance, the components, the residual and the three tails of a detection window."""
    rng = np.random.default_rng(1)
    board = board_of(rng)
    layout = board.layout
    rows = min(ROUND, devices)
    vectors = np.zeros((rows, FEATURES, BINS + 1), dtype=np.int64)
    vectors[:, :, :BINS] = rng.poisson(1000 / BINS, (rows, FEATURES, BINS))
    vectors = vectors.reshape(rows, layout.size)
    reference = calibrated.Reference.of(layout.vector[None], layout)
    expected = np.broadcast_to(layout.bins.sums(layout.vector[None]), (rows, FEATURES, BINS)).reshape(-1, BINS)
    widths, numbers = np.tile(layout.widths, (rows, 1)), np.tile(layout.numbers, rows)
    spread = Dispersion.none(rows, FEATURES)
    began = time.process_time()
    for _ in range(devices // rows):
        counts = layout.bins.sums(vectors).reshape(-1, BINS)
        drift.statistics(counts, expected, widths, numbers, 5e-5)
        calibrated.window(vectors, reference, layout, spread, hours=24)
    return time.process_time() - began


def psi_rate(devices: int) -> float:
    """Features a second of PSI (and KL, which comes along), from counts as the manager has them."""
    rng = np.random.default_rng(2)
    counts = rng.poisson(1000 / BINS, (drift.BLOCK, BINS)).astype(np.float64)
    expected, bins = counts[::-1].copy(), np.full(drift.BLOCK, BINS)
    rounds = max(1, devices * FEATURES // drift.BLOCK)
    began = time.process_time()
    for _ in range(rounds):
        drift.stability(counts, expected, bins)
    return rounds * drift.BLOCK / (time.process_time() - began)


class Missing(Exception):  # noqa: N818 - reads as what it is
    """This library cannot be had here; the text says why."""


def measured(library: Library) -> float:
    """Comparisons a second.

    Raises:
        Missing: with the reason.
    """
    folder = home() / f"drift-{library.name}"
    python, done = folder / "env" / "bin" / "python", folder / "installed.json"
    if not done.is_file() or json.loads(done.read_text()) != list(library.requirements):
        folder.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder / "env")], _INSTALL_SECONDS)
        install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *library.requirements]
        _run(install, _INSTALL_SECONDS)
        done.write_text(json.dumps(library.requirements))
    told = _run([str(python), "-c", _TIMED.format(code=library.code)], _RUN_SECONDS, folder)
    return float(json.loads(told.splitlines()[-1]))


def _run(command: list[str], seconds: float, folder: Path | None = None) -> str:
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, cwd=folder, env={**os.environ, **single}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{error}") from None
    if done.returncode:
        raise Missing(done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else "no reason given")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
