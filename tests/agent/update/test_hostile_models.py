"""Hostile files on the way that a release takes: the scan, the self-test, a worker. None serves, none reads what is
not its own, and the endpoint answers with the good model all the while."""

import asyncio
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from agent.update.self_test import SelfTest, Trial
from shared.manifest import Tensor, Tolerance
from shared.onnx_scan import OnnxError, scan
from tests.agent.serving.kit import model_file
from tests.agent.serving.test_worker_sandbox import needs_landlock
from tests.bench import load
from tests.bench.device import Device
from tests.simulators import tracing
from tests.simulators.hostile_corpus import CORPUS, MUTATIONS
from tests.simulators.hostile_models import Hostile, Stopped, good, published

pytestmark = pytest.mark.flow
ROOT: Final = Path(__file__).resolve().parents[3]
CPU: Final = ("CPUExecutionProvider",)
MEMORY_BYTES: Final = 2 * 2**30
RATE: Final = 50.0
HANG_SECONDS: Final = 3.0
INPUTS: Final = (Tensor(name="x", datatype="FP32", shape=(-1, 8)),)
OUTPUTS: Final = (Tensor(name="y", datatype="FP32", shape=(-1, 3)),)
REASONS: Final = frozenset({"E_LOAD", "E_SHAPE", "E_GOLDEN_MISMATCH", "E_NOT_FINITE", "E_SELF_TEST_TIMEOUT"})
GULLIBLE: Final = ROOT / "tests" / "simulators" / "gullible"
WITHOUT_SANDBOX: Final = """
from agent.serving import trial, worker_sandbox
worker_sandbox.enter = lambda **_: ()
trial.main()
"""
#: What a shut-in process may open beside its model: interpreter, packages, libraries, facts of the machine.
OURS: Final = (
    *{sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), "/usr/lib", "/lib", "/lib64", "/usr/local/lib"},
    *(
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/usr/share/zoneinfo",
        "/dev/null",
        "/dev/urandom",
        "/proc",
        "/sys/devices",
    ),
    *(str(ROOT / "agent"), str(ROOT / "shared")),
)
#: Loaded by a worker although the self-test had refused them: the worker goes, the endpoint stays.
UNTESTED: Final = (
    "division that stops the processor",
    "loop without end",
    "loop of 2^60 turns",
    "unknown operator",
    "weights that are not numbers",
    "another input",
    "output of another shape",
    "two domains in a node",
    "weights in ../secret",
    "random bytes",
)


def passes(make: Callable[[Path], bytes]) -> bool:
    try:
        scan(make(Path()))
    except OnnxError:
        return False
    return True


CHANGED: Final = {name: Hostile(make, Stopped.TRIAL) for name, make in MUTATIONS.items() if passes(make)}


@dataclass(frozen=True)
class Outcome:
    refused: OnnxError | None  # by the scan
    trial: Trial  # with or without the scan's consent
    log: Path  # of its system calls
    folder: Path


@dataclass
class Laboratory:
    outcomes: dict[str, Outcome]
    served: dict[str, str]  # by a worker: how that ended
    load: load.Load  # on the good model meanwhile


async def attempt(case: Hostile, folder: Path, patience: float = HANG_SECONDS) -> Outcome:
    model, answers = published(folder, case)
    try:
        scan(model.read_bytes())
        refused = None
    except OnnxError as error:
        refused = error
    log = folder / "calls"
    python = None if tracing.why_not() else tracing.traced(folder, log)
    test = SelfTest(python, patience if case.hangs else 60, MEMORY_BYTES)
    trial = await test.run(model=model, golden=answers, providers=CPU, tolerance=Tolerance())
    return Outcome(refused, trial, log, folder / "slot")


async def attempt_all(folder: Path) -> dict[str, Outcome]:
    gate = asyncio.Semaphore(2)
    began = time.monotonic()
    await attempt(next(case for case in CORPUS.values() if case.stopped is Stopped.NOWHERE), folder / "first")
    patience = max(HANG_SECONDS, 4 * (time.monotonic() - began))  # who hangs has begun by then, also beside other work

    async def one(at: int, name: str, case: Hostile) -> tuple[str, Outcome]:
        async with gate:
            return name, await attempt(case, folder / str(at), patience)

    return dict(await asyncio.gather(*(one(at, *item) for at, item in enumerate({**CORPUS, **CHANGED}.items()))))


