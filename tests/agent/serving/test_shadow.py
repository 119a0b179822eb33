"""A candidate in the shadow: its figures are those of an offline run, and whatever it does costs no request."""

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from agent.serving.shadow_runner import ShadowRunner
from agent.serving.supervisor import LoadError, ModelFile
from shared.manifest import Tensor
from shared.shadow import Terms, agreement
from tests.agent.serving.kit import COUNT, TOTAL, Running, counting, endpoint, model_file, pids, save_model
from tests.simulators import digits

IMAGE = (Tensor(name="image", datatype="FP32", shape=(-1, 8, 8)),)
SCORES = (Tensor(name="scores", datatype="FP32", shape=(-1, 10)),)
ALL = Terms(share=1.0, hold_seconds=10.0)
GOOD, WEAK = digits.train(seed=1), digits.train(seed=2, hidden=8, rounds=8)


def file_of(folder: Path, version: str, trained: digits.Trained) -> ModelFile:
    path = folder / f"{version}.onnx"
    path.write_bytes(trained.onnx_bytes)
    return model_file(path, version, inputs=IMAGE, outputs=SCORES)


@asynccontextmanager
async def shadowed(
    folder: Path, serves: ModelFile, candidate: ModelFile, terms: Terms = ALL, **settings: object
) -> AsyncIterator[tuple[Running, ShadowRunner]]:
    async with endpoint(folder, **settings) as running:
        await running.serving.load(serves)
        await running.serving.route(serves.model, serves.version)
        async with running.serving.shadowing(candidate, terms, lambda: None) as shadow:
            yield running, shadow


@asynccontextmanager
async def digits_pair(
    folder: Path, terms: Terms = ALL, **settings: object
) -> AsyncIterator[tuple[Running, ShadowRunner]]:
    pair = file_of(folder, "1.0.0", GOOD), file_of(folder, "1.1.0", WEAK)
    async with shadowed(folder, *pair, terms, **settings) as found:
        yield found


