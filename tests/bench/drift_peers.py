"""The drift libraries that people install, each in an environment of its own below `~/.cache/flotilla-bench`.

    peer.install()                            Missing, with the reason, where it cannot be had
    peer.version()
    peer.measured(folder of .npz files)       data set -> name of a measure -> value
    peer.rates(old, new)                      measure, and `all` together -> comparisons of two samples a second

The code of a peer defines `NUMBERS` and `CLASSES`: name -> function of old and new samples, by the library's own
functions with its own defaults.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.peers import Missing, home

_INSTALL_SECONDS: Final = 1800.0
_RUN_SECONDS: Final = 240.0


@dataclass(frozen=True)
class Library:
    """One peer."""

    name: str
    package: str
    requirements: tuple[str, ...]
    code: str

    @property
    def _folder(self) -> Path:
        return home() / f"drift-{self.name}"

    def install(self) -> None:
        """Once; later calls only look.

        Raises:
            Missing: with the reason.
        """
        folder, done = self._folder, self._folder / "installed.json"
        if done.is_file() and json.loads(done.read_text()) == list(self.requirements):
            return
        folder.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(folder / "env")], _INSTALL_SECONDS)
        pip = [str(self._python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *self.requirements]
        _run(pip, _INSTALL_SECONDS)
        done.write_text(json.dumps(self.requirements))

    def version(self) -> str:
        """That is installed."""
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        return _run([str(self._python), "-c", code], _RUN_SECONDS).strip()

    def measured(self, folder: Path) -> dict[str, dict[str, float]]:
        """Every measure of every data set in `folder`; NaN and infinity as they are.

        Raises:
            Missing: it does not run.
        """
        found: dict[str, dict[str, float]] = self._told(_MEASURED, str(folder))
        return found

    def rates(self, sizes: tuple[int, int] = (10_000, 1000)) -> Mapping[str, float]:
        """Comparisons a second of each measure of numbers, and of all of them one after the other.

        Raises:
            Missing: it does not run.
        """
        found: dict[str, float] = self._told(_TIMED, *map(str, sizes))
        return found

    @property
    def _python(self) -> Path:
        return self._folder / "env" / "bin" / "python"

    def _told(self, script: str, *arguments: str) -> Any:
        command = [str(self._python), "-c", self.code + script, *arguments]
        return json.loads(_run(command, _RUN_SECONDS, self._folder).splitlines()[-1])


_COMMON: Final = """
import json, sys, time, warnings
import numpy as np
warnings.simplefilter('ignore')
np.seterr(all='ignore')
"""
_MEASURED: Final = """
from pathlib import Path
found = {}
for path in sorted(Path(sys.argv[1]).glob('*.npz')):
    data = np.load(path)
    old, new = data['old'], data['new']
    rows = found.setdefault(path.stem, {})
    for name, one in (CLASSES if old.dtype.kind == 'i' else NUMBERS).items():
        rows[name] = float(one(old, new))
print(json.dumps(found))
"""
_TIMED: Final = """
rng = np.random.default_rng(1)
old, new = rng.normal(size=int(sys.argv[1])), rng.normal(size=int(sys.argv[2]))
def rate(work):
    work()
    began, rounds = time.process_time(), 0
    while time.process_time() - began < 1.5:
        work(); rounds += 1
    return rounds / (time.process_time() - began)
def every():
    for one in NUMBERS.values(): one(old, new)
rates = {name: rate(lambda: one(old, new)) for name, one in NUMBERS.items()}
rates['all'] = rate(every)
print(json.dumps(rates))
"""

LIBRARIES: Final = (
    Library(
        "evidently",
        "evidently",
        ("evidently", "pandas<3"),
        _COMMON
        + """
import pandas as pd
from evidently.legacy.calculations import stattests as s
from evidently.legacy.core import ColumnType
def by(test, kind):
    return lambda old, new: test.func(pd.Series(old), pd.Series(new), kind, 0.1)[0]
def numbers(test): return by(test, ColumnType.Numerical)
NUMBERS = {'psi': numbers(s.psi_stat_test), 'kl': numbers(s.kl_div_stat_test), 'js': numbers(s.jensenshannon_stat_test),
           'w1': numbers(s.wasserstein_stat_test), 'ks_p': numbers(s.ks_stat_test)}
