"""What engines depend on, read from the files of a Jetson and of a machine with a GPU on PCI Express."""

from pathlib import Path

from agent.serving import worker_facts

ORIN = {  # JetPack 6
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
    "usr/local/cuda-12.6/lib64/libcudart.so.12.6.68": "",
}
DESKTOP = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14\nGCC version:  gcc 12\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA RTX A2000\nIRQ: \t 136\nGPU UUID: G\n",
}


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_a_jetson_is_its_board_system_and_compiler(tmp_path: Path) -> None:
    root = tree(tmp_path, ORIN)
    (tmp_path / "usr/lib/aarch64-linux-gnu/libnvinfer.so.10").symlink_to("libnvinfer.so.10.3.0")
    found = worker_facts.parts(root)
    assert "NVIDIA Jetson Orin Nano Developer Kit" in found
    assert "libnvinfer.so.10.3.0" in found
    assert "libcudart.so.12.6.68" in found
    assert any(line.startswith("# R36 (release), REVISION: 4.3") for line in found)
    assert found == worker_facts.parts(root)


def test_a_gpu_is_its_model_and_driver_not_its_interrupts(tmp_path: Path) -> None:
    found = worker_facts.parts(tree(tmp_path, DESKTOP))
    assert "Model: NVIDIA RTX A2000" in found
    assert "NVRM version: NVIDIA UNIX x86_64 Kernel Module 550.54.14" in found
    assert not any(word in line for line in found for word in ("IRQ", "UUID", "GCC"))


def test_another_driver_is_another_runtime(tmp_path: Path) -> None:
    before = worker_facts.parts(tree(tmp_path, DESKTOP))
    changed = {name: text.replace("550.54.14", "560.35.03") for name, text in DESKTOP.items()}
    assert worker_facts.parts(tree(tmp_path, changed)) != before


def test_this_interpreters_runtime_is_named() -> None:
    found = worker_facts.found()
    assert "CPUExecutionProvider" in found["providers"]
    assert any(line.startswith("onnxruntime ") for line in found["runtime"])
