"""The endpoint as clients see it: stock tritonclient, raw HTTP, wrong requests, feedback."""

import asyncio
import contextlib
import gzip
import http.client
import json
import socket
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from agent.serving.supervisor import Feedback, LoadError, NotLoadedError, Sample
from agent.update.self_test import SelfTest
from shared.manifest import Tensor
from tests.agent.serving.kit import Digits, Running, endpoint, model_file, save_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException


@pytest.fixture
async def running(tmp_path: Path, digits_model: Path) -> AsyncIterator[Running]:
    async with endpoint(tmp_path) as found:
        await found.serving.load(model_file(digits_model, "1.0.0"))
        await found.serving.route("digits", "1.0.0")
        yield found


def ask(where: Running, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", where.endpoints.http_port, timeout=20)
    try:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, data, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        is_json = answer.getheader("Content-Type") == "application/json" and content
        return answer.status, json.loads(content) if is_json else content, dict(answer.getheaders())
    finally:
        connection.close()


def image_request(digits: Digits, row: int = 0, **changes: Any) -> dict[str, Any]:
    entry = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": digits.images[row].ravel().tolist()}
    return {"inputs": [{**entry, **changes}]}


async def test_stock_client_finds_everything(running: Running) -> None:
    def visit() -> None:
        with triton.InferenceServerClient(running.url) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("digits")
            assert client.is_model_ready("digits", "1.0.0")
            assert not client.is_model_ready("digits", "7.0.0")
            assert client.get_server_metadata()["name"] == "flotilla"
            about = client.get_model_metadata("digits")
            assert about["versions"] == ["1.0.0"]
            assert about["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
            assert client.get_model_config("digits")["input"][0]["data_type"] == "TYPE_FP32"
            assert client.get_inference_statistics("digits")["model_stats"][0]["version"] == "1.0.0"
            assert client.get_model_repository_index() == [
                {"name": "digits", "version": "1.0.0", "state": "READY", "reason": ""}
            ]
            assert client.get_system_shared_memory_status() == []
            with pytest.raises(InferenceServerException, match="load / unload is not allowed"):
                client.load_model("digits")
            with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
                client.get_model_metadata("nope")

    await asyncio.to_thread(visit)


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True, None])
async def test_stock_client_infers(running: Running, digits: Digits, binary_in: bool, binary_out: bool | None) -> None:
    def infer() -> triton.InferResult:
        given = triton.InferInput("image", [20, 1, 8, 8], "FP32")
        given.set_data_from_numpy(digits.images[:20], binary_data=binary_in)
        wanted = None if binary_out is None else [triton.InferRequestedOutput("scores", binary_data=binary_out)]
        with triton.InferenceServerClient(running.url) as client:
            return client.infer("digits", [given], outputs=wanted, request_id="r1")

    result = await asyncio.to_thread(infer)
    scores = result.as_numpy("scores")
    assert scores.shape == (20, 10)
    assert (scores.argmax(axis=1) == digits.labels[:20]).mean() > 0.8
    assert result.get_response()["model_version"] == "1.0.0"
    assert result.get_response()["id"] == "r1"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_stock_client_compresses_and_classifies(running: Running, digits: Digits, coding: str) -> None:
    def infer() -> triton.InferResult:
        given = triton.InferInput("image", [1, 1, 8, 8], "FP32")
        given.set_data_from_numpy(digits.images[:1])
        wanted = [triton.InferRequestedOutput("scores", class_count=2)]
        with triton.InferenceServerClient(running.url) as client:
            return client.infer("digits", [given], outputs=wanted, request_compression_algorithm=coding)

    best = (await asyncio.to_thread(infer)).as_numpy("scores")
    assert best.shape == (1, 2)
    assert int(best[0][0].decode().split(":")[1]) == digits.labels[0]


async def test_large_frames_pass_through(tmp_path: Path) -> None:
    tensors = (Tensor(name="x", datatype="FP32", shape=(-1, 3, 640, 640)),)
    answers = (Tensor(name="y", datatype="FP32", shape=(-1, 3, 640, 640)),)
    path = tmp_path / "twice.onnx"
    save_model(path, [helper.make_node("Add", ["x", "x"], ["y"])], inputs=tensors, outputs=answers)
    frame = np.random.default_rng(1).random((1, 3, 640, 640), dtype=np.float32)

    def infer(url: str) -> np.ndarray:
        given = triton.InferInput("x", list(frame.shape), "FP32")
        given.set_data_from_numpy(frame)
        with triton.InferenceServerClient(url) as client:
            for _ in range(3):
                found = client.infer("twice", [given]).as_numpy("y")
            return found

    async with endpoint(tmp_path) as running:
        await running.serving.load(model_file(path, "1", model="twice", inputs=tensors, outputs=answers))
        await running.serving.route("twice", "1")
        assert np.array_equal(await asyncio.to_thread(infer, running.url), frame * 2)


