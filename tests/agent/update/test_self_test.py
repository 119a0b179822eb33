"""The throw-away child: what it says is believed, silence and death are failures."""

import sys
import tracemalloc
from pathlib import Path

import pytest

from agent.update.self_test import MAX_ANSWER_BYTES, SelfTest
from shared.manifest import Tolerance
from tests.simulators.release_repository import golden_of
from tests.simulators.updating_device import golden_with_other_answers

CPU = ("CPUExecutionProvider",)


def files(folder: Path, model: bytes, golden: bytes) -> dict[str, Path]:
    (folder / "model.onnx").write_bytes(model)
    (folder / "golden.npz").write_bytes(golden)
    return {"model": folder / "model.onnx", "golden": folder / "golden.npz"}


def interpreter(folder: Path, script: str) -> str:
    """An interpreter that is none."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


async def test_the_right_answers_pass(tmp_path: Path, models: list[bytes]) -> None:
    found = files(tmp_path, models[0], golden_of(models[0]))
    trial = await SelfTest(sys.executable, 30, 4 * 2**30).run(**found, providers=CPU, tolerance=Tolerance())
    assert (trial.passed, trial.reason, trial.provider) == (True, None, CPU[0])


async def test_other_answers_fail(tmp_path: Path, models: list[bytes]) -> None:
    found = files(tmp_path, models[0], golden_with_other_answers(models[0]))
    trial = await SelfTest(None, 30, 4 * 2**30).run(**found, providers=CPU, tolerance=Tolerance())
    assert (trial.passed, trial.reason) == (False, "E_GOLDEN_MISMATCH")


@pytest.mark.parametrize(
    ("script", "reason", "said"),
    [
        ("kill -XCPU $$", "E_LOAD", "took longer than its processor time (SIGXCPU)"),
        ("kill -SYS $$", "E_LOAD", "forbidden (SIGSYS)"),
        ("kill -KILL $$", "E_LOAD", "killed (SIGKILL), as systems do when memory runs out"),
        ("echo std::bad_alloc >&2; kill -ABRT $$", "E_LOAD", "memory limit of 1.0 GiB"),
        ("exec sleep 60", "E_SELF_TEST_TIMEOUT", "took longer than 1 s"),
        ("kill -SEGV $$", "E_LOAD", "crashed (SIGSEGV)"),
        ("echo boom >&2; exit 3", "E_LOAD", "exit code 3 and without a verdict: boom"),
        ('echo \'{"passed": 1, "passed": 2}\'', "E_LOAD", "exit code 0"),
        ("head -c 3000000 /dev/zero", "E_LOAD", "exit code 0"),
    ],
)
async def test_a_child_that_hangs_dies_or_babbles_has_failed(
    tmp_path: Path, models: list[bytes], script: str, reason: str, said: str
) -> None:
    found = files(tmp_path, models[0], b"")
    test = SelfTest(interpreter(tmp_path, script), 1.0, 2**30)
    trial = await test.run(**found, providers=CPU, tolerance=Tolerance())
    assert (trial.passed, trial.reason) == (False, reason)
    assert said in trial.detail


async def test_what_a_child_babbles_is_not_kept(tmp_path: Path, models: list[bytes]) -> None:
    found = files(tmp_path, models[0], b"")
    test = SelfTest(interpreter(tmp_path, "exec head -c 300000000 /dev/zero"), 30, 2**30)
    tracemalloc.start()
    try:
        trial = await test.run(**found, providers=CPU, tolerance=Tolerance())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (trial.passed, trial.reason) == (False, "E_LOAD")
    assert most < 8 * MAX_ANSWER_BYTES


async def test_a_child_that_ends_before_it_has_read_its_orders_is_no_error_of_ours(
    tmp_path: Path, models: list[bytes]
) -> None:
    found = files(tmp_path, models[0], b"")
    many = tuple(f"Provider{at}" for at in range(100_000))  # more than a pipe holds
    test = SelfTest(interpreter(tmp_path, "exec <&-; echo gone >&2; exit 3"), 10, 2**30)
    trial = await test.run(**found, providers=many, tolerance=Tolerance())
    assert (trial.passed, trial.reason) == (False, "E_LOAD")
    assert "exit code 3" in trial.detail


async def test_the_runtimes_providers_are_asked_for(tmp_path: Path) -> None:
    found = await SelfTest(None, 30, 2**30).providers()
    assert found is not None
    assert CPU[0] in found
    assert await SelfTest(interpreter(tmp_path, "exit 1"), 30, 2**30).providers() is None


async def test_secrets_in_our_environment_do_not_reach_the_child(
    tmp_path: Path, models: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOTILLA_TOKEN", "secret")
    test = SelfTest(interpreter(tmp_path, "env >&2; exit 1"), 5, 2**30)
    trial = await test.run(**files(tmp_path, models[0], b""), providers=CPU, tolerance=Tolerance())
    assert "secret" not in trial.detail
