"""One version in memory at a time, models that nothing can serve, and how fast a dead worker is replaced: with
real workers."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest

from agent.serving.supervisor import LoadError
from tests.agent.serving.kit import Digits, Running, children_of, endpoint, model_file

ROW = "/v2/models/digits/infer"


def body(digits: Digits) -> bytes:
    data = digits.images[:1].ravel().tolist()
    return json.dumps({"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": data}]}).encode()


class Client:
    """Asks without pause and keeps status and version of every answer."""

    def __init__(self, running: Running, digits: Digits) -> None:
        self._url, self._body = f"http://{running.url}{ROW}", body(digits)
        self.statuses: list[int] = []
        self.versions: list[str] = []

    async def run(self, http: httpx2.AsyncClient) -> None:
        while True:
            answer = await http.post(self._url, content=self._body)
            self.statuses.append(answer.status_code)
            self.versions.append(answer.json().get("model_version", answer.text))


async def under_requests(running: Running, digits: Digits, act: Callable[[Client], Awaitable[None]]) -> Client:
    client = Client(running, digits)
    async with httpx2.AsyncClient(timeout=20) as http, asyncio.TaskGroup() as group:
        asking = [group.create_task(client.run(http)) for _ in range(3)]
        await running.until(lambda: len(client.statuses) > 5)
        await act(client)
        for task in asking:
            task.cancel()
    return client


def workers() -> list[int]:
    """Processes that the fork server made."""
    lines = children_of(os.getpid())
    servers = [pid for pid, line in lines.items() if "agent.serving.fork_server" in line]
    return [pid for server in servers for pid in children_of(server)]


async def test_versions_are_exchanged_without_a_failed_request_and_never_both_in_memory(
    tmp_path: Path, digits: Digits, digits_model: Path
) -> None:
    async with endpoint(tmp_path) as running:
        serving = running.serving
        await serving.load(model_file(digits_model, "1.0.0"))
        await serving.route("digits", "1.0.0")
        most = 0

        async def exchange(client: Client) -> None:
            nonlocal most
            pair = ("1.0.0", "1.1.0")
            for number in range(6):
                leaving, coming = pair[number % 2], pair[1 - number % 2]
                await serving.exchange(model_file(digits_model, coming), leaving)
                most = max(most, len(set(workers())))
                seen = len(client.statuses)
                await running.until(lambda seen=seen: len(client.statuses) > seen + 3)  # type: ignore[misc]
                assert client.versions[-1] == coming

        client = await under_requests(running, digits, exchange)
        assert set(client.statuses) == {200}
        assert set(client.versions) == {"1.0.0", "1.1.0"}
        assert most == 1


async def test_a_version_that_does_not_load_leaves_requests_waiting_for_the_one_before(
    tmp_path: Path, digits: Digits, digits_model: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    async with endpoint(tmp_path) as running:
        serving = running.serving
        old = model_file(digits_model, "1.0.0")
        await serving.load(old)
        await serving.route("digits", "1.0.0")

        async def exchange(client: Client) -> None:
            with pytest.raises(LoadError):
                await serving.exchange(model_file(broken, "1.1.0"), "1.0.0")
            await serving.exchange(old, "1.1.0")
            seen = len(client.statuses)
            await running.until(lambda: len(client.statuses) > seen + 3)

        client = await under_requests(running, digits, exchange)
        assert set(client.statuses) == {200}
        assert set(client.versions) == {"1.0.0"}


async def test_a_front_that_dies_in_an_exchange_is_told_to_hold(
    tmp_path: Path, digits: Digits, digits_model: Path
) -> None:
    async with endpoint(tmp_path) as running:
        serving = running.serving
        await serving.load(model_file(digits_model, "1.0.0"))
        await serving.route("digits", "1.0.0")
        await serving._ordered("hold", model="digits")
        serving._held.add("digits")
        await serving.unload("digits", "1.0.0")
        front = next(pid for pid, line in children_of(os.getpid()).items() if "agent.serving.front" in line)
        os.kill(front, signal.SIGKILL)
        async with httpx2.AsyncClient(timeout=20) as http:
            asked = asyncio.ensure_future(http.post(f"http://{running.url}{ROW}", content=body(digits)))
            await serving.load(model_file(digits_model, "1.1.0"))
            await serving.route("digits", "1.1.0")
            assert (await asked).json()["model_version"] == "1.1.0"


async def test_a_model_in_safe_mode_says_why_and_lives(tmp_path: Path, digits: Digits, digits_model: Path) -> None:
    async with endpoint(tmp_path) as running, httpx2.AsyncClient(base_url=f"http://{running.url}") as http:
        await running.serving.explain("digits", "model 'digits' is in safe mode: both slots are bad")
        answer = await http.post(ROW, content=body(digits))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
        assert "both slots are bad" in answer.json()["error"]
        assert (await http.get("/v2/health/live")).status_code == 200
        ready = await http.get("/v2/health/ready")
        assert (ready.status_code, ready.headers["Retry-After"]) == (503, "30")
        assert "both slots are bad" in ready.json()["error"]
        assert (await http.get("/v2/models/digits/ready")).status_code == 503
        front = next(pid for pid, line in children_of(os.getpid()).items() if "agent.serving.front" in line)
        os.kill(front, signal.SIGKILL)
        await running.until(lambda: front not in children_of(os.getpid()))
        async with httpx2.AsyncClient(base_url=f"http://{running.url}") as anew:  # the connections died with the front
            answer = await anew.post(ROW, content=body(digits))
        assert "both slots are bad" in answer.json()["error"]  # the next front was told
        await running.serving.load(model_file(digits_model, "1.0.0"))
        await running.serving.route("digits", "1.0.0")
        async with httpx2.AsyncClient(base_url=f"http://{running.url}") as anew:
            assert (await anew.get("/v2/health/ready")).status_code == 200
            assert (await anew.post(ROW, content=body(digits))).status_code == 200
