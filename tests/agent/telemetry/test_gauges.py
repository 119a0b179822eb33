"""NVML and tegrastats: what they say, and that nothing they do costs a window."""

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry import tegrastats
from agent.telemetry.filling import filled, lacks
from agent.telemetry.gauges import Gauges
from agent.telemetry.nvml import Nvml
from agent.telemetry.tegrastats_child import PAUSE_SECONDS, SILENT, Child
from shared.messages import HostMetrics
from tests.simulators.boards import LINES, ORIN, THOR, lay


def test_an_agx_orin_by_its_line() -> None:
    found = tegrastats.parse(LINES["agx-orin"])
    assert (found.gpu_ratio, len(found.cores_ratio)) == (0.0, 12)
    assert found.memory_used_bytes == 4321 * 2**20
    assert found.swap_used_bytes == 19 * 2**20
    assert found.rails_watts == {
        "VDDQ_VDD2_1V8AO": 0.301, "VDD_CPU_CV": 0.39, "VDD_GPU_SOC": 2.34, "VIN_SYS_5V0": 4.025,
    }  # fmt: skip
    assert found.engines_mhz == {"APE": 174.0, "VIC": 729.0}
    assert found.temperature_celsius == 44.6
    assert "GPU" not in found.temperatures_celsius  # -256: switched off


def test_an_orin_nano_has_a_rail_for_the_whole_board() -> None:
    found = tegrastats.parse(LINES["orin-nano"])
    assert found.power_watts == 6.626
    assert found.temperatures_celsius["tj"] == 50.6


def test_a_xavier_writes_watts_without_a_unit_and_a_sensor_that_never_moves() -> None:
    found = tegrastats.parse(LINES["agx-xavier"])
    assert found.rails_watts == {"CPU": 0.618, "CV": 0.0, "GPU": 0.463, "SOC": 2.936, "SYS5V": 3.306, "VDDRQ": 0.309}
    assert (found.power_watts, found.temperature_celsius) == (7.632, 32.0)
    assert found.swap_used_bytes == 898 * 2**20


@pytest.mark.parametrize("board", ["thor", "thor-7.2"])
def test_a_thor_says_nothing_of_the_load_of_its_gpu(board: str) -> None:
    found = tegrastats.parse(LINES[board])
    assert found.gpu_ratio is None
    assert found.power_watts == {"thor": 19.78, "thor-7.2": 87.426}[board]
    assert len(found.cores_ratio) == 14
    assert set(found.temperatures_celsius) == {"cpu", "gpu", "soc012", "soc345", "tj"}


def test_engines_that_are_off_have_no_clock() -> None:
    engines = tegrastats.parse(LINES["thor"]).engines_mhz
    assert (engines["VIC"], engines["PVA0"], engines["OFA"], engines["NVENC1"]) == (0.0, 0.0, 315.0, 314.0)


@given(st.text(max_size=300))
def test_any_text_is_a_line_that_says_something_or_nothing(text: str) -> None:
    assert isinstance(tegrastats.parse(text), HostMetrics)


@given(st.sampled_from(sorted(LINES)), st.integers(0, 600))
def test_a_line_that_was_cut_off_says_what_is_left(board: str, length: int) -> None:
    found = tegrastats.parse(LINES[board][:length])
    assert all(watts >= 0 for watts in found.rails_watts.values())


def test_what_was_found_is_never_replaced() -> None:
    found = HostMetrics(gpu_ratio=0.4, rails_watts={"VDD_IN": 6.0})
    more = HostMetrics(gpu_ratio=0.9, rails_watts={"GPU": 1.0}, temperatures_celsius={"gpu": 40.0}, power_watts=7.0)
    assert filled(found, more) == HostMetrics(
        gpu_ratio=0.4, rails_watts={"VDD_IN": 6.0}, temperatures_celsius={"gpu": 40.0}, power_watts=7.0
    )
    assert lacks(found)
    assert not lacks(filled(found, more))


class Library:
    """Answers as NVML does; questions in `refused` raise, as on a board that does not support them."""

    def __init__(self, *refused: str) -> None:
        self._answers: dict[str, Callable[..., object]] = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByIndex": lambda index: f"gpu {index}",
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=37, memory=5),
            "nvmlDeviceGetTemperature": lambda _, _sensor: 61,
            "nvmlDeviceGetPowerUsage": lambda _: 25_300,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x04 | 0x20 | 0x01,
        }
        self.refused = set(refused)

    def __getattr__(self, question: str) -> Callable[..., object]:
        def answer(*arguments: object) -> object:
            if question in self.refused:
                raise RuntimeError("Not Supported")
            return self._answers[question](*arguments)

        return answer


