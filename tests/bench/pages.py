"""The dashboard in a real browser, headless Chromium, with 1,000 and 10,000 devices in the database.

    bytes         that a first visit loads: page, style, scripts, fonts, as they cross the wire
    first paint   of the page's own content, from the click
    interactive   the page is loaded and its live stream is up

python -m tests.bench.pages [--quick] [--json]

The manager is a process of its own, with a release, a rollout, drift and two hours of telemetry of each device; browser
and manager share this machine. Medians of several visits with an empty cache. Goals: first paint in 1.8 s, interactive
in 3.8 s (web.dev's limits of `good`), 40 KB of scripts. `--quick`: 1,000 devices, fewer visits.
"""

import asyncio
import logging
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from fleet.demo import training
from fleet.demo.household import MANAGER_SETTINGS, Household
from fleet.demo.operator import Operator
from fleet.rollouts import saved
from fleet.rollouts.states import Rollout, State, Wave
from fleet.store import tables
from fleet.store.database import Database
from tests.bench.document import Result, arguments, tell
from tests.fleet.dashboard.test_browser import ARGUMENTS

SIZES = (1_000, 10_000)
ROLLOUT = "ro-bench"
PAGES = ("/fleet", "/rollouts", f"/rollouts/{ROLLOUT}", "/drift")
FIRST_PAINT_MS = 1800.0
INTERACTIVE_MS = 3800.0
SCRIPT_BYTES = 40 * 1024
PATIENCE_MS = 60_000
MODEL = "digits"
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


@dataclass
class Visit:
    """What one visit took."""

    bytes_of: dict[str, int] = field(default_factory=dict)  # by kind of resource
    paint_ms: float = 0.0
    interactive_ms: float = 0.0


def main() -> int:
    chosen = arguments("dashboard pages")
    logging.disable(logging.INFO)
    if shutil.which("chromium") is None:
        raise SystemExit("this needs chromium: make system-deps")
    sizes, visits = (SIZES[:1], 2) if chosen.quick else (SIZES, 3)
    results: list[Result] = []
    for size in sizes:
        folder = Path(tempfile.mkdtemp(prefix="flotilla-pages-"))
        try:
            results += asyncio.run(_measured(folder, size, visits))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return tell("pages", results, as_json=chosen.json)


async def _measured(folder: Path, size: int, visits: int) -> list[Result]:
    household = Household(folder, settings={**MANAGER_SETTINGS, "deployment": {"heartbeat_interval_seconds": 3600}})
    try:
        url, token = await asyncio.to_thread(household.start_manager)
        await asyncio.to_thread(_published, folder, url, token)
        await _filled(household.manager_folder / "fleet.sqlite", size)
        household.kill("fleet")
        url, token = await asyncio.to_thread(household.start_manager)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
            found = {path: [await _visit(browser, url, token, path) for _ in range(visits)] for path in PAGES}
            await browser.close()
    finally:
        await asyncio.to_thread(household.stop)
    return list(_told(size, found))


def _told(size: int, found: dict[str, list[Visit]]) -> Iterator[Result]:
    scripts = 0
    for path, visits in found.items():
        name = f"{size} devices, {path.replace(ROLLOUT, 'ID')}"
        first = visits[0].bytes_of
        scripts = max(scripts, first.get("Script", 0))
        yield Result(f"{name}: page", first.get("Document", 0) / 1024, "KiB")
        yield Result(f"{name}: all", sum(first.values()) / 1024, "KiB")
        paint = statistics.median(visit.paint_ms for visit in visits)
        yield Result(f"{name}: first paint", paint, "ms", FIRST_PAINT_MS)
        ready = statistics.median(visit.interactive_ms for visit in visits)
        yield Result(f"{name}: interactive", ready, "ms", INTERACTIVE_MS)
    yield Result(f"{size} devices: scripts", scripts / 1024, "KiB", SCRIPT_BYTES / 1024)


