import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rollouts import waves
from fleet.rollouts.errors import WavesError

DEVICES = {f"cam-{number}": ("nano", "orin")[number % 2] for number in range(48)}


@pytest.mark.parametrize(
    ("spec", "devices", "sizes"),
    [
        (["5%", "25%", "50%", "100%"], 48, [3, 9, 12, 24]),
        (["1", "100%"], 3, [1, 2]),
        (["1", "25%", "100%"], 3, [1, 2]),  # 25 % of 3 is the one that is reached already
        (["100%"], 7, [7]),
        (["1", "10", "100%"], 4, [1, 3]),
        (["0.5%", "100 %"], 1000, [5, 995]),
        (["2", "7"], 7, [2, 5]),
    ],
)
def test_targets_are_cumulative_and_rounded_up(spec: list[str], devices: int, sizes: list[int]) -> None:
    assert [wave.size for wave in waves.canary(spec, devices)] == sizes


@pytest.mark.parametrize(
    "spec", [[], ["50%"], ["x", "100%"], ["0", "100%"], ["120%"], ["50%", "10%", "100%"], ["1.5", "100%"], ["-1"]]
)
def test_waves_that_lead_nowhere_are_refused(spec: list[str]) -> None:
    with pytest.raises(WavesError):
        waves.canary(spec, 10)


def test_names_and_words_are_those_of_the_pages() -> None:
    found = waves.canary(["5%", "25%", "50%", "100%"], 48)
    assert [wave.name for wave in found] == ["Canary", "Early", "Half", "Fleet"]
    assert [wave.target for wave in found] == ["5 %", "25 %", "50 %", "100 %"]
    assert [(w.name, w.target) for w in waves.canary(["1", "100%"], 3)] == [("Canary", "1 device"), ("Fleet", "100 %")]


def test_batches_hold_everybody_once() -> None:
    assert [wave.size for wave in waves.rolling(3, 8)] == [3, 3, 2]
    with pytest.raises(WavesError):
        waves.rolling(0, 8)


def test_the_order_is_stable_and_differs_between_rollouts() -> None:
    order = waves.order("ro-1", DEVICES)
    assert order == waves.order("ro-1", dict(reversed(DEVICES.items())))
    assert sorted(order) == sorted(DEVICES)
    assert order != waves.order("ro-2", DEVICES)


def test_every_prefix_holds_its_share_of_every_hardware_class() -> None:
    order = waves.order("ro-1", DEVICES)
    for length in range(1, len(order) + 1):
        nano = sum(DEVICES[device] == "nano" for device in order[:length])
        assert abs(nano - length / 2) <= 1


def test_a_device_that_leaves_moves_nobody_of_its_peers_far() -> None:
    order = waves.order("ro-1", DEVICES)
    fewer = waves.order("ro-1", {device: kind for device, kind in DEVICES.items() if device != order[-1]})
    assert set(order[:10]) == set(fewer[:10])


@given(st.integers(1, 200), st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_whatever_the_shares_each_device_is_in_exactly_one_wave(devices: int, shares: list[int]) -> None:
    spec = [f"{share}%" for share in sorted(shares)] + ["100%"]
    found = waves.canary(spec, devices)
    names = [f"d{number}" for number in range(devices)]
    of = waves.assign(names, found)
    assert sum(wave.size for wave in found) == devices
    assert list(of) == names
    assert list(of.values()) == sorted(of.values())
    assert all(wave.size > 0 for wave in found)
