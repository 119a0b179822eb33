"""What travels over a page's stream, and how often a page is rendered."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from fleet.dashboard import live
from fleet.hub import Hub
from shared.clock import SystemClock


class HandClock(SystemClock):
    """Monotonic time that moves only when told."""

    def __init__(self) -> None:
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at


async def always() -> bool:
    return True


def events(text: str) -> list[tuple[str, str]]:
    """(event, data) of every whole message."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        name = next((line[7:] for line in lines if line.startswith("event: ")), "")
        data = "\n".join(line[6:] for line in lines if line.startswith("data: "))
        if lines:
            found.append((name, data))
    return found


async def until(lines: AsyncIterator[str], wanted: str) -> str:
    """Everything up to the first message of which `wanted` is a part."""
    text = ""
    with anyio.fail_after(20):
        async for chunk in lines:
            text += chunk
            if wanted in text and text.endswith("\n\n"):
                return text
    raise AssertionError(f"the stream ended without {wanted!r}")


class TestBoard:
    async def test_all_viewers_of_a_tick_share_one_rendering(self) -> None:
        clock, made = HandClock(), []

        async def render() -> live.Frame:
            made.append(1)
            await anyio.lowlevel.checkpoint()
            return live.Frame({"a": f"<p>{len(made)}</p>"})

        board = live.Board(render, clock)
        found: list[live.Frame] = []

        async def look() -> None:
            found.append(await board.frame())

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(look)
        assert board.renders == 1
        assert len({id(frame) for frame in found}) == 1
        clock.at += live.TICK_SECONDS
        assert (await board.frame()).fragments == {"a": "<p>2</p>"}

    async def test_a_dear_page_is_rendered_less_often(self) -> None:
        clock = HandClock()

        async def render() -> live.Frame:
            clock.at += 2.0
            return live.Frame({})

        board = live.Board(render, clock)
        await board.frame()
        clock.at += 7.0
        await board.frame()
        assert board.renders == 1
        clock.at += 2.0
        await board.frame()
        assert board.renders == 2

    def test_boards_that_nobody_looks_at_give_way(self) -> None:
        boards = live.Boards(HandClock())
        first = boards.board("0", never)
        assert boards.board("0", never) is first
        for number in range(1, 70):
            boards.board(str(number), never)
        assert boards.board("0", never) is not first


async def never() -> live.Frame:
    raise AssertionError("not to be rendered")


class TestStream:
    async def test_only_what_changed_travels(self) -> None:
        clock, hub, state = HandClock(), Hub(), {"a": "1", "b": "1"}

        async def render() -> live.Frame:
            return live.Frame({key: f'<p id="{key}">{value}</p>' for key, value in state.items()}, {"t": [state["a"]]})

        found: list[Any] = []
        messages = live.stream(live.Board(render, clock), hub, clock, always)
        async for message in messages:
            found.append(message)
            if message.event == "beat":
                if len([one for one in found if one.event == "beat"]) == 2:
                    break
                state["b"] = "2"
                clock.at += 5
                hub.wake()
        first, chart, _, second, _ = found
        assert first.raw_data.count("<hx-partial") == 2
        assert chart.data == {"t": ["1"]}
        assert 'hx-target="#b"' in second.raw_data
        assert 'hx-target="#a"' not in second.raw_data

    async def test_who_lost_the_permission_loses_the_stream(self) -> None:
        clock, hub = HandClock(), Hub()

        async def render() -> live.Frame:
            clock.at += live.WELCOME_SECONDS
            hub.wake()
            return live.Frame({})

        async def gone() -> bool:
            return False

        found = [message.event async for message in live.stream(live.Board(render, clock), hub, clock, gone)]
        assert found == ["beat"]

    async def test_a_stream_ends_by_itself_after_a_while(self) -> None:
        clock, hub = HandClock(), Hub()

        async def render() -> live.Frame:
            clock.at += live.STREAM_SECONDS
            hub.wake()
            return live.Frame({})

        assert len([one async for one in live.stream(live.Board(render, clock), hub, clock, always)]) == 1


async def test_a_new_device_arrives_over_the_stream(address: str, world: Any) -> None:
    headers = {"Authorization": f"Bearer {world.tokens['viewer']}"}
    async with (
        httpx2.AsyncClient(base_url=address, headers=headers, timeout=20) as client,
        client.stream("GET", "/ui/stream/fleet") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        chunks = answer.aiter_text()
        first = events(await until(chunks, "event: beat"))
        assert "No device has enrolled yet" in first[0][1]
        await world.add(world.device("cam-900"))
        later = events(await until(chunks, "d-cam-900"))
        html = next(data for _, data in later if "d-cam-900" in data)
        assert 'hx-target="#devices"' in html
        assert 'hx-target="#alerts"' not in html  # it did not change


async def test_the_chart_of_a_rollout_travels_as_numbers(address: str, world: Any) -> None:
    await world.campus()
    headers = {"Authorization": f"Bearer {world.tokens['viewer']}"}
    async with (
        httpx2.AsyncClient(base_url=address, headers=headers, timeout=20) as client,
        client.stream("GET", "/ui/stream/rollouts/ro-7f3k") as answer,
    ):
        found = events(await until(answer.aiter_text(), "event: beat"))
    chart = json.loads(next(data for name, data in found if name == "chart"))
    assert len(chart["t"]) == len(chart["new"]) == len(chart["old"]) > 20
    assert chart["limit"] is None  # 1000 ms is far above what was measured


async def test_a_revoked_token_ends_the_stream(address: str, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WELCOME_SECONDS", 0.2)
    headers = {"Authorization": f"Bearer {world.tokens['viewer']}"}
    async with (
        httpx2.AsyncClient(base_url=address, headers=headers, timeout=20) as client,
        client.stream("GET", "/ui/stream/fleet") as answer,
    ):
        chunks = answer.aiter_text()
        await until(chunks, "event: beat")
        async with world.manager.database.write() as tx:
            from fleet.store import tables

            token = await tx.get(tables.Token, "to-viewer")
            token.revoked_at = world.now
        world.manager.hub.wake()
        with anyio.fail_after(20):
            async for _ in chunks:
                pass
        assert (await client.get("/ui/stream/fleet")).status_code == 401
