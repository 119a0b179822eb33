"""Layout, dispersion and the calibrated p on counts whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fleet.telemetry import calibrated
from fleet.telemetry.baselines import Reference
from fleet.telemetry.calibrated import TESTS, WINDOWS, Judgement
from fleet.telemetry.dispersion import Dispersion, learn
from fleet.telemetry.layout import Layout
from fleet.telemetry.rings import HOURS, Ring
from shared.messages import FeatureCounts

SHARES = np.array([0.001, *np.full(16, 0.998 / 16), 0.001])
M = 7000


DIGEST = "d" * 16


def reference(counts: tuple[int, ...], kind: str = "quantity", missing: int = 0) -> Reference:
    edges = tuple(float(place) for place in range(len(counts) - 1))
    return Reference("input", kind, DIGEST, edges, counts, (1.0,) * len(counts), missing)


QUANTITY = reference(tuple(int(share * M) for share in SHARES))
LAYOUT = Layout.of({"f": QUANTITY})


def judge(
    counts: NDArray[np.int64], missing: int = 0, spread: Dispersion | None = None, samples: int = 20
) -> Judgement:
    vector = np.concatenate([counts, np.full((len(counts), 1), missing)], axis=1)
    windows = np.repeat(vector[:, None], len(WINDOWS), axis=1)
    return calibrated.judge(
        windows,
        LAYOUT.vector[None],
        LAYOUT,
        spread or Dispersion.none(len(counts), 1),
        usable=np.ones((len(counts), len(WINDOWS), 1), dtype=np.bool_),
        min_samples=samples,
    )


def test_a_layout_joins_thin_bins_and_knows_the_tails() -> None:
    layout = Layout.of(
        {"q": QUANTITY, "c": reference((50, 0, 30, 1, 19), "category", missing=3), "flat": reference((0, 9))}
    )
    assert layout.size == 18 + 1 + 5 + 1 + 2 + 1
    vector = np.arange(layout.size, dtype=np.int64)[None]
    assert layout.bins.sums(vector)[0, 1].tolist()[:5] == [19, 20, 21, 22, 23]
    assert layout.cells.sums(layout.vector[None])[0, 0].sum() == sum(QUANTITY.counts)
    cells = layout.cells.sums(vector)[0]
    assert cells[0].tolist() == [0 + 1, *range(2, 16), 16 + 17]
    assert sorted(cells[1].tolist())[-4:] == [19, 21, 23, 20 + 22]  # rare classes are one
    assert cells[2].tolist()[:2] == [25 + 26, 0]
    assert layout.tails.sums(vector)[0].tolist() == [[0, 17, 18], [0, 20, 24], [25, 26, 27]]
    assert layout.tails.sums(layout.vector[None])[0, 1].tolist() == [0, 0, 3]


def test_a_layout_refuses_other_bins_and_takes_the_rest() -> None:
    good = FeatureCounts(edges=DIGEST, counts=(1,) * 18, missing=2)
    found, refused = LAYOUT.flat({"f": good, "g": good})
    assert (found.tolist(), refused) == ([*(1,) * 18, 2], 1)
    assert LAYOUT.flat({"f": FeatureCounts(edges=DIGEST, counts=(1,) * 17)})[1] == 1
    assert LAYOUT.flat({"f": FeatureCounts(edges="e" * 16, counts=(1,) * 18)})[1] == 1
    for absurd in (FeatureCounts(edges=DIGEST, counts=(2**70,) * 18), good.model_copy(update={"missing": 2**70})):
        assert LAYOUT.flat({"f": absurd})[1] == 1


@pytest.mark.parametrize("samples", [40, 170, 1000])
def test_without_drift_p_is_not_smaller_than_it_says(samples: int) -> None:
    rng = np.random.default_rng(samples)
    found = judge(rng.multinomial(samples, SHARES, 20000))
    assert (found.p <= 0.01).mean() <= 0.01
    assert (found.p <= 1e-4).sum() <= 6


def test_each_kind_of_change_is_found_by_its_own_test() -> None:
    base = np.round(SHARES * 1000).astype(np.int64)
    place = np.arange(18)
    moved = np.round(base * (1 + 0.6 * (place - 8.5) / 8.5)).astype(np.int64)
    stuck = base.copy()
    stuck[5] += 400
    low, high = base.copy(), base.copy()
    low[0], high[17] = 30, 30
    found = judge(np.stack([base, moved, stuck, low, high]))
    assert [TESTS[test] for test in found.test[1:, 0]] == ["moved", "shape", "low", "high"]
    assert (found.p[0, 0], bool((found.p[1:] < 1e-6).all())) == (1.0, True)
    assert found.shift[1, 0] > 0.3
    assert found.excess[3, 0] == pytest.approx(0.027, abs=0.003)
    lost = judge(base[None], missing=40)
    assert (TESTS[lost.test[0, 0]], lost.p[0, 0] < 1e-6) == ("missing", True)


def test_windows_with_too_few_samples_are_not_judged() -> None:
    counts = np.zeros((1, 18), dtype=np.int64)
    counts[0, 16] = 99
    assert judge(counts, samples=100).p[0, 0] == 1.0
    assert judge(counts, samples=99).p[0, 0] < 1e-6


def test_dispersion_of_ordinary_days_is_learned_and_taken_out() -> None:
    rng = np.random.default_rng(5)
    centres = rng.normal(0, 0.15, (60, 7))

    def day(centre: float) -> NDArray[np.int64]:
        place = np.linspace(-2, 2, 18)
        shares = SHARES * np.exp(centre * place)
        return np.append(rng.multinomial(1000, shares / shares.sum()), 0)

    days = np.array([[day(centre) for centre in row] for row in centres])
    believed = np.ones((60, 1), dtype=np.bool_)
    devices = np.ones(60, dtype=np.bool_)
    spread = learn(days, LAYOUT, believed=believed, devices=devices)
    assert (spread.first > 10).all()
    assert (spread.second < 3).all()
    fresh = np.array([day(centre)[:18] for centre in rng.normal(0, 0.15, 60)])
    assert (judge(fresh, spread=spread).p > 1e-3).all()
    assert (judge(fresh).p < 1e-6).any()
    still = learn(rng.multinomial(1000, SHARES, (60, 7)).astype(np.int64) @ np.eye(18, 19, dtype=np.int64), LAYOUT,
                  believed=believed, devices=devices)  # fmt: skip
    assert still.first.mean() < 1.15
    assert still.mean(LAYOUT.numbers).mean() < 1.15


def test_days_that_drifted_and_single_days_teach_nothing() -> None:
    rng = np.random.default_rng(6)
    days = rng.multinomial(1000, SHARES, (1, 7)).astype(np.int64) @ np.eye(18, 19, dtype=np.int64)
    days[0, 3] = np.roll(days[0, 3], 5)
    devices = np.ones(1, dtype=np.bool_)
    wild = learn(days, LAYOUT, believed=np.ones((1, 1), dtype=np.bool_), devices=devices)
    calm = learn(days, LAYOUT, believed=np.zeros((1, 1), dtype=np.bool_), devices=devices)
    assert wild.first[0, 0] > 3
    assert (calm.first[0, 0], calm.residual[0, 0], calm.tails.max()) == (1, 1, 1)
    days[:, 2:] = 0
    assert learn(days, LAYOUT, believed=np.ones((1, 1), dtype=np.bool_), devices=devices).first[0, 0] == 1


def test_clusters_in_a_tail_are_no_alarm_when_ordinary_days_have_them() -> None:
    counts = np.round(SHARES * 168).astype(np.int64)[None].copy()
    counts[0, 17] = 12
    none = Dispersion.none(1, 1)
    clustered = Dispersion(none.first, none.second, none.residual, none.freedom, none.tails * 9)
    assert judge(counts).p[0, 0] < 1e-6
    assert judge(counts, spread=clustered).p[0, 0] > 0.01


def test_a_ring_sums_windows_in_any_order_and_forgets() -> None:
    ring = Ring(1, np.uint32)
    ring.advance(1000)
    for hour in (1000, 990, 999, 1000 - HOURS + 1, 1000 - HOURS, 1001):
        ring.add("a", hour, np.array([1]))
    assert ring.windows(["a"])[0, :, 0].tolist() == [1, 2, 2, 2, 3, 3, 3, 3]
    assert ring.recent(["a"], 168)[0, 0] == 4  # neither the future nor what is older than the ring
    ring.advance(1002)
    assert ring.windows(["a"])[0, :, 0].tolist() == [0, 0, 2, 2, 3, 3, 3, 3]
    assert ring.recent(["a"], 168)[0, 0] == 3
    ring.advance(900)  # a clock that went back moves nothing
    assert ring.recent(["a"], 168)[0, 0] == 3
    for number in range(100):
        ring.add(f"b{number}", 1002, np.array([number]))
    assert ring.recent([f"b{number}" for number in range(100)], 1)[:, 0].tolist() == list(range(100))
    ring.forget("b7")
    ring.add("c", 1002, np.array([5]))
    assert ring.recent(["c", "a"], 168)[:, 0].tolist() == [5, 3]
    ring.advance(5000)
    assert ring.recent(["a", "c"], 168).sum() == 0


def test_classes_have_no_order_and_one_that_grows_is_found_wherever_it_stands() -> None:
    """The same change of shares in every order of the classes gives the same p, and one below that of the residual."""
    expected, counts = [100] * 10, [80] * 9 + [280]
    found = []
    for place in range(10):
        rolled = np.roll(counts, place)
        layout = Layout.of({"c": reference(tuple(expected), "category")})
        vector = np.append(rolled, 0)[None]
        none = Dispersion.none(1, 1)
        against = calibrated.Reference.of(layout.vector[None], layout)
        one = calibrated.window(vector, against, layout, none, hours=24)
        found.append(float(one.p[0, 0]))
    chi2 = stats.chi2_contingency([expected, counts], correction=False)
    assert max(found) == pytest.approx(chi2.pvalue, rel=1e-6)