async def test_text_tensors(tmp_path: Path) -> None:
    tensors = (Tensor(name="x", datatype="BYTES", shape=(-1,)),)
    answers = (Tensor(name="y", datatype="BYTES", shape=(-1,)),)
    path = tmp_path / "echo.onnx"
    save_model(path, [helper.make_node("Identity", ["x"], ["y"])], inputs=tensors, outputs=answers)

    def infer(url: str, binary: bool) -> list[bytes]:
        given = triton.InferInput("x", [2], "BYTES")
        given.set_data_from_numpy(np.array([b"hull", "Bö".encode()], dtype=np.object_), binary_data=binary)
        with triton.InferenceServerClient(url) as client:
            return list(client.infer("echo", [given]).as_numpy("y"))

    async with endpoint(tmp_path) as running:
        await running.serving.load(model_file(path, "1", model="echo", inputs=tensors, outputs=answers))
        await running.serving.route("echo", "1")
        for binary in (True, False):
            assert await asyncio.to_thread(infer, running.url, binary) == [b"hull", "Bö".encode()]


async def test_without_a_model_it_is_unavailable_and_says_why(tmp_path: Path, digits: Digits) -> None:
    async with endpoint(tmp_path) as running:
        for method, path, body in (
            ("GET", "/v2/health/ready", None),
            ("POST", "/v2/models/digits/infer", image_request(digits)),
            ("GET", "/v2/models/digits", None),
        ):
            status, answer, headers = await asyncio.to_thread(ask, running, method, path, body)
            assert status == 503
            assert "no model is loaded" in answer["error"]
            assert headers["Retry-After"] == "1"
        assert (await asyncio.to_thread(ask, running, "GET", "/v2/health/live"))[0] == 200
        with pytest.raises(NotLoadedError):
            await running.serving.route("digits", "1.0.0")
        await running.serving.unload("digits", "1.0.0")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "failed to parse the request JSON buffer"),
        (b"[" * 100_000, "failed to parse the request JSON buffer"),
        (b"[]", "failed to parse the request JSON buffer"),
        ({}, "Unable to parse 'inputs'"),
        ({"inputs": []}, "expected 1 inputs but got 0 inputs for model 'digits'"),
        ({"name": "x"}, "unexpected inference input 'x' for model 'digits'"),
        ({"datatype": "INT32"}, "inference input 'image' data-type is 'INT32', but model 'digits' expects 'FP32'"),
        ({"shape": [1, 3]}, "unexpected shape for input 'image' for model 'digits'. Expected [-1,1,8,8], got [1,3]"),
        ({"shape": [2, 1, 8, 8]}, "Unable to parse 'data': Shape does not match true shape of 'data' field"),
        ({"data": ["a"] * 64}, "values are not all FP32"),
        ({"data": [[1, 2], [3]]}, "Unable to parse 'data'"),
        ({"parameters": {"binary_data_size": 4}}, "unexpected end of request"),
        ({"parameters": {"shared_memory_region": "r"}}, "Unable to find shared memory region: 'r'"),
    ],
)
async def test_wrong_requests_get_the_texts_of_triton(running: Running, digits: Digits, body: Any, text: str) -> None:
    sent = image_request(digits, **body) if isinstance(body, dict) and body and "inputs" not in body else body
    status, answer, _ = await asyncio.to_thread(ask, running, "POST", "/v2/models/digits/infer", sent)
    assert status == 400
    assert text in answer["error"]
    await running.until(lambda: any(isinstance(one, Sample) and one.error == "bad-request" for one in running.seen))