def serve(device: Device, name: str, path: Path) -> str:
    """What a worker that loads the file comes to: an answer, or why there is none."""
    file = model_file(path, "1", model="hostile", inputs=INPUTS, outputs=OUTPUTS)
    try:
        device.load(file)
    except RuntimeError as error:
        return str(error)
    client = load.Client(device.tcp)
    try:
        return str(client.ask(load.infer("hostile", {"x": np.ones((1, 8), np.float32)})))
    finally:
        client.close()
        device.unload("hostile", "1")


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "good.onnx").write_bytes(good())
    calm = model_file(folder / "good.onnx", "1", model="good", inputs=INPUTS, outputs=OUTPUTS)
    flag = folder / "asking"
    flag.touch()
    settings = {"load_timeout_seconds": 15.0, "request_timeout_seconds": 3.0}
    with Device(folder / "state", **settings) as device, load.elsewhere() as run:
        device.load(calm)
        request = load.infer("good", {"x": np.ones((1, 8), np.float32)})
        asking = run(load.paced, device.tcp, [request], rate=RATE, seconds=900.0, flag=flag)
        try:
            outcomes = asyncio.run(attempt_all(folder))
            harmless = [name for name, case in CORPUS.items() if case.stopped is Stopped.NOWHERE]
            served = {
                name: serve(device, name, outcomes[name].folder / "model.onnx") for name in (*harmless, *UNTESTED)
            }
        finally:
            flag.unlink()
        yield Laboratory(outcomes, served, asking.result(60))


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 100
    assert {case.stopped for case in CORPUS.values()} == set(Stopped)


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_is_stopped_where_it_should_be(laboratory: Laboratory, name: str) -> None:
    found, stopped = laboratory.outcomes[name], CORPUS[name].stopped
    if stopped is Stopped.SCAN:
        assert found.refused is not None
        assert (found.refused.code, bool(found.refused.detail), bool(found.refused.remedy)) == ("E_ONNX", True, True)
        return
    assert found.refused is None
    if stopped is Stopped.NOWHERE:
        assert found.trial.passed, found.trial.detail
        return
    assert not found.trial.passed
    assert found.trial.reason in REASONS
    assert len(found.trial.detail) > 10
    assert (found.trial.reason == "E_SELF_TEST_TIMEOUT") == CORPUS[name].hangs


def test_a_model_with_changed_bytes_is_refused_or_answers_as_published(laboratory: Laboratory) -> None:
    assert 5 <= len(CHANGED) < len(MUTATIONS)
    for trial in (laboratory.outcomes[name].trial for name in CHANGED):
        assert trial.passed or (trial.reason in REASONS and len(trial.detail) > 10)
        if trial.passed:
            assert trial.detail == "4 golden rows answered as published"


def test_without_the_scan_every_file_still_comes_to_a_verdict(laboratory: Laboratory) -> None:
    for name, found in laboratory.outcomes.items():
        assert found.trial.passed or (found.trial.reason in REASONS and found.trial.detail), name


@pytest.mark.parametrize("name", [name for name in CORPUS if "secret" in name or "/etc" in name or "memory" in name])
def test_without_the_scan_no_weights_come_from_elsewhere(laboratory: Laboratory, name: str) -> None:
    assert not laboratory.outcomes[name].trial.passed or name == "training data in ../secret"  # nobody reads those


@needs_landlock
def test_no_file_of_others_is_opened_no_program_started_nothing_connected(laboratory: Laboratory) -> None:
    if why := tracing.why_not():
        pytest.skip(why)
    for name, found in laboratory.outcomes.items():
        allowed = (*OURS, str(found.folder))
        outside = [path for path in tracing.opened(found.log) if not path.startswith(allowed)]
        assert outside == [], name
        assert tracing.strayed(found.log) == [], name
        assert str(found.folder / "model.onnx") in tracing.opened(found.log), name


@needs_landlock
@pytest.mark.parametrize(
    "location", ["weights in ../secret", "weights in a/../../secret", "weights behind a symbolic link"]
)
async def test_the_sandbox_alone_keeps_a_gullible_runtime_from_the_secret(tmp_path: Path, location: str) -> None:
    def interpreter(name: str, command: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\nPYTHONPATH='{GULLIBLE}:{ROOT}' exec '{sys.executable}' {command}\n")
        path.chmod(0o700)
        return str(path)

    model, answers = published(tmp_path / "state", CORPUS[location])
    rows = np.ones((4, 8), np.float32)
    np.savez(answers, **{"input.x": rows, "output.y": np.full((4, 3), 2.0, np.float32)})  # what the secret makes
    files = {"model": model, "golden": answers, "providers": CPU, "tolerance": Tolerance()}
    bare = SelfTest(interpreter("bare", f'-c "{WITHOUT_SANDBOX}"'), 60, MEMORY_BYTES)
    assert (await bare.run(**files)).passed  # it was read, and answered with
    shut_in = SelfTest(interpreter("shut-in", '"$@"'), 60, MEMORY_BYTES)
    trial = await shut_in.run(**files)
    assert (trial.passed, trial.reason) == (False, "E_LOAD")
    assert f"[Errno {errno.EACCES}]" in trial.detail


def test_no_request_for_the_good_model_failed_meanwhile(laboratory: Laboratory) -> None:
    assert laboratory.load.failed == 0
    assert len(laboratory.load.statuses) > 5 * RATE


@pytest.mark.parametrize("name", [name for name, case in CORPUS.items() if case.stopped is Stopped.NOWHERE])
def test_what_is_harmless_answers_in_a_worker(laboratory: Laboratory, name: str) -> None:
    assert laboratory.served[name] == "200"


@pytest.mark.parametrize("name", UNTESTED)
def test_a_worker_that_loads_what_nothing_tested_does_not_take_the_endpoint_with_it(
    laboratory: Laboratory, name: str
) -> None:
    models = {"output of another shape", "two domains in a node"}  # other ones, but models
    if os.uname().machine != "x86_64":  # elsewhere the division has a result
        models.add("division that stops the processor")
    if name in models:
        assert laboratory.served[name] == "200"
    elif name == "weights that are not numbers":
        assert laboratory.served[name] == "500"
    else:
        assert not laboratory.served[name].isdecimal()
        assert "hostile 1" in laboratory.served[name]
