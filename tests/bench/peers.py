"""Other servers of the Open Inference Protocol, each installed into an environment of its own.

    for kind in peers.ALL:
        peer = kind(folder)
        peer.install()                  Missing, with the reason, where it cannot be had
        with peer.serving([file]):      the files are models of tests.bench.models
            peer.http, peer.grpc        addresses for tests.bench.load and for gRPC clients
            peer.load(file)             swap to this version, where `swaps` says how

Every one of them runs the model with onnxruntime on one thread without spinning, as our worker does.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from agent.serving.supervisor import ModelFile
from tests.agent.serving.kit import children_of

_CODE: Final = Path(__file__).parent / "peer_code"
_START_SECONDS: Final = 120.0
_INSTALL_SECONDS: Final = 900.0
_END_SECONDS: Final = 10.0
_LOAD_SECONDS: Final = 120.0


class Missing(Exception):  # noqa: N818 - reads as what it is
    """This peer cannot be had here; the text says why."""


def home() -> Path:
    """Where peers are kept between runs."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "flotilla-bench"


class Peer(ABC):
    """One server, not running unless in `serving`."""

    name: ClassVar[str]
    requirements: ClassVar[tuple[str, ...]]
    binary: ClassVar[bool] = True  # binary tensors over HTTP
    system_shared_memory: ClassVar[bool] = False
    swaps: ClassVar[bool] = False  # `load` replaces a version that serves

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name.lower()
        self._ports = _free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self._ports[1]}"

    @property
    def pids(self) -> Sequence[int]:
        """All its processes."""
        return [] if self._process is None else [self._process.pid, *children_of(self._process.pid)]

    @property
    def python(self) -> Path:
        return self.folder / "env" / "bin" / "python"

    @property
    def packages(self) -> Path:
        return (
            self.folder / "env" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        )

    def install(self) -> None:
        """Once; later calls only look.

        Raises:
            Missing: with the reason.
        """
        done = self.folder / "installed.json"
        if not done.is_file() or json.loads(done.read_text()) != list(self.requirements):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._run([sys.executable, "-m", "venv", str(self.folder / "env")])
            self._run([str(self.python), "-m", "pip", "install", "--quiet", *self.requirements])
            done.write_text(json.dumps(self.requirements))
        self._check()

    def _check(self) -> None:  # noqa: B027 - most need nothing else
        """Raises Missing when something of the system is wanted."""

    def _run(self, command: Sequence[str]) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"{self.name} cannot be installed: {error}") from None
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
            raise Missing(f"{self.name} cannot be installed: {lines[-1]}")

    @contextlib.contextmanager
    def serving(self, files: Sequence[ModelFile]) -> Iterator[None]:
        """Runs while inside.

        Raises:
            Missing: it does not come up.
        """
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        command, extra = self._prepare(work, files)
        environment = {**os.environ, "PYTHONPATH": str(_CODE), "NO_PROXY": "127.0.0.1", **extra}
        with (work / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            try:
                for file in files:
                    self._await_ready(file, work / "log")
                yield
            finally:
                self._end(self._process)
                self._process = None

    @abstractmethod
    def _prepare(self, work: Path, files: Sequence[ModelFile]) -> tuple[list[str], Mapping[str, str]]:
        """Write what it reads; its command line and environment."""

    def load(self, file: ModelFile) -> float:
        """Replace what serves under this model's name; seconds until it said so."""
        raise NotImplementedError(f"{self.name} replaces nothing")

    def _await_ready(self, file: ModelFile, log: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if self._call("GET", f"/v2/models/{file.model}/ready", seconds=5) == 200:
                    return
            time.sleep(0.05)
        words = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise Missing(f"{self.name} does not come up: {' / '.join(words)[-400:]}")

    def _call(self, method: str, path: str, body: bytes = b"", *, seconds: float) -> int:
        asked = urllib.request.Request(f"http://{self.http}{path}", data=body or None, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=seconds) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """All of its session: some leave children."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class Triton(Peer):
    """Triton Inference Server as the pytriton wheel brings it: on the CPU, with its Python backend."""

    name = "Triton"
    requirements = ("nvidia-pytriton==0.7.0", "numpy<2", "onnxruntime")  # numpy 2 makes its replies empty
    system_shared_memory = True
    swaps = True

    @property
    def _server(self) -> Path:
        return self.packages / "pytriton" / "tritonserver"

    @property
    def _environment(self) -> dict[str, str]:
        libraries = [self.folder / "libraries", self.packages / "nvidia_pytriton.libs"]
        return {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}

    def _check(self) -> None:
        found = sorted((self.packages / "nvidia_pytriton.libs").glob("libcudart-*"))
        if not found:
            raise Missing("Triton's package has no libcudart for this machine")
        (self.folder / "libraries").mkdir(exist_ok=True)
        link = self.folder / "libraries" / "libcudart.so.12"
        if not link.is_symlink():
            link.symlink_to(found[0])
        backend = self.folder / "backends" / "python"
        if not backend.is_dir():
            shutil.copytree(self._server / "backends" / "python", backend)
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            shutil.copy(self._server / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
            own = backend / "triton_python_backend_utils.py"  # imported first, by an interpreter that heeds no variable
            own.write_text(f"import sys\nsys.path.insert(0, {str(self.packages)!r})\n" + own.read_text())
        stub = backend / "triton_python_backend_stub"
        for program in (self._server / "bin" / "tritonserver", stub):
            program.chmod(0o755)
            listed = subprocess.run(
                ["ldd", str(program)], env={**os.environ, **self._environment}, capture_output=True, text=True
            )
            absent = [line.split()[0] for line in listed.stdout.splitlines() if "not found" in line]
            if absent:
                raise Missing(f"Triton needs {', '.join(absent)} (Debian: apt-get install libpython3.11)")

    def _prepare(self, work: Path, files: Sequence[ModelFile]) -> tuple[list[str], Mapping[str, str]]:
        self._versions = dict.fromkeys((file.model for file in files), 0)
        for file in files:
            self._place(file)
        command = [
            str(self._server / "bin" / "tritonserver"), f"--model-repository={work}",
            f"--backend-directory={self.folder / 'backends'}", "--model-control-mode=explicit",
            *(f"--load-model={file.model}" for file in files),
            "--http-address=127.0.0.1", f"--http-port={self._ports[0]}",
            "--grpc-address=127.0.0.1", f"--grpc-port={self._ports[1]}",
            "--allow-metrics=false", "--log-verbose=0",
        ]  # fmt: skip
        return command, self._environment

    def _place(self, file: ModelFile) -> None:
        """The next version of this model in the repository."""
        self._versions[file.model] += 1
        folder = self.folder / "work" / file.model
        version = folder / str(self._versions[file.model])
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(file.path)
        shutil.copy(_CODE / "triton_model.py", version / "model.py")
        (folder / "config.pbtxt").write_text(_triton_config(file))

    def load(self, file: ModelFile) -> float:
        """Over HTTP, as an operator would: the next version is put beside the present one, then the model is loaded."""
        self._place(file)
        return self._reload(file)

    def _reload(self, file: ModelFile) -> float:
        begin = time.monotonic()
        status = self._call("POST", f"/v2/repository/models/{file.model}/load", b"{}", seconds=_LOAD_SECONDS)
        if status != 200:
            raise Missing(f"Triton does not load {file.path.name}: {status}")
        return time.monotonic() - begin


def _triton_config(file: ModelFile) -> str:
    kinds = {"BOOL": "BOOL", "BYTES": "STRING"}
    lines = ['backend: "python"', "max_batch_size: 0"]
    for side, tensors in (("input", file.inputs), ("output", file.outputs)):
        for tensor in tensors:
            kind = kinds.get(tensor.datatype, tensor.datatype)
            lines.append(f'{side} [ {{ name: "{tensor.name}" data_type: TYPE_{kind} dims: {list(tensor.shape)} }} ]')
    return "\n".join([*lines, "instance_group [ { count: 1 kind: KIND_CPU } ]"])


class MLServer(Peer):
    """Seldon's MLServer with a runtime of ours for onnxruntime. JSON over HTTP only."""

    name = "MLServer"
    requirements = ("mlserver==1.7.1", "onnxruntime")
    binary = False
    swaps = True

    def _prepare(self, work: Path, files: Sequence[ModelFile]) -> tuple[list[str], Mapping[str, str]]:
        settings = {
            "host": "127.0.0.1", "http_port": self._ports[0], "grpc_port": self._ports[1],
            "metrics_port": _free_ports(1)[0], "parallel_workers": 0, "debug": False,
        }  # fmt: skip
        (work / "settings.json").write_text(json.dumps(settings))
        for file in files:
            (work / file.model).mkdir()
            self._place(file)
        return [str(self.folder / "env" / "bin" / "mlserver"), "start", str(work)], {}

    def _place(self, file: ModelFile) -> None:
        described = {
            "name": file.model,
            "implementation": "mlserver_runtime.OnnxRuntime",
            "parameters": {"uri": str(file.path)},
        }
        (self.folder / "work" / file.model / "model-settings.json").write_text(json.dumps(described))

    def load(self, file: ModelFile) -> float:
        self._place(file)
        begin = time.monotonic()
        status = self._call("POST", f"/v2/repository/models/{file.model}/load", b"{}", seconds=_LOAD_SECONDS)
        if status != 200:
            raise Missing(f"MLServer does not load {file.path.name}: {status}")
        return time.monotonic() - begin


class KServe(Peer):
    """KServe's Python server with a model of ours for onnxruntime. It cannot replace a model that is loaded."""

    name = "KServe"
    requirements = ("kserve==0.21.0", "onnxruntime")

    def _prepare(self, work: Path, files: Sequence[ModelFile]) -> tuple[list[str], Mapping[str, str]]:
        described = json.dumps({file.model: str(file.path) for file in files})
        return [str(self.python), str(_CODE / "kserve_server.py"), *map(str, self._ports), described], {}


ALL: Final[tuple[type[Peer], ...]] = (Triton, MLServer, KServe)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(socket.socket()) for _ in range(count)]
        for end in ends:
            end.bind(("127.0.0.1", 0))
        return [end.getsockname()[1] for end in ends]
