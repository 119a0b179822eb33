from pathlib import Path

import pytest

from agent.telemetry.host import hardware_class, measure


def sensor(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert found.cpu_ratio is not None
    assert 0 <= found.cpu_ratio <= 1
    assert found.memory_used_bytes is not None
    assert found.memory_total_bytes is not None
    assert 0 < found.memory_used_bytes <= found.memory_total_bytes
    assert found.disk_free_bytes is not None


@pytest.mark.parametrize(
    "path", ["sys/devices/gpu.0/load", "sys/devices/platform/17000000.gpu/load", "sys/class/devfreq/1.gpu/device/load"]
)
def test_the_gpu_of_a_jetson_is_read_in_thousandths(path: str, tmp_path: Path) -> None:
    sensor(tmp_path, path, "437\n")
    assert measure(tmp_path, tmp_path).gpu_ratio == 0.437


def test_the_hottest_sane_zone_counts(tmp_path: Path) -> None:
    for number, text in enumerate(["45500", "61250\n", "-256000", "nonsense", "999999"]):
        sensor(tmp_path, f"sys/class/thermal/thermal_zone{number}/temp", text)
    assert measure(tmp_path, tmp_path).temperature_celsius == 61.25


@pytest.mark.parametrize("text", ["", "busy", "-1", "1001"])
def test_what_cannot_be_read_is_left_out(text: str, tmp_path: Path) -> None:
    sensor(tmp_path, "sys/devices/gpu.0/load", text)
    found = measure(tmp_path / "no such folder", tmp_path)
    assert (found.gpu_ratio, found.temperature_celsius, found.disk_free_bytes) == (None, None, None)


@pytest.mark.parametrize(
    ("board", "start"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit\0", "orin-nano-"),
        ("NVIDIA Jetson AGX Orin", "agx-orin-"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "thor-"),
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5-"),
    ],
)
def test_boards_are_known_by_their_device_tree(board: str, start: str, tmp_path: Path) -> None:
    sensor(tmp_path, "proc/device-tree/model", board)
    found = hardware_class(tmp_path)
    assert found.startswith(start)
    assert found.endswith("g")


def test_other_machines_are_their_architecture(tmp_path: Path) -> None:
    sensor(tmp_path, "proc/device-tree/model", "Some other board")
    assert hardware_class(tmp_path) in {"x86_64", "aarch64", "arm64"}
