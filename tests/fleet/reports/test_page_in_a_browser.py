"""The page as people open it: from a disk, without a network, in a real browser."""

import shutil
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from fleet.reports import html
from tests.fleet.dashboard.test_browser import ARGUMENTS, AXE, RULES
from tests.fleet.reports.made import HOSTILE, report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (make system-deps)")


async def test_page_opens_offline_asks_for_nothing_and_is_accessible_in_both_themes(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(html.render(report(4, name=HOSTILE)))  # a small file
    asked: list[str] = []
    said: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for theme, width in (("light", 1200), ("dark", 390)):
            context = await browser.new_context(
                color_scheme=theme, viewport={"width": width, "height": 900}, offline=True
            )
            page = await context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.on("dialog", lambda dialog: said.append(dialog.message))
            await page.goto(file.as_uri())
            await page.evaluate(AXE.read_text())
            found = await page.evaluate(RULES)
            assert [f"{it['id']}: {it['nodes'][0]['html'][:160]}" for it in found["violations"]] == []
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert await page.locator("article.feature svg").count() == 8
        await browser.close()
    assert asked == [file.as_uri()] * 2
    assert said == []