def classes(test): return by(test, ColumnType.Categorical)
CLASSES = {'psi': classes(s.psi_stat_test), 'js': classes(s.jensenshannon_stat_test),
           'chi2_p': classes(s.chi_stat_test)}
""",
    ),
    Library(
        "frouros",
        "frouros",
        ("frouros",),
        _COMMON
        + """
from frouros.detectors import data_drift as d
def distance(kind, **more):
    def one(old, new):
        found = kind(**more); found.fit(X=old)
        return found.compare(X=new)[0].distance
    return one
def test(kind, field):
    def one(old, new):
        found = kind(); found.fit(X=old)
        return getattr(found.compare(X=new)[0], field)
    return one
NUMBERS = {'psi': distance(d.PSI), 'kl': distance(d.KL), 'js': distance(d.JS), 'w1': distance(d.EMD),
           'ks': test(d.KSTest, 'statistic')}
CLASSES = {'chi2_p': test(d.ChiSquareTest, 'p_value')}
""",
    ),
    Library(
        "nannyml",
        "nannyml",
        ("nannyml", "statsmodels"),
        _COMMON
        + """
import pandas as pd
from nannyml.chunk import SizeBasedChunker
from nannyml.drift.univariate import methods as m
from nannyml.thresholds import ConstantThreshold
def by(kind):
    def one(old, new):
        found = kind(chunker=SizeBasedChunker(1000), threshold=ConstantThreshold(upper=0.1))
        found.fit(pd.Series(old, name='x'))
        return found.calculate(pd.Series(new, name='x'))
    return one
NUMBERS = {'js': by(m.ContinuousJensenShannonDistance), 'w1': by(m.WassersteinDistance),
           'ks': by(m.KolmogorovSmirnovStatistic)}
CLASSES = {'js': by(m.CategoricalJensenShannonDistance)}
""",
    ),
    Library(
        "deepchecks",
        "deepchecks",
        ("deepchecks", "scikit-learn<1.6", "category-encoders<2.7", "numpy<2"),
        _COMMON
        + """
import pandas as pd
from deepchecks.utils.distribution import drift as d
def by(kind, method):
    def one(old, new):
        return d.calc_drift_and_plot(pd.Series(old), pd.Series(new), 'x', kind, with_display=False,
            numerical_drift_method=method, categorical_drift_method=method, balance_classes=False)[0]
    return one
NUMBERS = {'w1': by('numerical', 'EMD'), 'ks': by('numerical', 'KS')}
CLASSES = {'psi': by('categorical', 'PSI'), 'cramers_v': by('categorical', 'cramers_v')}
""",
    ),
    Library(
        "alibi-detect",
        "alibi-detect",
        ("alibi-detect",),
        _COMMON
        + """
from alibi_detect.cd import ChiSquareDrift, KSDrift
def by(kind, field):
    def one(old, new):
        return kind(old.reshape(-1, 1), p_val=0.05).predict(new.reshape(-1, 1))['data'][field][0]
    return one
NUMBERS = {'ks': by(KSDrift, 'distance')}  # its p comes along
CLASSES = {'chi2_p': by(ChiSquareDrift, 'p_val')}
""",
    ),
    Library(
        "whylogs",
        "whylogs",
        ("whylogs", "scipy", "pandas", "ipython"),
        _COMMON
        + """
import pandas as pd
import whylogs as why
from whylogs.viz.utils import drift_calculations as d
def by(kind):
    def one(old, new):
        a, b = (why.log(pd.DataFrame({'x': values})).view().get_column('x') for values in (old, new))
        return getattr(d, kind)(b, a)['p_value']
    return one
NUMBERS = {'ks_p': by('_get_ks_p_value')}
CLASSES = {}
""",
    ),
)


def _run(command: list[str], seconds: float, folder: Path | None = None) -> str:
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "WHYLOGS_NO_ANALYTICS": "True"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, cwd=folder, env={**os.environ, **single}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{error}") from None
    if done.returncode:
        raise Missing(done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else "no reason given")
    return done.stdout
