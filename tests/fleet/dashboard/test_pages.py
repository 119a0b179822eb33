"""Pages as a browser without scripts gets them: content, escaping, headers, who may see what."""

import hashlib
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fleet.dashboard import page as page_module
from fleet.rollouts.states import State

EVIL = "<script>alert(1)</script>"


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("path", "command"),
    [("/fleet", "flotilla device invite --site SITE"), ("/rollouts", "flotilla rollout start NAME@VERSION")],
)
async def test_an_empty_page_says_what_to_type(client: httpx2.AsyncClient, path: str, command: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert command in page.text


async def test_three_devices(client: httpx2.AsyncClient, world: Any) -> None:
    rows = [world.device(f"cam-{n}", site="", slots=[], serving={}) for n in range(3)]
    await world.add(*rows)
    page = plain((await client.get("/fleet")).text)
    assert page.count('<tr id="d-cam-') == 3
    assert "3 devices" in page
    assert "No device serves a model yet." in page
    assert ">CPU<" not in page  # nobody reported one: no column, no invented value
    assert ">GPU<" not in page


async def test_a_whole_campus(client: httpx2.AsyncClient, world: Any) -> None:
    await world.campus()
    page = plain((await client.get("/fleet")).text)
    assert page.count('<tr id="d-cam-') == 48
    assert page.index('id="d-cam-031"') < page.index('id="d-cam-027"') < page.index('id="d-cam-020"')
    assert "2 offline at 2 sites" in page
    assert ">CPU<" in page
    assert ">GPU<" not in page
    listed = plain((await client.get("/rollouts")).text)
    assert "7 of 46" in listed
    shown = plain((await client.get("/rollouts/ro-7f3k")).text)
    assert "7 of 46 devices (15 %), started by m.okafor 49 min ago" in shown
    assert "8.2 of 11.4 MB" in shown
    assert "flotilla rollout watch ro-7f3k" in shown
    assert 'data-post="/api/v1/rollouts/ro-7f3k/pause"' in shown
    assert "PSI 0.06, limit 0.20" in shown
    other = plain((await client.get("/rollouts/ro-7f3k?feature=input.contrast")).text)
    assert "PSI 0.03, limit 0.20" in other


@pytest.mark.parametrize("state", [State.ROLLED_BACK, State.ABORTED, State.FAILED, State.ROLLING_BACK, State.PAUSED])
async def test_an_unhappy_rollout_shows_its_reason_first(client: httpx2.AsyncClient, world: Any, state: State) -> None:
    await world.add(world.device("cam-1"), world.rollout(state, "cam-1: E_PROBATION_ACCURACY"))
    await world.add(world.deployment("cam-1", 0, "rolled-back", reason="E_PROBATION_ACCURACY"))
    page = (await client.get("/rollouts/ro-7f3k")).text
    assert page.index("cam-1: E_PROBATION_ACCURACY") < page.index('id="stages"')


async def test_a_completed_rollout_has_no_banner(client: httpx2.AsyncClient, world: Any) -> None:
    await world.add(world.device("cam-1"), world.rollout(State.COMPLETED, wave=3))
    await world.add(world.deployment("cam-1", 0, "committed"))
    page = (await client.get("/rollouts/ro-7f3k")).text
    assert 'class="banner' not in page
    assert 'id="do-rollback"' in page
    assert 'id="do-pause"' not in page


async def test_what_a_device_says_is_only_ever_text(client: httpx2.AsyncClient, world: Any) -> None:
    slots = [{"slot": "a", "state": EVIL, "model": EVIL, "version": EVIL}]
    await world.add(
        world.device(
            "cam-1", name=EVIL, site=EVIL, hardware=EVIL, labels={EVIL: EVIL}, slots=slots, serving={EVIL: EVIL}
        ),
        world.rollout(State.PAUSED, EVIL),
        world.deployment("cam-1", 0, "refused", reason=EVIL, detail=EVIL, previous=EVIL),
        world.drift("device:cam-1", "2.5.0", EVIL, 0.4, "drifted"),
        world.alert("al-1", "high", "device:cam-1", EVIL),
        world.event(5, "crit", EVIL, EVIL, "ro-7f3k"),
        world.window("cam-1", 100, version="2.5.0"),
    )
    for path in ("/fleet", "/rollouts", "/rollouts/ro-7f3k", f"/rollouts/ro-7f3k?feature={EVIL}", f"/rollouts/{EVIL}"):
        text = (await client.get(path)).text
        assert "<script>alert" not in text, path
        assert not re.search(r"\son\w+=", text), path
    assert "&lt;script&gt;" in (await client.get("/fleet")).text


async def test_headers_allow_nothing_inline_and_pages_have_nothing_inline(
    client: httpx2.AsyncClient, world: Any
) -> None:
    await world.campus()
    for path in ("/fleet", "/rollouts", "/rollouts/ro-7f3k", "/rollouts/ro-none"):
        page = await client.get(path)
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert not re.search(r'\sstyle="|<style|<script(?![^>]*\ssrc=)|https?://(?!fleet\.campus)', page.text), path
        assert page.headers["cache-control"] == "no-store"


async def test_strangers_sign_in_first_and_come_back(client: httpx2.AsyncClient) -> None:
    del client.headers["Authorization"]
    page = await client.get("/rollouts/ro-1?feature=x")
    assert page.status_code == 303
    assert page.headers["location"] == "/login?next=%2Frollouts%2Fro-1%3Ffeature%3Dx"
    assert (await client.get("/ui/stream/fleet")).status_code == 401
    assert (await client.get("/")).headers["location"] == "/fleet"


async def test_a_viewer_sees_buttons_that_say_why_they_are_off(client: httpx2.AsyncClient, world: Any) -> None:
    await world.campus()
    client.headers["Authorization"] = f"Bearer {world.tokens['viewer']}"
    page = (await client.get("/rollouts/ro-7f3k")).text
    assert re.search(r'id="do-pause"[^>]*title="the role viewer may only look[^>]*disabled', page)
    assert re.search(r"<button[^>]*al-1/ack[^>]*disabled", (await client.get("/fleet")).text)


async def test_an_unknown_rollout(client: httpx2.AsyncClient) -> None:
    page = await client.get("/rollouts/ro-none")
    assert page.status_code == 404
    assert "flotilla rollout list" in page.text


def test_vendored_files_are_the_ones_on_the_list() -> None:
    folder = page_module.HERE / "static" / "vendor"
    listed = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {path.name for path in folder.iterdir()} - {"SHA256SUMS", "LICENSES.txt"}
    assert files == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert name in (folder / "LICENSES.txt").read_text()


async def test_every_file_that_a_page_names_is_served(client: httpx2.AsyncClient, world: Any) -> None:
    await world.add(world.rollout())
    named = {
        found
        for path in ("/fleet", "/rollouts/ro-7f3k")
        for found in re.findall(r'(?:src|href)="(/static/[^"]+)"', (await client.get(path)).text)
    }
    sheet = (page_module.HERE / "static" / "app.css").read_text()
    named |= {f"/static/{found}" for found in re.findall(r"url\(([^)]+)\)", sheet)}
    assert len(named) > 8
    for path in named:
        assert (await client.get(path)).status_code == 200, path


def test_every_template_is_used() -> None:
    folder = Path(page_module.HERE)
    text = "".join(
        path.read_text() for path in [*folder.glob("*.py"), *folder.glob("templates/*"), folder.parent / "api/login.py"]
    )
    for path in folder.glob("templates/*"):
        assert f'"{path.name}"' in text, path.name


async def test_pages_without_an_echo_and_files_are_compressed_and_nothing_else_is(
    client: httpx2.AsyncClient, world: Any
) -> None:
    await world.campus()
    for path in ("/fleet", "/rollouts", "/static/app.css", "/static/vendor/uplot.min.js"):
        answer = await client.get(path)
        assert answer.headers["content-encoding"] == "gzip", path
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers, path
        assert len(plain.content) == len(answer.content), path
    for path in ("/drift", "/rollouts/ro-7f3k?feature=x", "/api/v1/devices", "/static/vendor/inter.woff2"):
        assert "content-encoding" not in (await client.get(path)).headers, path