async def _visit(browser: Browser, url: str, token: str, path: str) -> Visit:
    """With an empty cache, by somebody who is signed in."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    await page.goto(f"{url}/login?token={token}&next=/api/docs")
    await page.close()
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    visit = Visit()
    await _count(page, visit)
    began = asyncio.get_running_loop().time()
    await page.goto(f"{url}{path}", wait_until="load")
    await page.wait_for_selector("#live[data-s=up]")
    visit.interactive_ms = 1000 * (asyncio.get_running_loop().time() - began)
    visit.paint_ms = float(await page.evaluate(_PAINT) or visit.interactive_ms)
    await context.close()
    return visit


async def _count(page: Page, visit: Visit) -> None:
    wire = await page.context.new_cdp_session(page)
    kinds: dict[str, str] = {}
    await wire.send("Network.enable")
    await wire.send("Network.setCacheDisabled", {"cacheDisabled": True})
    wire.on("Network.responseReceived", lambda said: kinds.update({said["requestId"]: said["type"]}))

    def finished(said: dict[str, Any]) -> None:
        kind = kinds.get(said["requestId"], "Other")
        visit.bytes_of[kind] = visit.bytes_of.get(kind, 0) + int(said["encodedDataLength"])

    wire.on("Network.loadingFinished", finished)


def _published(folder: Path, url: str, token: str) -> None:
    import numpy as np

    operator, digits = Operator(url=url, token=token, keys=folder / "keys", show=lambda _: None), training.load()
    (folder / "model.onnx").write_bytes(training.train(digits.train, hidden=16, rounds=20, seed=1))
    np.savez(folder / "data.npz", images=digits.reference.images, y=digits.reference.labels)
    operator.asks("init")
    operator.asks(
        "model", "publish", MODEL, "1.0.0", str(folder / "model.onnx"), "--reference", str(folder / "data.npz")
    )


async def _filled(path: Path, size: int) -> None:
    now = datetime.now(UTC)
    database = Database(f"sqlite+aiosqlite:///{path}")
    await database.open()
    async with database.write() as tx:
        tx.add_all(_device(f"cam-{number:05}", number, now) for number in range(size))
        tx.add(_rollout(size, now))
        await tx.flush()
        tx.add_all(_deployment(f"cam-{number:05}", number, now) for number in range(size))
        tx.add_all(_window(f"cam-{number:05}", late, now) for number in range(size) for late in range(4))
        tx.add_all(_drift(f"device:cam-{number:05}", now) for number in range(size))
        tx.add(_drift("fleet", now))
    await database.close()


def _device(name: str, number: int, now: datetime) -> tables.Device:
    slots = [{"slot": "a", "state": "good", "model": MODEL, "version": "1.0.0"}]
    return tables.Device(
        id=name, name=name, site=f"Hall {number % 40}", labels={}, hardware=("orin-nano-8g", "x86_64")[number % 2],
        lifecycle="active", sign_key=b"s" * 32, box_key=b"b" * 32, api_key_hash=name, enrolled_at=now, online=True,
        seen_at=now, slots=slots, serving={MODEL: "1.0.0"},
    )  # fmt: skip


def _rollout(size: int, now: datetime) -> tables.Rollout:
    waves = (Wave("Canary", "5 %", size // 20), Wave("Fleet", "100 %", size - size // 20))
    body = Rollout(id=ROLLOUT, model=MODEL, version="1.0.0", strategy="canary", waves=waves, since=now, wave=1,
                   state=State.COMPLETED)  # fmt: skip
    return tables.Rollout(
        id=ROLLOUT, model=MODEL, version="1.0.0", strategy="canary", state="completed", body=saved.to_json(body),
        created_by="ana", created_at=now, updated_at=now,
    )  # fmt: skip


def _deployment(name: str, number: int, now: datetime) -> tables.Deployment:
    return tables.Deployment(
        rollout_id=ROLLOUT, device_id=name, wave=int(number % 20 != 0), state="committed", since=now, told_at=now,
        assignment=1,
    )  # fmt: skip


def _window(name: str, late: int, now: datetime) -> tables.Window:
    end = now - timedelta(minutes=30 * late)
    said = {
        "type": "telemetry-window/1", "device": name, "stream": "s1", "sequence": 9 - late, "at": end.isoformat(),
        "boot": "b1", "model": MODEL, "version": "1.0.0", "manifest": "0" * 64, "phase": "serving",
        "start": (end - timedelta(minutes=1)).isoformat(), "end": end.isoformat(), "requests": 60,
        "latency": {"80": 40, "90": 20}, "host": {"cpu_ratio": 0.4, "temperature_celsius": 51.0},
    }  # fmt: skip
    return tables.Window(
        device_id=name, stream="s1", sequence=9 - late, model=MODEL, version="1.0.0", start=end - timedelta(minutes=1),
        end=end, received_at=end, requests=60, failed=0, body=said, counted=True,
    )  # fmt: skip


def _drift(scope: str, now: datetime) -> tables.DriftState:
    body = {
        "psi": 0.06, "psi_corrected": 0.05, "ks": 0.03, "jsd": 0.002, "kl": 0.02, "p": 0.41,
        "edges": [i / 16 for i in range(1, 18)], "kind": "quantity", "reference": [100] * 18, "counts": [50] * 18,
        "text": "as usual", "group": "input", "history": [0.05] * 5,
    }  # fmt: skip
    return tables.DriftState(
        scope=scope, model=MODEL, version="1.0.0", feature="input.brightness", state="ok", samples=1800, body=body,
        since=now, updated_at=now,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
