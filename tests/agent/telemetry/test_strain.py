"""Heat, throttling and short power, from the files of real machines."""

import os
from pathlib import Path

import pytest

from agent.telemetry import strain
from agent.telemetry.host import Machine
from agent.telemetry.strain import Zone
from tests.simulators.machine import OVER_CURRENT, WORKER, Orin


@pytest.fixture
def orin(tmp_path: Path) -> Orin:
    return Orin(tmp_path)


def test_a_calm_jetson_has_a_hottest_zone_and_no_brakes(orin: Orin, tmp_path: Path) -> None:
    found = Machine(tmp_path).strain()
    assert found.hottest == Zone("cpu-thermal", 48.031)
    assert found.brakes == ()
    assert found.power_mode == "2"
    assert found.cpu_ratio is None


def test_the_junction_is_told_when_it_is_hottest(orin: Orin, tmp_path: Path) -> None:
    orin.heat("tj-thermal", 91.5)
    assert Machine(tmp_path).strain().hottest == Zone("tj-thermal", 91.5)


@pytest.mark.parametrize("device", ["cpufreq-cpu0", "devfreq-17000000.gpu", "gpu-throttle-alert"])
def test_a_system_that_slows_itself_down_is_seen(orin: Orin, tmp_path: Path, device: str) -> None:
    orin.brake(device, 2)
    assert Machine(tmp_path).strain().brakes == (device,)


def test_over_current_counts_when_it_counts_on(orin: Orin, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.strain().brakes == ()
    orin.write(OVER_CURRENT, "13")
    assert machine.strain().brakes == (OVER_CURRENT,)
    assert machine.strain().brakes == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", ()),
        ("50005", ("under-voltage", "throttled")),
        ("0x50000", ()),  # it was, earlier
        ("busy", ()),
        ("", ()),
    ],
)
def test_the_firmware_of_a_raspberry_pi_tells_by_bits(tmp_path: Path, text: str, found: tuple[str, ...]) -> None:
    path = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert Machine(tmp_path).strain().brakes == found


def test_processors_are_busy_between_two_looks(orin: Orin, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.strain()
    orin.write("proc/stat", "cpu  160 0 130 1010 0 0 0 0 0 0")
    assert machine.strain().cpu_ratio == pytest.approx(0.9)
    assert machine.strain().cpu_ratio is None  # no time has passed


@pytest.mark.parametrize("line", ["", "cpu", "cpu a b c d e f g h", "cpu 1 2 3"])
def test_a_strange_line_of_processor_time_says_nothing(line: str) -> None:
    assert strain.busy(line, "cpu  100 0 100 1000 0 0 0 0") is None
    assert strain.busy("cpu  100 0 100 1000 0 0 0 0", line) is None


@pytest.mark.parametrize(("text", "mode"), [("pmode:0000 fmode:quiet", "0"), ("pmode:0008", "8"), ("", None)])
def test_the_power_mode_is_a_number(text: str, mode: str | None) -> None:
    assert strain.power_mode(text) == mode


def test_memory_is_that_of_the_machine_and_of_one_process(orin: Orin, tmp_path: Path) -> None:
    orin.memory(available_bytes=2**30, private_bytes=2**28)
    machine = Machine(tmp_path)
    assert machine.available_bytes() == 2**30
    assert machine.private_bytes(WORKER) == 2**28
    assert machine.private_bytes(1) is None


def test_a_machine_without_any_of_it_has_nothing_to_tell(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.strain() == strain.Strain()
    assert machine.available_bytes() is None


def test_this_machine_can_be_read() -> None:
    machine = Machine()
    machine.strain()
    assert (machine.available_bytes() or 0) > 0
    assert machine.private_bytes(os.getpid())
