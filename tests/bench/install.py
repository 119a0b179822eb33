"""A full release out of stored, encrypted chunks: time and memory of the install, and what it costs inference; beside
`age -d | zstd -d` and a copy.

python -m tests.bench.install [--quick] [--json]

The model is one ONNX file of random normal fp32 weights (seed 1, deviation 0.02), which compress as those of trained
networks do. Every way reads from memory what is on the disk already, and ends when the file is synced. Ours is the
agent's own step: it checks name and tag of every chunk, unpacks, writes, compares the digest, scans the model.
Processor time is user and system of the process with its threads, or of all processes of the pipe. Rounds take turns.
In the race all ways run before other programs where the machine grants it (SCHED_RR), so that what else it does, if
anything, is not what is measured; otherwise each is as nice as an agent's install (`update.install_nice`).
Memory is the peak of installs that go on for as long for each size: in the first moments not every desk had every
kind of chunk. Latency is beside installs one after the other, ours and the pipe's in turn, both as nice.
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, helper

from agent.settings import UpdateSettings
from agent.update.assemble import assemble
from agent.update.chunk_store import ChunkStore
from agent.update.slot_disk import SlotDisk
from agent.update.unpack import Effort
from shared import chunking, onnx_scan
from shared.identifiers import sha256
from shared.manifest import Artifact, ArtifactName, Chunk, Manifest, Runtime
from tests.bench import models
from tests.bench.device import Device
from tests.bench.document import Result, median, options, tell
from tests.bench.swap import Window, asking, during

MEGABYTES: Final = 200
SIZES: Final = (20, 200, 2000)  # megabytes, for memory
GROWTH_MB: Final = 4.0  # of the peak, from the smallest to the largest
P99_GOAL: Final = 1.25  # p99 beside an install against without: what a swap may cost (tests.bench.swap)
WINDOW_SECONDS: Final = 2.0
MEMORY_SECONDS: Final = 6.0
EFFORT: Final = Effort(UpdateSettings().install_threads, UpdateSettings().install_nice)
_TENSOR_BYTES: Final = 8_000_000
_KEY: Final = bytes(range(32))
_ROOT: Final = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--race", action="store_true", help="only wall and processor time")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child is not None:
        return child(asked.child, asked.seconds)
    sizes = (MEGABYTES,) if asked.race else SIZES[:2] if asked.quick else SIZES
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name:
        folder = Path(name)
        stored = {size: made(folder / str(size), size) for size in sizes}
        piped = prepare(stored[MEGABYTES])
        results = race(stored[MEGABYTES], 3 if asked.quick else 15, piped=piped)
        results += [] if asked.race else memory(stored)
        for realtime in () if asked.race else ("auto", "off"):
            rounds = 3 if asked.quick else 8
            results += beside(stored[MEGABYTES], folder / realtime, rounds, realtime, piped=piped)
    return tell("install", results, as_json=asked.json)


# The release


def made(folder: Path, megabytes: int) -> Path:
    """A state folder with the chunks of a release of this size, its manifest, and the model file."""
    folder.mkdir()
    model, store = folder / "model.onnx", ChunkStore(folder)
    with model.open("wb") as file:
        file.writelines(weights(megabytes))
    data = model.read_bytes()
    facts = onnx_scan.scan(data)
    plain: Mapping[ArtifactName, tuple[bytes, Sequence[int]]] = {
        "model": (data, facts.borders), "golden": (bytes(5000), ()), "baseline": (b"{}" * 500, ()),
    }  # fmt: skip
    manifest = Manifest(
        model="weights", version="1.0.0", counter=1, created=datetime(2026, 11, 26, tzinfo=UTC), latency_ms=1.0,
        runtime=Runtime(ir_version=facts.ir_version, opset=facts.opset), inputs=facts.inputs, outputs=facts.outputs,
        artifacts={name: sealed(name, *content, store) for name, content in plain.items()},
    )  # fmt: skip
    (folder / "release.json").write_bytes(manifest.to_bytes())
    return folder


def weights(megabytes: int) -> Iterator[bytes]:
    """An ONNX file in pieces: a graph of one node, then tensors, each a field of its own that parsers add to it."""
    chance = np.random.default_rng(1)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "weights", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    count = megabytes * 1_000_000 // _TENSOR_BYTES
    heads = []
    for number in range(count):
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[_TENSOR_BYTES // 4000, 1000])
        inside = tensor.SerializeToString() + _field(9, _TENSOR_BYTES)  # raw_data
        heads.append(_field(5, len(inside) + _TENSOR_BYTES) + inside)  # initializer
    small = model.graph.SerializeToString()
    model.ClearField("graph")
    yield model.SerializeToString()
    yield _field(7, len(small) + sum(map(len, heads)) + count * _TENSOR_BYTES) + small
    for head in heads:
        yield head
        yield (chance.standard_normal(_TENSOR_BYTES // 4, dtype=np.float32) * np.float32(0.02)).tobytes()


def _field(number: int, length: int) -> bytes:
    """Tag and length of a protobuf field."""
    found = bytearray([number << 3 | 2])
    while length > 0x7F:
        found.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(found) + bytes([length])


def sealed(name: ArtifactName, data: bytes, borders: Sequence[int], store: ChunkStore) -> Artifact:
    key, view = chunking.artifact_key(_KEY, name), memoryview(data)
    pieces, listed = list(chunking.cut(len(data), borders)), []
    for index, (start, end) in enumerate(pieces):
        chunk = chunking.seal(view[start:end], key=key, artifact=name, index=index, count=len(pieces))
        listed.append(Chunk(id=sha256(chunk), size_bytes=len(chunk), plain_bytes=end - start))
        store.put(listed[-1].id, chunk)
    return Artifact(digest=sha256(data), size_bytes=len(data), chunks=tuple(listed))


# The install, in a process of its own


def child(folder: Path, seconds: float) -> int:
    """Install once, or again and again for so many seconds; one line of JSON says what it took."""
    data = (folder / "release.json").read_bytes()
    manifest, store, disk = Manifest.parse(data), ChunkStore(folder), SlotDisk(folder)
    before, wall, used = _peak_bytes(), time.perf_counter(), time.process_time()
    with contextlib.nullcontext() if seconds else first():
        while True:
            assemble(manifest, data, content_key=_KEY, store=store, disk=disk, slot="a", effort=EFFORT)
            if time.perf_counter() - wall >= seconds:
                break
    wall, used = time.perf_counter() - wall, time.process_time() - used
    print(json.dumps({"wall": wall, "cpu": used, "before": before, "peak": _peak_bytes()}))
    return 0


def _peak_bytes() -> int:
    """Of this process alone; ru_maxrss would count the parent's memory, too."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def installed(folder: Path, seconds: float = 0.0) -> dict[str, float]:
    """What one install took, or all of so many seconds; the slot is empty again."""
    done = subprocess.run(_command(folder, seconds), check=True, capture_output=True, text=True, cwd=_ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    disk = SlotDisk(folder)
    if not _same(disk.file("weights", "a", "model"), folder / "model.onnx"):
        raise AssertionError("not the same file")
    disk.clear("weights", "a")
    return found


def _command(folder: Path, seconds: float) -> list[str]:
    return [sys.executable, "-m", "tests.bench.install", "--child", str(folder), "--seconds", str(seconds)]


def _same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "--silent", str(one), str(other)]).returncode == 0