def test_nvml_tells_load_heat_power_and_what_slows_the_gpu_down() -> None:
    assert Nvml(Library()).read() == HostMetrics(
        gpu_ratio=0.37,
        temperature_celsius=61.0,
        temperatures_celsius={"gpu": 61.0},
        rails_watts={"GPU": 25.3},
        throttled=("gpu-power-cap", "gpu-thermal"),
    )


def test_what_a_board_does_not_support_is_left_out() -> None:
    library = Library(
        "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksThrottleReasons"
    )
    assert Nvml(library).read() == HostMetrics(gpu_ratio=0.37)


@pytest.mark.parametrize("refused", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_without_a_gpu_nothing_is_said(refused: str) -> None:
    assert Nvml(Library(refused)).read() == HostMetrics()


def test_a_driver_that_goes_away_costs_only_its_figures() -> None:
    library = Library()
    found = Nvml(library)
    assert found.read().gpu_ratio == 0.37
    library.refused = set(library._answers)
    assert found.read() == HostMetrics()


class Moved:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


EVERY = timedelta(seconds=60)


@pytest.fixture
def clock() -> Moved:
    return Moved()


@pytest.fixture
def child(tmp_path: Path, clock: Moved) -> Iterator[Callable[[str], Child]]:
    """A child that runs this text of Python as its program."""
    made: list[Child] = []

    def make(text: str) -> Child:
        program = tmp_path / f"tegrastats{len(made)}"
        program.write_text(f"#!{sys.executable}\n" + textwrap.dedent(text))
        program.chmod(0o755)
        made.append(Child(EVERY, clock=clock, program=str(program)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def heard(child: Child) -> HostMetrics:
    """What it says once it has said something; a few seconds at most."""
    for _ in range(400):
        if (found := child.read()) != HostMetrics():
            return found
        time.sleep(0.02)
    return child.read()


TALKS = f"""
import sys, time
while True:
    print({LINES["orin-nano"]!r}, flush=True)
    time.sleep(0.02)
"""


def test_the_newest_line_of_the_child_is_what_it_says(child: Callable[[str], Child]) -> None:
    one = child(TALKS)
    assert heard(one).power_watts == 6.626
    process = one._process
    one.close()
    assert process.poll() is not None
    one.close()


def test_a_child_that_falls_silent_is_ended_and_tried_again_later(child: Callable[[str], Child], clock: Moved) -> None:
    one = child("import time\nprint('RAM 1/2MB', flush=True)\ntime.sleep(600)")
    assert heard(one).memory_total_bytes == 2 * 2**20
    process = one._process
    clock.at += SILENT * EVERY.total_seconds() + 1
    assert one.read() == HostMetrics()  # what is old is not told
    assert process.poll() is not None
    assert one._process is None
    clock.at += PAUSE_SECONDS
    assert heard(one).memory_total_bytes == 2 * 2**20


def test_a_child_that_dies_is_not_started_again_at_once(child: Callable[[str], Child]) -> None:
    one = child("raise SystemExit(3)")
    assert heard(one) == HostMetrics()
    assert one._process is None
    assert one.read() == HostMetrics()
    assert one._process is None


def test_a_child_that_floods_is_ended(child: Callable[[str], Child]) -> None:
    one = child("import sys\nwhile True: sys.stdout.write('x' * 65536)")
    one.read()
    for _ in range(400):
        if one._process is None:
            break
        one.read()
        time.sleep(0.01)
    assert one._process is None


def test_a_program_that_cannot_be_started_says_nothing(tmp_path: Path, clock: Moved) -> None:
    one = Child(EVERY, clock=clock, program=str(tmp_path / "missing"))
    assert one.read() == HostMetrics()


def test_tegrastats_runs_only_where_the_kernel_does_not_tell(
    child: Callable[[str], Child], clock: Moved, tmp_path: Path
) -> None:
    whole = child(TALKS)
    gauges = Gauges(
        EVERY, clock=clock, root=lay(tmp_path / "orin", ORIN), nvml=Nvml(Library("nvmlInit")), tegrastats=whole
    )
    assert gauges.measure(tmp_path).gpu_ratio == 0.437
    assert whole._process is None
    thor = lay(tmp_path / "thor", THOR)
    asked = child(TALKS)
    gauges = Gauges(EVERY, clock=clock, root=thor, nvml=Nvml(Library("nvmlInit")), tegrastats=asked)
    gauges.measure(tmp_path)
    assert asked._process is not None
    assert heard(asked).gpu_ratio == 0.0
    assert gauges.measure(tmp_path).gpu_ratio == 0.0
    gauges.close()
    assert (
        Gauges(EVERY, clock=clock, root=thor, nvml=Nvml(Library()), tegrastats=child(TALKS)).measure(tmp_path).gpu_ratio
        == 0.37
    )
