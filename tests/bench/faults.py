"""Bad new versions and crashes under a steady load: failed requests, how soon it answers again, what is reported.

python -m tests.bench.faults [--quick] [--json] [--no-old-runtime]

A device with the real update flow and the real endpoint serves a good version, 200 requests a second come at fixed
times whether or not answers do. One bad version after the other is released to it: the old one must go on serving, and
the report must say why. Then a version that was good all through its probation crashes. The models have no code of
ours: a loop that an input makes endless, a division that the processor stops, roots of negative numbers.

A request that hangs or crashes the version on probation counts as failed only if its client saw that: the other
slot, which stands by, answers it meanwhile.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.settings import ServingSettings
from agent.update.lifecycle import Draft
from agent.update.self_test import SelfTest
from shared.manifest import Tolerance
from shared.messages import Phase
from tests.agent.serving.kit import children_of
from tests.bench import load, peers
from tests.bench.document import Result, median, options, tell
from tests.bench.swap import Asking, Window, ask_urgently, gap_ms
from tests.simulators.hostile_bytes import cut
from tests.simulators.hostile_corpus import CORPUS
from tests.simulators.hostile_models import divided, golden, loop, published, shape_bomb
from tests.simulators.poisoned_models import HARMLESS, POISON, poisoned
from tests.simulators.release_repository import ReleaseRepository, golden_of, tiny_model
from tests.simulators.serving_device import ServingDevice
from tests.simulators.updating_device import golden_with_other_answers, with_settings

RATE: Final = 200.0
POISON_EVERY: Final = 1000  # requests
HANG_SECONDS: Final = 0.5  # limit of one request
AFTER_SECONDS: Final = 1.0  # watched beyond an end
GOAL_MS: Final = 50.0
HANG_MS: Final = HANG_SECONDS * 1e3 + 250  # until a worker that hangs is ended and another one answers
OLD_RUNTIME: Final = "onnxruntime==1.23.2"  # the last that reads whatever path a model names
READS: Final = ("../secret", "a/../../secret", "/etc/passwd")
USUAL: Final = load.infer("digits", {"x": HARMLESS})
DEADLY: Final = load.infer("digits", {"x": POISON})


CAREFUL: Final = with_settings(
    probation_seconds=1.5 * POISON_EVERY / RATE,
    probation_requests=100,
    self_test_timeout_seconds=5,
    self_test_memory_bytes=2 * 2**30,
)
QUICK: Final = with_settings(probation_seconds=0.5, probation_requests=10)
BARE: Final = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"x": numpy.ones((1, 8), numpy.float32)})
"""


@dataclass(frozen=True)
class Case:
    """A bad version, what is asked meanwhile, and the code that must be reported."""

    what: str
    model: bytes
    code: str
    golden: bytes | None = None  # None: that of the good model
    requests: Sequence[bytes] = (USUAL,)
    gap_ms: float | None = None  # at most so long without an answer


@dataclass(frozen=True)
class Seen:
    """What came of it."""

    load: load.Load
    report: Draft
    served: bool  # by the version before, at the end


def cases() -> list[Case]:
    now_and_then = [*[USUAL] * (POISON_EVERY - 1), DEADLY]
    often = [*[USUAL] * 19, DEADLY]
    return [
        Case("corrupt file", cut(0.9), "E_ONNX"),
        Case("golden mismatch", tiny_model(0), "E_GOLDEN_MISMATCH", golden_with_other_answers(tiny_model(0))),
        Case("hanging load", loop(2**60)(Path()), "E_SELF_TEST_TIMEOUT"),
        Case("out of memory", shape_bomb([2**34], fed=True)(Path()), "E_LOAD"),
        Case("crash (SIGFPE) at the first run", divided()(Path()), "E_LOAD"),
        Case(
            f"hang at every {POISON_EVERY}th request",
            poisoned("hangs"),
            "E_PROBATION_CRASH",
            None,
            now_and_then,
            HANG_MS,
        ),
        Case(
            f"crash at every {POISON_EVERY}th request", poisoned("crashes"), "E_PROBATION_CRASH", requests=now_and_then
        ),
        Case("NaN at every 20th request", poisoned("is not finite"), "E_PROBATION_OUTPUT", requests=often),
    ]


