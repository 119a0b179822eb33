"""An interpreter whose onnxruntime has TensorRT and CUDA, as a Jetson's would: see `accelerated/`."""

import json
import shlex
import sys
from pathlib import Path

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_FOLDER = Path(__file__).resolve().parent / "accelerated"


def interpreter(folder: Path, **plan: object) -> str:
    """A Python for `serving.worker_python`. The same folder again: it behaves by the new plan from its next start."""
    path = folder / "python"
    lines = [
        "#!/bin/sh",
        f"export FLOTILLA_ACCELERATED={shlex.quote(json.dumps(plan))}",
        f"export PYTHONPATH={shlex.quote(str(_FOLDER))}",
        f'exec {shlex.quote(sys.executable)} "$@"',
    ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o700)
    return str(path)


def engines(state_dir: Path) -> dict[str, int]:
    """Engine -> when it was written (ns), below a device's state folder; unfinished ones, too."""
    found = state_dir.glob("engines/*/made/*.engine")
    return {str(path.relative_to(state_dir)): path.stat().st_mtime_ns for path in found}
