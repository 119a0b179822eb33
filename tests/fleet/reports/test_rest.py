"""`GET /drift/report` of a real manager."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest

from fleet.parts import Manager
from fleet.store import tables
from fleet.telemetry.vectors import pack
from shared.sketches import Baseline
from tests.fleet.reports.made import layout
from tests.fleet.telemetry.test_performance_driver import manifest
from tests.fleet.telemetry.world import FEATURE, T0

PATH = "/api/v1/drift/report"


@pytest.fixture
async def viewer(manager: Manager, strangers: httpx2.AsyncClient, token_for: Any, enrolled: Any) -> httpx2.AsyncClient:
    """A client that may look, and two days of one device."""
    await enrolled("cam-1", serving={"digits": "1.0.0"}, site="hall 3")
    baseline = Baseline(model="digits", version="1.0.0", samples=2000, features=(FEATURE,))
    today = manager.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    async with manager.database.write() as tx:
        tx.add(
            tables.Release(
                model="digits", version="1.0.0", counter=1, manifest_digest="1", manifest=manifest(), escrow_key="",
                baseline=baseline.model_dump(mode="json"), published_by="ana", published_at=T0,
            )
        )  # fmt: skip
        counts = layout(2).vector[: len(FEATURE.counts) + 1] * 0
        counts[: len(FEATURE.counts)] = FEATURE.counts
        for day in (0, 1):
            tx.add(
                tables.Sketch(
                    device_id="cam-1", model="digits", version="1.0.0", span="day",
                    start=today - timedelta(days=day), vector=pack(counts),
                )
            )  # fmt: skip
    strangers.headers["Authorization"] = f"Bearer {await token_for('viewer')}"
    return strangers


async def test_every_format_comes_as_a_file_that_runs_nothing(viewer: httpx2.AsyncClient) -> None:
    for kind, media, begin in (
        ("html", "text/html", b"<!doctype html>"),
        ("json", "application/json", b"{"),
        ("pdf", "application/pdf", b"%PDF"),
    ):
        answer = await viewer.get(PATH, params={"model": "digits", "format": kind})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith(media)
        assert answer.content.lstrip().startswith(begin)
        assert f'.{kind}"' in answer.headers["content-disposition"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_scope_and_time_can_be_chosen(viewer: httpx2.AsyncClient) -> None:
    asked = {"model": "digits", "format": "json", "since": "4d"}
    whole = (await viewer.get(PATH, params=asked)).json()
    assert (whole["scope"], whole["level"], len(whole["columns"])) == ("fleet", "good", 5)
    assert whole["features"][0]["numbers"][0]["value"] == 4000
    site = (await viewer.get(PATH, params={**asked, "site": "hall 3"})).json()
    assert site["scope"] == "site:hall 3"
    assert (await viewer.get(PATH, params={**asked, "device": "cam-1"})).json()["scope"] == "device:cam-1"


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"model": "faces"}, 404, "E_NOT_FOUND"),
        ({"model": "digits", "version": "9"}, 404, "E_NOT_FOUND"),
        ({"model": "digits", "device": "cam-9"}, 404, "E_NOT_FOUND"),
        ({"model": "digits", "since": "soon"}, 422, "E_REPORT_SPAN"),
        ({"model": "digits", "site": "hall 3", "device": "cam-1"}, 422, "E_REPORT_SPAN"),
        ({"model": "digits", "since": "1h"}, 404, "E_REPORT_EMPTY"),
    ],
)
async def test_what_cannot_be_reported_is_a_problem_with_a_remedy(
    viewer: httpx2.AsyncClient, asked: dict[str, str], status: int, code: str
) -> None:
    answer = await viewer.get(PATH, params=asked)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]


async def test_strangers_get_none_and_a_model_called_report_is_still_shown(
    viewer: httpx2.AsyncClient, manager: Manager
) -> None:
    assert (await viewer.get(PATH)).json()["model"] == "report"
    del viewer.headers["Authorization"]
    assert (await viewer.get(PATH, params={"model": "digits"})).status_code == 401
