"""Which runtime this interpreter has: its providers, and all that compiled engines depend on.

    python -m agent.serving.worker_facts     {"providers": [...], "runtime": [...]} on stdout

Only names and small files are read: a library of the GPU that is loaded here would be inherited by every fork.
Python 3.10 syntax: runs under the interpreter that has onnxruntime.

I/O: disk.
"""

import glob
import json
import os
import sys
from collections.abc import Iterator

import onnxruntime as ort

_FOLDERS = ("usr/lib/*-linux-gnu*", "usr/lib64", "usr/lib", "usr/local/lib", "usr/local/cuda*/lib64")
_LIBRARIES = ("libnvinfer.so.*", "libcudart.so.*", "libcudnn.so.*")
#: The driver, the release of a Jetson's system, the board, GPUs on PCI Express.
_FILES = (
    "proc/driver/nvidia/version",
    "etc/nv_tegra_release",
    "proc/device-tree/model",
    "proc/driver/nvidia/gpus/*/information",
)
_LINES = ("Model", "NVRM", "NVIDIA", "Raspberry")  # of those files: the rest are serial numbers and counters
_PACKAGES = ("onnxruntime", "tensorrt", "nvidia_cu")  # as folders of site-packages begin


def found() -> "dict[str, list[str]]":
    """Providers that are installed, and the parts that they are made of."""
    return {"providers": list(ort.get_available_providers()), "runtime": parts()}


def parts(root: str = "/") -> "list[str]":
    """One text for each part, the same ones at each call until a part is replaced."""
    return sorted({f"onnxruntime {ort.__version__}", *_packages(), *_libraries(root), *_lines(root)})


def _packages() -> Iterator[str]:
    for folder in sys.path:
        for path in glob.glob(os.path.join(folder, "*.dist-info")):
            name, _, version = os.path.basename(path)[: -len(".dist-info")].partition("-")
            if name.lower().startswith(_PACKAGES):
                yield f"{name} {version}"


def _libraries(root: str) -> Iterator[str]:
    folders = [os.path.join(root, folder) for folder in _FOLDERS]
    folders += [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    for folder in folders:
        for name in _LIBRARIES:
            for path in glob.glob(os.path.join(folder, name)):
                yield os.path.basename(os.path.realpath(path))  # libnvinfer.so.10.3.0


def _lines(root: str) -> Iterator[str]:
    for pattern in _FILES:
        for path in glob.glob(os.path.join(root, pattern)):
            try:
                with open(path, errors="replace") as file:
                    text = file.read(4096)
            except OSError:
                continue
            for line in text.replace("\0", "\n").splitlines():
                if line.lstrip("# ").startswith(_LINES) or path.endswith("nv_tegra_release"):
                    yield " ".join(line.split())


def main() -> None:
    json.dump(found(), sys.stdout)


if __name__ == "__main__":
    main()