def main() -> int:
    parser = options(str(__doc__).splitlines()[0])
    parser.add_argument("--no-old-runtime", action="store_true", help="do not install the onnxruntime that reads files")
    parser.add_argument("--peers", type=Path, default=peers.home(), help="folder where it is installed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name:
        results = asyncio.run(measure(Path(name), crashes=3 if asked.quick else 10))
        if not asked.no_old_runtime:
            results += asyncio.run(shut_in(Path(name), asked.peers))
    return tell("faults", results, as_json=asked.json)


async def measure(folder: Path, *, crashes: int) -> list[Result]:
    endpoint = ServingSettings(http_port=0, grpc_port=None, request_timeout_seconds=HANG_SECONDS)
    results: list[Result] = []
    with ReleaseRepository() as repository:
        device = ServingDevice(folder / "bad", repository, CAREFUL, serving_settings=endpoint)
        async with device.on():
            await install(device, repository, "1.0.0", tiny_model(0))
            for number, case in enumerate(cases()):
                results += judged(case, await endure(device, repository, f"1.{number + 1}.0", case))
        for number, (what, model, strike, goal_ms) in enumerate(BLOWS):
            device = ServingDevice(folder / f"committed-{number}", repository, QUICK, serving_settings=endpoint)
            async with device.on():
                await install(device, repository, f"2.{number}.0", tiny_model(1))
                await install(device, repository, f"3.{number}.0", model)
            seen = [await struck(device, strike) for _ in range(crashes)]
            results += recovered(what, seen, goal_ms)
    return results


# The flow


@asynccontextmanager
async def asking(device: ServingDevice, requests: Sequence[bytes]) -> AsyncIterator[Asking]:
    """A paced load in a process of its own, until `stopped`."""
    flag = device.folder / "asking"
    flag.touch()
    with load.elsewhere() as run:
        found = Asking(flag, run(ask_urgently, device.address, requests, rate=RATE, seconds=600.0, flag=flag))
        try:
            await asyncio.sleep(AFTER_SECONDS)
            yield found
        finally:
            flag.unlink(missing_ok=True)


async def stopped(client: Asking) -> load.Load:
    await asyncio.sleep(AFTER_SECONDS)
    return await asyncio.to_thread(client.stop)


async def install(device: ServingDevice, repository: ReleaseRepository, version: str, model: bytes) -> None:
    """Have a version that is good, as far as anybody knows, installed under requests for it, and committed."""
    async with asking(device, [USUAL]) as client:
        await device.assign(repository.publish("digits", version, model, golden=golden_of(model)))
        report = await device.end()
        await stopped(client)
    if report.phase is not Phase.COMMITTED:
        raise RuntimeError(f"{version} was not committed: {report.reason} {report.detail}")


async def endure(device: ServingDevice, repository: ReleaseRepository, version: str, case: Case) -> Seen:
    """The bad version is released while requests come."""
    release = repository.publish("digits", version, case.model, golden=case.golden or golden())
    async with asking(device, case.requests) as client:
        await device.assign(release)
        report = await device.end()
        seen = await stopped(client)
    return Seen(seen, report, device.serves("1.0.0"))


def judged(case: Case, seen: Seen) -> list[Result]:
    right = seen.served and seen.report.reason == case.code and bool(seen.report.detail)
    print(f"{case.what}: {seen.report.phase} {seen.report.reason}: {seen.report.detail}", file=sys.stderr)
    return [
        Result(f"{case.what}: failed of {len(seen.load.statuses)} requests", seen.load.failed, "", 0),
        Result(f"  not refused with {case.code}, or the old slot not serving", float(not right), "", 0),
        Result("  longest time without an answer", seen.load.longest_gap() * 1e3, "ms", case.gap_ms),
    ]


# Crashes of what was committed


def worker_of(device: ServingDevice) -> int:
    family = children_of(os.getpid())
    (worker,) = {child for pid, line in family.items() if "fork_server" in line for child in children_of(pid)}
    return worker


def kill_worker(device: ServingDevice) -> int:
    os.kill(worker_of(device), signal.SIGSEGV)
    return 200


def send_poison(device: ServingDevice) -> int:
    client = load.Client(device.address)
    try:
        return client.ask(DEADLY)
    finally:
        client.end.close()


async def struck(device: ServingDevice, strike: Callable[[ServingDevice], int]) -> tuple[load.Load, Window, int]:
    """A fresh start of the agent, then the blow: each of them is the first, as later ones are answered more slowly."""
    async with device.on(), asking(device, [USUAL]) as client:
        begin = time.monotonic()
        status = await asyncio.to_thread(strike, device)
        await asyncio.sleep(AFTER_SECONDS)
        window = Window("crash", begin, time.monotonic())
        return await stopped(client), window, status


def recovered(what: str, seen: Sequence[tuple[load.Load, Window, int]], goal_ms: float) -> list[Result]:
    gaps = [gap_ms(each, window) for each, window, _ in seen]
    failed = sum(each.failed for each, _, _ in seen)
    poison = sum(status != 200 for _, _, status in seen)
    return [
        Result(f"{what}, {len(seen)} times: failed requests", failed, "", 0, {"and of the poison": float(poison)}),
        Result("  longest time without an answer, median", median(gaps), "ms", goal_ms, {"most": round(max(gaps), 1)}),
    ]


#: What happens to a version that was committed, and how soon it must answer again. A request is tried twice.
BLOWS: Final = (
    ("SIGSEGV after commit", tiny_model(0), kill_worker, GOAL_MS),
    ("request that crashes what was committed", poisoned("crashes"), send_poison, GOAL_MS),
    ("request that hangs what was committed", poisoned("hangs"), send_poison, HANG_MS),
)


# The sandbox without the scan


async def shut_in(folder: Path, home: Path) -> list[Result]:
    """An onnxruntime that reads what a model names: by itself, and in the self-test's child without our scan."""
    try:
        python = old_runtime(home / "old-onnxruntime")
    except peers.Missing as missing:
        print(f"{OLD_RUNTIME} is left out: {missing}", file=sys.stderr)
        return []
    test = SelfTest(python, 60, 2 * 2**30)
    read, passed = [], []
    for at, name in enumerate(READS):
        model, answers = published(folder / f"read-{at}", CORPUS[f"weights in {name}"])
        bare = await asyncio.create_subprocess_exec(python, "-c", BARE, str(model), stderr=asyncio.subprocess.DEVNULL)
        read.append(await bare.wait() == 0)
        trial = await test.run(
            model=model, golden=answers, providers=("CPUExecutionProvider",), tolerance=Tolerance(relative=1e9)
        )
        print(f"weights in {name}: {trial.reason}: {trial.detail[-200:]}", file=sys.stderr)
        passed.append(trial.passed or "13" not in trial.detail)  # EACCES
    return [
        Result(f"{OLD_RUNTIME}, no scan: reads outside that the sandbox let pass", sum(passed), "", 0),
        Result("  that succeed without the sandbox", sum(read), "", peer={"tried": float(len(read))}),
    ]


def old_runtime(folder: Path) -> str:
    """Its interpreter.

    Raises:
        Missing: it cannot be installed.
    """
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", OLD_RUNTIME, "numpy"], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise peers.Missing((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        (folder / ".installed").touch()
    return str(python)


if __name__ == "__main__":
    raise SystemExit(main())
