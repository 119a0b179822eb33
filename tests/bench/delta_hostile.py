"""Damaged deltas, many of them: what a reader took for the file, how often it fell over, the memory and time it took.

    results(100_000, folder)        in turns of a process each; turns that `folder` has are not done again

Damage is done at every level (tests/simulators/hostile_deltas.py): bytes of the stream, its head, whole blocks, the
description, and what is sealed. Memory is the peak above what the process had before its first delta.
"""

import ctypes
import gc
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from shared.errors import RefusedError
from shared.identifiers import sha256
from tests.bench.document import Result
from tests.simulators.hostile_deltas import LEVELS, Hostile, broken, pairs, taken

_TURN: Final = 5000
_MEMORY_MB: Final = 64.0
_SLOWEST_MS: Final = 1000.0


@dataclass(slots=True)
class Turn:
    """What became of some damaged deltas; the worst of time and memory, and where that was."""

    ends: dict[str, int] = field(default_factory=dict)
    slowest_ms: float = 0.0
    most_bytes: int = 0
    worst: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Turn") -> None:
        self.ends = dict(Counter(self.ends) + Counter(other.ends))
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.most_bytes = max(self.most_bytes, other.most_bytes)


def results(count: int, folder: Path) -> list[Result]:
    """`count` damaged deltas."""
    key = hashlib.sha256(b"".join(pair.stream for pair in pairs())).hexdigest()[:16]
    place = folder / f"hostile-{key}"
    place.mkdir(parents=True, exist_ok=True)
    whole = Turn()
    for first in range(0, count, _TURN):
        whole.add(_turn(first, min(first + _TURN, count), place))
    name, ends = f"{count} damaged deltas", Counter(whole.ends)
    return [
        Result(f"{name}: other files accepted", ends["accepted"], "", goal=0),
        Result(f"{name}: other descriptions accepted", ends["description accepted"], "", goal=0),
        Result(f"{name}: readers that fell over", ends["crash"], "", goal=0),
        Result(f"{name}: refused before the end", ends["refused"], ""),
        Result(f"{name}: refused by the digest", ends["digest"], ""),
        Result(f"{name}: the very file all the same", ends["same"], ""),
        Result(f"{name}: slowest", round(whole.slowest_ms, 1), "ms", goal=_SLOWEST_MS),
        Result(f"{name}: most memory", round(whole.most_bytes / 1e6, 1), "MB", goal=_MEMORY_MB),
    ]


def _turn(first: int, last: int, place: Path) -> Turn:
    path = place / f"{first}-{last}.json"
    if not path.is_file():
        command = [sys.executable, "-m", "tests.bench.delta_hostile", str(first), str(last)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:  # the interpreter itself died, or something came out that is no refusal
            print(done.stderr[-2000:], file=sys.stderr)
            return Turn(Counter(crash=1))
        path.write_text(done.stdout)
    text = json.loads(path.read_text())
    return Turn(Counter(text.pop("ends")), **text)


def tried(first: int, last: int) -> Turn:
    """The damaged deltas with these numbers, in this process. Anything but a refusal goes through."""
    found = Turn()
    samples = pairs()
    before = _settled()
    for seed in range(first, last):
        hostile = broken(samples[seed // len(LEVELS) % len(samples)], seed)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is of this one
        started = time.process_time()
        end = _end(hostile)
        took = 1000 * (time.process_time() - started)
        used = _status("VmHWM") - before
        found.ends[end] = found.ends.get(end, 0) + 1
        if took > found.slowest_ms:
            found.slowest_ms = took
            found.worst["slowest"] = seed
        if used > found.most_bytes:
            found.most_bytes = used
            found.worst["most"] = seed
    return found


def _end(hostile: Hostile) -> str:
    try:
        made = taken(hostile)
    except RefusedError:
        return "refused"
    if sha256(hostile.description) != hostile.offer.description:
        return "description accepted"
    if made is None:
        return "digest"
    return "same" if made == hostile.pair.new else "accepted"


def _settled() -> int:
    """The memory of now, what was freed given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def _status(name: str) -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


if __name__ == "__main__":
    print(json.dumps(asdict(tried(int(sys.argv[1]), int(sys.argv[2])))))
