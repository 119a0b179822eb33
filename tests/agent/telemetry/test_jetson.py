"""Boards of the Jetson family, from the files of their kernels."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.telemetry import host_mean, jetson
from agent.telemetry.host import measure
from shared.messages import MAX_PARTS, HostMetrics, TelemetryWindow
from tests.simulators.boards import ORIN, THOR, XAVIER, lay

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_an_orin_tells_everything(tmp_path: Path) -> None:
    found = measure(tmp_path, lay(tmp_path, ORIN))
    assert found.gpu_ratio == 0.437
    assert found.rails_watts == {"VDD_CPU_GPU_CV": 1.208, "VDD_IN": 6.048, "VDD_SOC": 1.449}
    assert found.power_watts == 6.048  # the others are parts of VDD_IN
    assert found.engines_mhz == {"NVDEC": 0, "NVENC": 0, "VIC": 115}
    assert found.temperatures_celsius == {"cpu": 49.2, "gpu": 48.1, "tj": 51.2}
    assert found.temperature_celsius == pytest.approx(51.218)
    assert found.fan_ratio == pytest.approx(84 / 255)
    assert (found.power_mode, found.throttled) == ("2", ("cpu-throttle-alert",))


def test_a_xavier_with_the_older_driver_of_its_power_sensors(tmp_path: Path) -> None:
    found = measure(tmp_path, lay(tmp_path, XAVIER))
    assert found.gpu_ratio == 0.12
    assert found.rails_watts == {
        "CPU": 0.612, "CV": 0.0, "GPU": 1.839, "SOC": 1.224, "SYS5V": 2.188, "VDDRQ": 0.153,
    }  # fmt: skip
    assert found.power_watts == pytest.approx(6.016)  # no rail is that of the board: the sum
    assert found.engines_mhz == {"NVENC": 0, "NVENC1": 653, "VIC": 115}
    assert found.temperatures_celsius == {
        "AO": 37.0, "AUX": 36.5, "CPU": 38.5, "GPU": 37.5, "Tboard_tegra": 37.0, "Tdiode_tegra": 38.2,
    }  # fmt: skip
    assert found.temperature_celsius == 38.5  # PMIC-Die says 100, always
    assert (found.fan_ratio, found.power_mode, found.throttled) == (1.0, "3", ())


def test_a_thor_has_a_sensor_of_its_own_for_the_whole_board(tmp_path: Path) -> None:
    found = measure(tmp_path, lay(tmp_path, THOR))
    assert found.rails_watts == {"VDD_CPU_SOC_MSS": 7.978, "VDD_GPU": 3.989, "VIN": 28.4, "VIN_SYS_5V0": 5.0}
    assert (found.power_watts, found.fan_ratio, found.power_mode) == (28.4, 0.0, "0")
    assert found.engines_mhz == {"VIC": 116}
    assert found.temperatures_celsius == {"cpu": 41.2, "soc012": 41.0, "soc345": 42.2, "tj": 42.2}


def test_another_machine_tells_what_psutil_can_read(tmp_path: Path) -> None:
    found = measure(tmp_path, tmp_path / "nothing")
    assert (found.rails_watts, found.engines_mhz, found.temperatures_celsius, found.throttled) == ({}, {}, {}, ())
    assert (found.power_watts, found.fan_ratio, found.power_mode, found.gpu_ratio) == (None, None, None, None)
    assert found.swap_used_bytes is not None
    assert len(found.cores_ratio) >= 1
    assert all(0 <= ratio <= 1 for ratio in found.cores_ratio)


@pytest.mark.parametrize("board", [ORIN, XAVIER, THOR], ids=["orin", "xavier", "thor"])
@pytest.mark.parametrize("text", ["", "nonsense", "-1"])
def test_files_that_say_nothing_sensible_harm_nothing(board: Mapping[str, str], text: str, tmp_path: Path) -> None:
    broken = {
        name: text if name.endswith(("_input", "cur_freq", "pwm1", "load", "temp")) else said
        for name, said in board.items()
    }
    found = measure(tmp_path, lay(tmp_path, broken))
    assert (found.rails_watts, found.temperatures_celsius) == ({}, {})


def test_a_machine_with_hundreds_of_sensors_tells_of_the_first(tmp_path: Path) -> None:
    many = {}
    for number in range(300):
        many[f"sys/class/thermal/thermal_zone{number}/type"] = (
            f"a sensor, with a very long name indeed, number {number}"
        )
        many[f"sys/class/thermal/thermal_zone{number}/temp"] = "40000"
        many[f"sys/class/thermal/cooling_device{number}/type"] = f"devfreq-{number}"
        many[f"sys/class/thermal/cooling_device{number}/cur_state"] = "1"
    lay(tmp_path, many)
    assert len(jetson.throttled(tmp_path)) == MAX_PARTS
    assert measure(tmp_path, tmp_path).temperatures_celsius.keys() == {"a-sensor-with-a-very-long-name-i"}


@pytest.mark.parametrize("board", [ORIN, XAVIER, THOR], ids=["orin", "xavier", "thor"])
def test_a_board_travels_in_a_hundred_bytes(board: Mapping[str, str], tmp_path: Path) -> None:
    def sent(metrics: HostMetrics) -> bytes:
        return TelemetryWindow(
            device="cam-1", stream="ab" * 8, sequence=1, at=NOW, boot="cd" * 8, model="m", version="1",
            manifest="e" * 64, phase="serving", start=NOW, end=NOW, requests=0, host=metrics,
        ).to_wire()  # fmt: skip

    found = measure(tmp_path, lay(tmp_path, board))
    assert sent(found).startswith(b"\x03")
    assert len(sent(found)) - len(sent(HostMetrics())) <= 110
    host = TelemetryWindow.parse(sent(found)).host
    assert host.rails_watts == pytest.approx(found.rails_watts, abs=0.006)
    assert host.engines_mhz == found.engines_mhz
    assert host.power_mode == found.power_mode


def test_a_window_tells_averages_of_load_and_the_highest_of_heat() -> None:
    looks = [
        HostMetrics(
            cpu_ratio=0.2, temperature_celsius=50, memory_used_bytes=5, cores_ratio=(0.2, 0.4), throttled=("a",)
        ),
        HostMetrics(
            cpu_ratio=0.4, temperature_celsius=70, memory_used_bytes=9, cores_ratio=(0.4, 0.0), rails_watts={"X": 3.0}
        ),
        HostMetrics(temperature_celsius=60, memory_used_bytes=7, rails_watts={"X": 1.0}, throttled=("b", "a")),
    ]
    found = host_mean.mean(looks)
    assert (found.cpu_ratio, found.temperature_celsius, found.memory_used_bytes) == (pytest.approx(0.3), 70, 9)
    assert (found.cores_ratio, found.rails_watts, found.throttled) == ((0.3, 0.2), {"X": 2.0}, ("a", "b"))
    assert found.gpu_ratio is None
    assert host_mean.mean([]) == HostMetrics()