async def test_wrong_lengths_and_paths(running: Running, digits: Digits) -> None:
    body = json.dumps(image_request(digits)).encode()
    infer = "/v2/models/digits/infer"
    for path, headers, status in (
        (infer, {"Inference_Header_Content_Length": str(len(body) + 1)}, 400),
        (infer, {"Inference_Header_Content_Length": "x"}, 400),
        (infer, {"Inference_Header_Content_Length": "3"}, 400),
        (infer, {"Content_Encoding": "br"}, 415),
        (infer, {"Content_Encoding": "gzip"}, 400),
        ("/v2/models/other/infer", {}, 404),
        ("/v2/models/digits/versions/3/infer", {}, 404),
        ("/v3", {}, 404),
        ("/v2", {}, 405),
    ):
        found, answer, _ = await asyncio.to_thread(ask, running, "POST", path, body, **headers)
        assert (found, list(answer)) == (status, ["error"]), path
    assert (await asyncio.to_thread(ask, running, "POST", infer + "?test=1", body))[0] == 200


async def test_bodies_in_every_form(running: Running, digits: Digits) -> None:
    body = json.dumps({**image_request(digits), "id": "q"}).encode()
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 50]), body[i : i + 50]) for i in range(0, len(body), 50))
    packed = gzip.compress(body)
    raw = digits.images[0].tobytes()
    forms = {
        "whole": head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        "chunked": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        "gzip": head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed,
        "raw": head + b"Inference-Header-Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(raw) + raw,
    }

    async def exchange(data: bytes, step: int) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_unix_connection(str(running.endpoints.uds_path))
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await writer.drain()
            if step == 1:
                await asyncio.sleep(0)
        answer_head = await reader.readuntil(b"\r\n\r\n")
        length = int(answer_head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()
        return answer_head, answer

    async with asyncio.timeout(30):
        for name, data in forms.items():
            whole, bytewise = await exchange(data, len(data)), await exchange(data, 1)
            assert whole == bytewise, name
            assert whole[0].startswith(b"HTTP/1.1 200"), name


async def test_expect_continue_and_requests_sent_ahead(running: Running, digits: Digits) -> None:
    body = json.dumps(image_request(digits)).encode()
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)

    def talk() -> bytes:
        with socket.create_connection(("127.0.0.1", running.endpoints.http_port), timeout=10) as client:
            client.sendall(head)
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(body + b"GET /v2/health/live HTTP/1.1\r\n\r\nGET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n")
            found = b""
            while piece := client.recv(65536):
                found += piece
            return found

    answers = await asyncio.to_thread(talk)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert b"model_version" in answers.split(b"HTTP/1.1 200 OK")[1]
    assert answers.rstrip().endswith(b"}")


async def test_feedback_joins_what_was_answered(running: Running, digits: Digits) -> None:
    request = {**image_request(digits), "id": "photo-1"}
    assert (await asyncio.to_thread(ask, running, "POST", "/v2/models/digits/infer", request))[0] == 200
    label = int(digits.labels[0])
    for _ in range(2):  # the second counts no more
        status, answer, _ = await asyncio.to_thread(
            ask, running, "POST", "/v2/models/digits/feedback", {"id": "photo-1", "label": label}
        )
        assert (status, answer) == (200, {"id": "photo-1", "model_version": "1.0.0", "correct": True})
    for body, status in (({"id": "unknown", "label": 1}, 404), ({"id": "photo-1"}, 400), (b"x", 400)):
        assert (await asyncio.to_thread(ask, running, "POST", "/v2/models/digits/feedback", body))[0] == status
    await running.until(lambda: any(isinstance(one, Feedback) for one in running.seen))
    assert [one for one in running.seen if isinstance(one, Feedback)] == [
        Feedback("digits", "1.0.0", "photo-1", correct=True, truth=label, predicted=label)
    ]


async def test_samples_tell_latency_and_features_of_each_row(running: Running, digits: Digits) -> None:
    body = image_request(digits, shape=[3, 1, 8, 8], data=digits.images[:3].ravel().tolist())
    assert (await asyncio.to_thread(ask, running, "POST", "/v2/models/digits/infer", body))[0] == 200
    await running.until(lambda: any(isinstance(one, Sample) for one in running.seen))
    (sample,) = [one for one in running.seen if isinstance(one, Sample)]
    assert (sample.model, sample.version, sample.error) == ("digits", "1.0.0", None)
    assert 0 < sample.latency_ms < 5000
    assert sample.features["input.brightness"] == pytest.approx(digits.images[:3].mean(axis=(1, 2, 3)).tolist())
    assert len(sample.features["class.predicted"]) == 3
    status, text, _ = await asyncio.to_thread(ask, running, "GET", "/metrics")
    assert status == 200
    assert b'flotilla_inference_requests_total{model="digits",version="1.0.0",outcome="ok"} 1' in text


