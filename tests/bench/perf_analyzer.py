"""NVIDIA's load client, from the wheel of tritonclient 2.47 (newer ones are for newer systems than ours).

client = perf_analyzer.Client(folder)
client.install()                        Missing, with the reason, where it cannot be had
client.median("digits", address, protocol="grpc", shared_memory=True)       microseconds
"""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal

from tests.bench.peers import Missing

_REQUIREMENTS: Final = ("tritonclient==2.47.0", "nvidia-cuda-runtime-cu12==12.9.79")
_DEBIAN: Final = "libb64-0d"
_INSTALL_SECONDS: Final = 600.0
_RUN_SECONDS: Final = 120.0


class Client:
    """The program, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "perf_analyzer"

    def install(self) -> None:
        """Once; later calls only look.

        Raises:
            Missing: with the reason.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._program.is_file():
            self._run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target",
                       str(self._folder / "packages"), *_REQUIREMENTS])  # fmt: skip
        if not list(self._folder.glob("debian/**/libb64.so.0d")):
            self._run(["apt-get", "download", "-qq", _DEBIAN])
            package = next(self._folder.glob(f"{_DEBIAN}_*.deb"))
            self._run(["dpkg-deb", "-x", str(package), str(self._folder / "debian")])
        self._program.chmod(0o755)
        absent = [
            line.split()[0] for line in self._run(["ldd", str(self._program)]).splitlines() if "not found" in line
        ]
        if absent:
            raise Missing(f"perf_analyzer needs {', '.join(absent)}")

    def median(
        self, model: str, address: str, *, protocol: Literal["http", "grpc"], shared_memory: bool, shape: str
    ) -> float:
        """Median latency in microseconds of one request after the other; `shape` is `input:1,2,3`.

        Raises:
            RuntimeError: it could not drive the server; with its words.
        """
        with tempfile.NamedTemporaryFile(suffix=".csv") as table:
            command = [
                str(self._program), "-m", model, "-u", address, "-i", protocol, "--shape", shape, "-f", table.name,
                "--verbose-csv", "--concurrency-range", "1", "-p", "1000", "-s", "50", "--percentile", "50",
                *(["--shared-memory", "system", "--output-shared-memory-size", "4096"] if shared_memory else []),
            ]  # fmt: skip
            done = subprocess.run(
                command, env=self._environment, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
            )
            rows = list(csv.DictReader(Path(table.name).read_text().splitlines()))
        if not rows or float(rows[0]["Inferences/Second"]) <= 0:
            raise RuntimeError(f"perf_analyzer ({protocol}): {(done.stderr or done.stdout).strip()[-400:]}")
        return float(rows[0]["p50 latency"])

    @property
    def _program(self) -> Path:
        return self._folder / "packages" / "bin" / "perf_analyzer"

    @property
    def _environment(self) -> dict[str, str]:
        places = {
            path.parent for name in ("libb64.so.0d", "libcudart.so.12") for path in self._folder.glob(f"**/{name}")
        }
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, sorted(places)))}

    def _run(self, command: list[str]) -> str:
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=self._environment, capture_output=True, text=True,
                timeout=_INSTALL_SECONDS,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"perf_analyzer cannot be installed: {error}") from None
        if done.returncode:
            raise Missing(f"perf_analyzer cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        return done.stdout
