"""Our own figures for one pair of models: bytes, speed, memory of the reader, distance to the entropy.

ours = measured(folder of the pair)       encodes, reads back, compares
ours.save(run), Ours.load(run)            beside the figures that peers gave in the same run
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from fleet.releases.delta.encoding import Delta, encode
from shared.delta import coding
from shared.delta.numbers import Array
from shared.delta.rebuild import rebuild
from shared.delta.split import split

_CHILD: Final = """
import hashlib, mmap, sys
from pathlib import Path
from shared.delta.rebuild import rebuild
old, delta, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def pieces():
    with delta.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
def peak():  # ru_maxrss would count the parent's memory, too
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
digest = hashlib.sha256()
with old.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as base, memoryview(base) as view:
    bytes(view[::4096])  # all of the old file is in memory from here on, so what comes on top is the reader's
    before = peak()
    for piece in rebuild(view, pieces(), result_bytes=size):
        digest.update(piece)
        del piece
print(peak() - before, digest.hexdigest())
"""


@dataclass(frozen=True, slots=True)
class Ours:
    """One pair. Seconds are of one core; the reader's memory is beside the old file that it maps."""

    name: str
    key: str  # of both files and of our delta: other bytes, another run
    old_bytes: int
    new_bytes: int
    size_bytes: int
    entropy_bytes: float  # of all residuals, no cost of a model counted
    bound_bytes: float  # with what telling the frequencies costs any coder
    largest_bytes: int  # tensor
    encode_seconds: float
    decode_seconds: float
    reader_bytes: int

    @property
    def reader_limit_bytes(self) -> int:
        return 2 * self.largest_bytes + (64 << 20)

    def save(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        (run / "ours.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, run: Path) -> Self:
        return cls(**json.loads((run / "ours.json").read_text()))


def measured(place: Path) -> Ours:
    """The pair in the folder `place`.

    Raises:
        AssertionError: what comes out is not the new file.
    """
    old, new = (place / "old.onnx").read_bytes(), (place / "new.onnx").read_bytes()
    started = time.process_time()
    delta = encode(old, new)
    encoding = time.process_time() - started
    digest = hashlib.sha256()
    started = time.process_time()
    for piece in rebuild(memoryview(old), iter((delta.data,)), result_bytes=len(new)):
        digest.update(piece)
    decoding = time.process_time() - started
    if digest.digest() != hashlib.sha256(new).digest():
        raise AssertionError(f"{place.name}: not the same file")
    key = hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in (old, new, delta.data))).hexdigest()
    entropy, models = bound(old, new, delta)
    return Ours(
        name=place.name,
        key=key[:16],
        old_bytes=len(old),
        new_bytes=len(new),
        size_bytes=len(delta.data),
        entropy_bytes=entropy,
        bound_bytes=entropy + models,
        largest_bytes=max(tensor.size_bytes for tensor in split(new)),
        encode_seconds=encoding,
        decode_seconds=decoding,
        reader_bytes=memory(place, delta, new),
    )


def memory(place: Path, delta: Delta, new: bytes) -> int:
    """Peak of a reader in a process of its own, beside the old file that it maps."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(delta.data)
        file.flush()
        command = [sys.executable, "-c", _CHILD, str(place / "old.onnx"), file.name, str(len(new))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, digest = done.stdout.split()
    if digest != hashlib.sha256(new).hexdigest():
        raise AssertionError("not the same file in a process of its own")
    return int(peak)


def bound(old: bytes, new: bytes, delta: Delta) -> tuple[float, float]:
    """Entropy in bytes of all residuals in the blocks that they are coded in with what else the stream holds, and
    bytes that any coder needs to learn the frequencies: half a logarithm of the count for each symbol in use.

    A residual is its sixteenth of an octave, and plain bits within.
    """
    saved: Counter[str] = Counter()
    real = coding.unpack_integers

    def counting(block: bytes, count: int, dtype: Any) -> Array:
        found = real(block, count, dtype)
        entropy, model = _entropy_bits(found)
        saved["coded"] += len(block)
        saved["bits"] += int(entropy)
        saved["model"] += int(model)
        return found

    coding.unpack_integers = counting
    try:
        for _ in rebuild(memoryview(old), iter((delta.data,)), result_bytes=len(new)):
            pass
    finally:
        coding.unpack_integers = real
    return len(delta.data) - saved["coded"] + saved["bits"] / 8, saved["model"] / 8


def _entropy_bits(numbers: Array) -> tuple[float, float]:
    size = np.abs(numbers.astype(np.float64))
    bins = np.where(size < 32, size, np.floor(16 * np.log2(np.maximum(size, 1))) + 1000).astype(np.int64)
    signed = bins * np.where(numbers < 0, -1, 1)
    names, counts = np.unique(signed, return_counts=True)
    octave = (np.abs(names) - 1000) / 16.0
    width = np.where(np.abs(names) < 1000, 1.0, np.exp2(octave + 1 / 16) - np.exp2(octave))
    share = counts / max(1, counts.sum())
    entropy = float(np.sum(counts * (-np.log2(share) + np.log2(np.maximum(width, 1)))))
    return entropy, max(0, len(names) - 1) / 2 * float(np.log2(max(2, len(numbers))))