def binary(images: np.ndarray) -> tuple[bytes, dict[str, str]]:
    data = images.tobytes()
    entry = {"name": "image", "shape": list(images.shape), "datatype": "FP32"}
    document = {
        "inputs": [entry | {"parameters": {"binary_data_size": len(data)}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(document).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


def in_json(images: np.ndarray, **output: object) -> tuple[bytes, dict[str, str]]:
    entry = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
    outputs = {"outputs": [{"name": "scores", "parameters": output}]} if output else {}
    return json.dumps({"inputs": [entry], **outputs}).encode(), {}


async def ask(http: httpx2.AsyncClient, running: Running, asked: tuple[bytes, Mapping[str, str]], model: str) -> Any:
    body, headers = asked
    answer = await http.post(f"http://{running.url}/v2/models/{model}/infer", content=body, headers=dict(headers))
    assert answer.status_code == 200
    return answer


def seen(shadow: ShadowRunner) -> int:
    return shadow.figures.requests + shadow.figures.dropped


def predicted(trained: digits.Trained, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(io.BytesIO(trained.onnx_bytes).getvalue())
    scores: np.ndarray = session.run(None, {"image": images})[0]
    return scores.argmax(axis=1)


async def test_agreement_is_that_of_an_offline_run_whatever_form_clients_ask_in(tmp_path: Path) -> None:
    images = GOOD.live_x
    async with digits_pair(tmp_path) as (running, shadow), httpx2.AsyncClient() as http:
        for index, part in enumerate(np.array_split(images, 24)):
            forms = (binary(part), in_json(part), in_json(part, classification=3), in_json(part, binary_data=True))
            await ask(http, running, forms[index % 4], "digits")
            if index % 6 == 5:  # a machine that is busy with other things drops what comes too quickly
                await running.until(lambda asked=index + 1: seen(shadow) == asked)  # type: ignore[misc]
    agreed = int((predicted(GOOD, images) == predicted(WEAK, images)).sum())
    found = shadow.figures
    assert (found.dropped, found.failed, found.skipped, found.crashes) == (0, 0, 0, 0)
    assert (found.samples, found.agreed) == (len(images), agreed)
    assert agreement(found) == agreed / len(images)
    assert 0.5 < agreed / len(images) < 1.0
    assert sum(found.serving.values()) == sum(found.candidate.values()) == 24
    assert 0 < found.difference <= 1
    assert {sample.version for sample in running.seen} == {"1.0.0"}


async def test_a_share_is_sampled_by_chance_and_none_while_it_is_paused(tmp_path: Path) -> None:
    terms = ALL.model_copy(update={"share": 0.3})
    async with digits_pair(tmp_path, terms) as (running, shadow), httpx2.AsyncClient() as http:
        for _ in range(200):
            await ask(http, running, binary(GOOD.live_x[:1]), "digits")
        await running.until(lambda: seen(shadow) >= 20)
        await shadow.pause(on=True)
        for _ in range(10):
            await ask(http, running, binary(GOOD.live_x[:1]), "digits")
        await running.until(lambda: shadow.figures.skipped == 10)
        assert 20 <= seen(shadow) <= 100


async def test_a_candidate_runs_when_nobody_else_wants_to_and_can_only_read_the_arena(tmp_path: Path) -> None:
    async with digits_pair(tmp_path) as (running, shadow):
        serving = running.serving.process_of("digits", "1.0.0")
        assert shadow.pid is not None
        assert os.sched_getscheduler(shadow.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_IDLE
        await running.until(lambda: arena_rights(shadow.pid) == {"r--s"})
        assert arena_rights(serving) == {"rw-s"}


def arena_rights(pid: int | None) -> set[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[1] for line in lines if "flotilla-arena" in line}


async def test_a_candidate_that_stands_still_holds_no_place_longer_than_its_bound(tmp_path: Path) -> None:
    terms = ALL.model_copy(update={"hold_seconds": 0.05})
    async with digits_pair(tmp_path, terms, queue_limit=1) as (running, shadow), httpx2.AsyncClient() as http:
        assert shadow.pid is not None
        os.kill(shadow.pid, signal.SIGSTOP)
        for _ in range(300):  # more than there are places
            await ask(http, running, binary(GOOD.live_x[:1]), "digits")
        await running.until(lambda: shadow.figures.dropped == 300)
        os.kill(shadow.pid, signal.SIGCONT)
        before = shadow.figures.samples
        await asyncio.sleep(0.2)  # what it finds late, it does not look at
        assert (before, shadow.figures.samples, shadow.figures.dropped) == (0, 0, 300)


async def test_a_candidate_that_hangs_is_ended_and_no_request_knows(tmp_path: Path) -> None:
    quick, endless = tmp_path / "quick.onnx", tmp_path / "endless.onnx"
    cast = helper.make_node("Cast", ["count"], ["total"], to=TensorProto.FLOAT)
    save_model(quick, [cast], inputs=COUNT, outputs=TOTAL)
    save_model(endless, counting("total"), inputs=COUNT, outputs=TOTAL)
    files = [
        model_file(path, version, model="loop", inputs=COUNT, outputs=TOTAL)
        for path, version in ((quick, "1"), (endless, "2"))
    ]
    entry = {"name": "count", "shape": [], "datatype": "INT64", "data": [2**40]}
    request: tuple[bytes, dict[str, str]] = (json.dumps({"inputs": [entry]}).encode(), {})
    hanging = shadowed(tmp_path, *files, ALL, request_timeout_seconds=0.3)
    async with hanging as (running, shadow), httpx2.AsyncClient() as http:
        for _ in range(5):
            await ask(http, running, request, "loop")
        await running.until(lambda: bool(shadow.deaths), 120)
        await ask(http, running, request, "loop")
    assert shadow.deaths[0] == "hang"


async def test_candidate_and_front_may_die_and_the_comparison_goes_on(tmp_path: Path) -> None:
    async with digits_pair(tmp_path) as (running, shadow), httpx2.AsyncClient() as http:
        await ask(http, running, binary(GOOD.live_x[:4]), "digits")
        await running.until(lambda: shadow.figures.samples == 4)
        assert shadow.pid is not None
        os.kill(shadow.pid, signal.SIGSEGV)
        await running.until(lambda: shadow.deaths == ["SIGSEGV"] and shadow.pid is not None)
        (front,) = pids("front")
        os.kill(front, signal.SIGKILL)
        await running.until(lambda: pids("front") not in ([], [front]))
        async with asyncio.timeout(60):
            while shadow.figures.samples < 8:
                async with httpx2.AsyncClient() as fresh:
                    try:
                        await ask(fresh, running, binary(GOOD.live_x[:4]), "digits")
                    except httpx2.TransportError:
                        await asyncio.sleep(0.05)
                await asyncio.sleep(0.05)


async def test_a_candidate_never_answers_a_client_even_where_nobody_else_does(tmp_path: Path) -> None:
    async with digits_pair(tmp_path) as (running, _), httpx2.AsyncClient() as http:
        body, headers = binary(GOOD.live_x[:1])
        url = f"http://{running.url}/v2/models/digits"
        named = await http.post(f"{url}/versions/1.1.0/infer", content=body, headers=headers)
        assert named.status_code == 404
        await running.serving.unload("digits", "1.0.0")
        assert (await http.post(f"{url}/infer", content=body, headers=headers)).status_code in (404, 503)


async def test_a_candidate_that_does_not_load_is_told_of(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    async with endpoint(tmp_path) as running:
        with pytest.raises(LoadError):
            async with running.serving.shadowing(model_file(bad, "2", inputs=IMAGE, outputs=SCORES), ALL, lambda: None):
                pass