async def test_answers_that_are_not_finite_are_errors(tmp_path: Path) -> None:
    tensors = (Tensor(name="x", datatype="FP32", shape=(-1, 2)),)
    answers = (Tensor(name="y", datatype="FP32", shape=(-1, 2)),)
    path = tmp_path / "log.onnx"
    save_model(path, [helper.make_node("Log", ["x"], ["y"])], inputs=tensors, outputs=answers)
    async with endpoint(tmp_path) as running:
        await running.serving.load(model_file(path, "1", model="log", inputs=tensors, outputs=answers))
        await running.serving.route("log", "1")
        entry = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [-1, 2]}
        status, answer, _ = await asyncio.to_thread(ask, running, "POST", "/v2/models/log/infer", {"inputs": [entry]})
        assert status == 500
        assert "not finite" in answer["error"]
        await running.until(lambda: any(isinstance(one, Sample) and one.error == "not-finite" for one in running.seen))


async def test_a_model_that_does_not_load_leaves_the_other_serving(running: Running, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(LoadError):
        await running.serving.load(model_file(broken, "2.0.0"))
    other = tmp_path / "other.onnx"
    save_model(other, [helper.make_node("Flatten", ["image"], ["scores"])])
    promised = (Tensor(name="picture", datatype="FP32", shape=(-1, 1, 8, 8)),)
    with pytest.raises(LoadError, match="its manifest says"):
        await running.serving.load(model_file(other, "2.0.0", inputs=promised))
    assert dict(running.serving.serving()) == {"digits": "1.0.0"}
    assert (await asyncio.to_thread(ask, running, "GET", "/v2/health/ready"))[0] == 200


async def test_onnxruntime_tells_its_makers_nothing_and_keeps_no_identity_in_the_home_folder(
    tmp_path: Path, digits_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI"):
        monkeypatch.delenv(name, raising=False)
    async with endpoint(tmp_path) as running:
        await running.serving.load(model_file(digits_model, "1.0.0"))
    assert await SelfTest(None, 30, 2**30).providers()
    assert list(home.rglob("*")) == []


async def test_with_too_many_connections_the_longest_idle_goes_and_a_busy_one_never(
    tmp_path: Path, digits: Digits, digits_model: Path
) -> None:
    async with endpoint(tmp_path, max_connections=3) as running:
        await running.serving.load(model_file(digits_model, "1.0.0"))
        await running.serving.route("digits", "1.0.0")
        address = ("127.0.0.1", running.endpoints.http_port)
        live = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"

        def check() -> None:
            idle, begun, also_begun = (socket.create_connection(address, timeout=10) for _ in range(3))
            with idle, begun, also_begun:
                for connection in (idle, begun, also_begun):
                    connection.sendall(live)
                    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
                for connection in (begun, also_begun):
                    connection.sendall(live[:20])  # in the middle of a request
                with socket.create_connection(address, timeout=10) as fourth:
                    fourth.sendall(live[:20])
                    with contextlib.suppress(ConnectionResetError):
                        assert idle.recv(4096) == b""
                    with socket.create_connection(address, timeout=10) as fifth:
                        answer = fifth.recv(4096)
                        assert answer.startswith(b"HTTP/1.1 503")
                        assert b"3 connections are open and busy" in answer
                    for connection in (begun, also_begun, fourth):
                        connection.sendall(live[20:])
                        assert connection.recv(4096).startswith(b"HTTP/1.1 200")

        await asyncio.to_thread(check)


async def test_with_probes_off_requests_are_counted_without_features(
    digits: Digits, digits_model: Path, tmp_path: Path
) -> None:
    async with endpoint(tmp_path, probes="off") as running:
        await running.serving.load(model_file(digits_model, "1.0.0"))
        await running.serving.route("digits", "1.0.0")
        body = image_request(digits)
        assert (await asyncio.to_thread(ask, running, "POST", "/v2/models/digits/infer", body))[0] == 200
        await running.until(lambda: any(isinstance(one, Sample) for one in running.seen))
        (sample,) = [one for one in running.seen if isinstance(one, Sample)]
        assert (sample.error, sample.features, sample.batch) == (None, {}, 1)
