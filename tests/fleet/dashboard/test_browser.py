"""The pages in a real browser: accessible, quiet, live, and kind to what was typed. Chromium's own features are off."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (make system-deps)")

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
AXE = Path(__file__).parent / "assets" / "axe.min.js"
RULES = "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']})"
LIVE = "#live[data-s=up]"
PATIENCE_MS = 30_000  # a small machine that runs other tests as well


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield made
        await made.close()


class Visit:
    """One signed-in page, and everything that its console said."""

    def __init__(self, page: Page, complaints: list[str]) -> None:
        self.page, self.complaints = page, complaints

    async def violations(self) -> list[str]:
        await self.page.evaluate(AXE.read_text())
        found = await self.page.evaluate(RULES)
        return [f"{one['id']}: {one['nodes'][0]['html'][:160]}" for one in found["violations"]]


async def visit(browser: Browser, url: str, token: str, *, theme: Any = "light", width: int = 1440) -> Visit:
    context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = await context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    address, path = url.rsplit("|", 1)
    await page.goto(f"{address}/login?token={token}&next={path}")
    await page.wait_for_selector(LIVE)
    return Visit(page, complaints)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_pages_are_accessible_and_quiet(browser: Browser, address: str, world: Any, theme: str) -> None:
    await world.campus()
    for path, width in (
        ("/fleet", 1440),
        ("/rollouts", 1440),
        ("/rollouts/ro-7f3k", 1440),
        ("/drift", 1440),
        ("/fleet", 390),
    ):
        found = await visit(browser, f"{address}|{path}", world.tokens["operator"], theme=theme, width=width)
        assert await found.violations() == [], (path, width)
        assert found.complaints == [], (path, width)
        assert await found.page.evaluate("document.documentElement.scrollWidth") <= width
        await found.page.context.close()


async def test_sign_in_and_dialogs_are_accessible(browser: Browser, address: str, world: Any) -> None:
    await world.campus()
    found = await visit(browser, f"{address}|/rollouts/ro-7f3k", world.tokens["operator"])
    await found.page.click("#do-rollback")
    await expect(found.page.locator("#ask-rollback")).to_contain_text("7\N{NO-BREAK SPACE}devices go back to 2.4.0")
    assert await found.violations() == []
    await found.page.keyboard.press("Escape")
    await found.page.keyboard.press("?")
    await expect(found.page.locator("#keys")).to_be_visible()
    assert await found.violations() == []
    await found.page.goto(f"{address}/fleet#enrol")
    await expect(found.page.locator("#enrol")).to_be_visible()
    assert await found.page.evaluate(
        "document.getElementById('enrol').scrollWidth <= document.getElementById('enrol').clientWidth"
    )
    assert await found.violations() == []
    await found.page.goto(f"{address}/login")
    assert await found.violations() == []
    assert found.complaints == []


async def test_filter_and_focus_survive_updates(browser: Browser, address: str, world: Any) -> None:
    await world.campus()
    found = await visit(browser, f"{address}|/fleet", world.tokens["viewer"])
    page = found.page
    await page.keyboard.press("/")
    await page.keyboard.type("cam-03")
    await expect(page.locator("#shown")).to_have_text("10 of 10, worst first")
    await world.add(world.device("cam-039-new"), world.event(0, "ok", "cam-039-new", "enrolled"))
    await expect(page.locator("#shown")).to_have_text("11 of 11, worst first", timeout=PATIENCE_MS)
    assert await page.input_value("#q") == "cam-03"
    assert await page.evaluate("document.activeElement.id") == "q"
    assert await page.locator("#rows > tr:visible").count() == 11
    await expect(page.locator("#feed")).to_contain_text("enrolled")
    await page.keyboard.press("Escape")
    await page.click("[data-view=attention]")
    await expect(page.locator("#shown")).to_have_text("5 of 5, worst first")
    await page.fill("#q", "psi>0.2")
    await expect(page.locator("#shown")).to_have_text("1 of 1, worst first")
    assert found.complaints == []


async def test_keys_and_palette(browser: Browser, address: str, world: Any) -> None:
    await world.campus()
    found = await visit(browser, f"{address}|/fleet", world.tokens["viewer"])
    page = found.page
    await page.keyboard.press("t")
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    await page.keyboard.press("Control+k")
    await page.keyboard.type("ro-7f")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/rollouts/ro-7f3k")
    await page.wait_for_selector("#chart canvas")
    await page.keyboard.press("g")
    await page.keyboard.press("f")
    await page.wait_for_url("**/fleet")
    assert found.complaints == []


async def test_acknowledging_and_silencing_go_through_the_api(browser: Browser, address: str, world: Any) -> None:
    await world.campus()
    found = await visit(browser, f"{address}|/fleet", world.tokens["operator"])
    await found.page.click("#a-al-1 button")
    await expect(found.page.locator("#a-al-1")).to_contain_text("seen by m.okafor", timeout=PATIENCE_MS)
    async with found.page.expect_response("**/api/v1/silences") as answer:
        await found.page.click("#a-al-2 button[aria-label^=Silence]")
    assert (await (await answer.value).json())["matcher"]["scope"] == "device:cam-027"
    assert found.complaints == []


async def test_pausing_goes_through_the_api_and_a_refusal_is_told(browser: Browser, address: str, world: Any) -> None:
    await world.campus()
    found = await visit(browser, f"{address}|/rollouts/ro-7f3k", world.tokens["operator"])
    await found.page.click("#do-pause")
    await expect(found.page.locator("#ro-head .pill")).to_have_text("Paused", timeout=PATIENCE_MS)
    await expect(found.page.locator("#do-resume")).to_be_visible()
    await found.page.evaluate("document.querySelector('meta[name=csrf-token]').content = 'wrong'")
    await found.page.click("#do-resume")
    await expect(found.page.locator("#toast")).to_contain_text("CSRF")
    await expect(found.page.locator("#ro-head .pill")).to_have_text("Paused")


async def test_the_badge_says_when_the_manager_is_gone(browser: Browser, address: str, world: Any) -> None:
    found = await visit(browser, f"{address}|/fleet", world.tokens["viewer"])
    await found.page.context.set_offline(True)
    await found.page.evaluate("document.getElementById('stream')._htmx.sse.reader.cancel()")
    await expect(found.page.locator("#live")).to_have_attribute("data-s", "down", timeout=PATIENCE_MS)
    await expect(found.page.locator("#live")).to_contain_text("Reconnecting")
    await found.page.context.set_offline(False)
    await expect(found.page.locator("#live")).to_have_attribute("data-s", "up", timeout=PATIENCE_MS)