# The race


def race(folder: Path, rounds: int, *, piped: bool) -> list[Result]:
    """Medians of wall and processor time of all ways, in turn."""
    ways: dict[str, Callable[[], tuple[float, float]]] = {"ours": lambda: _ours(folder), "cp": lambda: _copy(folder)}
    if piped:
        ways["age | zstd"] = lambda: _timed(folder, _pipe(folder))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            os.sync()
            found = way()
            if number:  # the first round warms up
                taken[name].append(found)
    rows = []
    for place, what in ((0, "wall"), (1, "processor time")):
        middle = {name: median([1000 * found[place] for found in all_of]) for name, all_of in taken.items()}
        ours = middle.pop("ours")
        rows.append(Result(f"{MEGABYTES} MB installed: {what}", ours, "ms", middle.get("age | zstd"), middle))
        least = {name: round(1000 * min(found[place] for found in all_of), 1) for name, all_of in taken.items()}
        rows.append(Result("  the best round", least.pop("ours"), "ms", peer=least))
    return [*rows, Result("  of which the digest of the plain file, processor time", _hashing_ms(), "ms")]


@contextlib.contextmanager
def first() -> Iterator[None]:
    """This thread, and what it starts, before all that is in the normal class."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def prepare(folder: Path) -> bool:
    """The same file for the peer: zstd at our level, then age for one recipient. False where it is not installed."""
    if not (shutil.which("age") and shutil.which("zstd")):
        print("age | zstd is left out: install the Debian packages age and zstd", file=sys.stderr)
        return False
    key = folder / "age.key"
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    to = next(line.split()[-1] for line in key.read_text().splitlines() if "public key" in line)
    pack = f"zstd -q -6 -c '{folder}/model.onnx' | age -r {to} -o '{folder}/model.age'"
    subprocess.run(["sh", "-c", pack], check=True)
    return True


def _ours(folder: Path) -> tuple[float, float]:
    found = installed(folder)
    return found["wall"], found["cpu"]


def _pipe(folder: Path) -> str:
    opened = f"age -d -i '{folder}/age.key' '{folder}/model.age' | zstd -q -d -f -o '{folder}/out'"
    return f"{opened} && sync '{folder}/out'"


def _copy(folder: Path) -> tuple[float, float]:
    return _timed(folder, f"cp '{folder}/model.onnx' '{folder}/out' && sync '{folder}/out'")


def _timed(folder: Path, command: str) -> tuple[float, float]:
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with first():
        subprocess.run(["nice", "-n", str(EFFORT.nice), "sh", "-c", command], check=True)
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
    if not _same(folder / "out", folder / "model.onnx"):
        raise AssertionError(f"not the same file: {command}")
    (folder / "out").unlink()
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _hashing_ms() -> float:
    """SHA-256 over as many bytes, a chunk at a time that is in the cache already."""
    chunk, digest, used = bytes(chunking.CHUNK_BYTES), hashlib.sha256(), time.process_time()
    for _ in range(MEGABYTES * 1_000_000 // len(chunk)):
        digest.update(chunk)
    return round(1000 * (time.process_time() - used), 1)


def memory(stored: Mapping[int, Path]) -> list[Result]:
    """Peak of the installing process, and what of it the install added."""
    rows, added = [], []
    for size, folder in stored.items():
        found = installed(folder, MEMORY_SECONDS)
        added.append((found["peak"] - found["before"]) / 1e6)
        peers = {"before it": round(found["before"] / 1e6, 1)}
        rows.append(Result(f"{size} MB: peak memory of the process", round(found["peak"] / 1e6, 1), "MB", peer=peers))
    growth = round(max(added) - added[0], 1)
    what = f"memory that an install adds, {max(stored)} MB against {min(stored)} MB"
    return [*rows, Result(what, growth, "MB", GROWTH_MB, {"at the least": round(added[0], 1)})]


# Inference beside it


def beside(folder: Path, work: Path, rounds: int, realtime: str, *, piped: bool) -> list[Result]:
    """Latencies of a small model at 200 requests a second, with installs one after the other, and without."""
    work.mkdir()
    ways: dict[str, Callable[[], Window]] = {"without": _quiet, "with": lambda: _busy(folder)}
    if piped:
        ways["age | zstd"] = lambda: _busy_pipe(folder)
    with Device(work / "device", realtime=realtime) as device:
        device.load(models.digits(work))
        with asking(device.tcp, work) as client:
            time.sleep(WINDOW_SECONDS)
            turns = [{name: way() for name, way in ways.items()} for _ in range(rounds)]
            seen = client.stop()
    rows = []
    for percent in (50, 99):
        taken = {name: [1e3 * during(seen, turn[name], percent) for turn in turns] for name in ways}
        ratios = {name: _ratio(taken[name], taken["without"]) for name in ways}
        peers = {f"{name} ms": median(each) for name, each in taken.items()}
        peers |= {f"{name} x": ratios[name] for name in ways if name == "age | zstd"}
        what = f"inference, realtime {realtime}: p{percent} with / without an install"
        rows.append(Result(what, ratios["with"], "x", P99_GOAL if percent == 99 else None, peers))
    return [*rows, Result(f"  failed requests of {len(seen.statuses)}", seen.failed, "", 0)]


def _ratio(now: Sequence[float], before: Sequence[float]) -> float:
    return median([one / other for one, other in zip(now, before, strict=True)])


def _quiet() -> Window:
    begin = time.monotonic()
    time.sleep(WINDOW_SECONDS)
    return Window("without", begin, time.monotonic())


def _busy(folder: Path) -> Window:
    """From the moment on when the process has started and installs."""
    with subprocess.Popen(_command(folder, WINDOW_SECONDS), stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
    end = time.monotonic()
    SlotDisk(folder).clear("weights", "a")
    return Window("with", end - found["wall"], end)


def _busy_pipe(folder: Path) -> Window:
    begin = time.monotonic()
    command = f"while :; do {_pipe(folder)}; done"
    with contextlib.suppress(subprocess.TimeoutExpired):
        _ended(["nice", "-n", str(EFFORT.nice), "sh", "-c", command], WINDOW_SECONDS)
    return Window("age | zstd", begin, time.monotonic())


def _ended(command: Sequence[str], seconds: float) -> None:
    """Run so long, then end all its processes."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            process.wait(seconds)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())
