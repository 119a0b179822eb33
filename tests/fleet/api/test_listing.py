"""Every list of the API takes filter, order, limit and cursor."""

import httpx2
import pytest

from fleet.api.app import ROUTERS
from fleet.api.listing import is_list
from fleet.parts import Manager
from fleet.store import events

WORDS = ("filter", "order", "limit", "cursor")


@pytest.fixture
async def tokens(admin: httpx2.AsyncClient) -> None:
    for number in range(7):
        body = {"name": f"ci-{number}", "role": "viewer" if number % 2 else "operator"}
        assert (await admin.post("/api/v1/tokens", json=body)).status_code == 201


async def names(client: httpx2.AsyncClient, **params: object) -> list[str]:
    answer = await client.get("/api/v1/tokens", params=params)
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


async def test_every_list_says_in_its_description_what_it_takes(admin) -> None:
    paths = (await admin.get("/api/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        if is_list(path):
            taken = {one["name"] for one in methods["get"]["parameters"] if one["in"] == "query"}
            assert taken >= set(WORDS), path
    assert sum(is_list(path) for path in paths) == 18


async def test_every_list_answers_what_nobody_can_read_with_its_place(admin, manager: Manager) -> None:
    """Also an empty list: nothing is quietly left out."""
    for router in ROUTERS:
        for route in router.routes:
            path = getattr(route, "path", "")
            if not is_list(path) or "{" in path:
                continue
            for params in ({"filter": "(a:b"}, {"limit": "0"}, {"limit": "many", "filter": "a"}, {"cursor": "x!"}):
                answer = await admin.get(path, params=params)
                assert answer.status_code == 422, (path, params, answer.text)
                assert answer.json()["request_id"]
            assert (await admin.get(path, params={"filter": "zzz*", "limit": 5})).json()["items"] == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("role:viewer", ["ci-1", "ci-3", "ci-5"]),
        ("role:operator not ci-4", ["ci-0", "ci-2", "ci-6"]),
        ("name:ci-* (name:ci-1 or name:ci-2)", ["ci-1", "ci-2"]),
        ("admin", ["admin"]),
        ("person:x", []),
    ],
)
async def test_a_list_is_filtered_by_its_fields(admin, tokens, wanted: str, expected: list[str]) -> None:
    assert sorted(await names(admin, filter=wanted)) == expected


async def test_a_field_that_no_item_has_is_named_with_those_that_there_are(admin, tokens) -> None:
    answer = await admin.get("/api/v1/tokens", params={"filter": "colour:red"})
    assert (answer.status_code, answer.json()["code"]) == (422, "E_FILTER")
    assert "'colour'" in answer.json()["detail"]
    assert "role" in answer.json()["hint"]
    answer = await admin.get("/api/v1/tokens", params={"order": "-colour"})
    assert (answer.status_code, answer.json()["code"]) == (422, "E_BAD_INPUT")
    assert "role" in answer.json()["hint"]


async def test_a_list_is_ordered_by_any_field_up_and_down(admin, tokens) -> None:
    up = await names(admin, order="name")
    assert up == sorted(up)
    assert await names(admin, order="-name") == up[::-1]
    assert {*(await names(admin, order="-role", limit=3))} == {"ci-1", "ci-3", "ci-5"}


@pytest.mark.parametrize("asked", [{"filter": "ci-"}, {"order": "name"}, {"filter": "ci-", "order": "-name"}])
async def test_pages_of_what_was_asked_show_everything_once(admin, tokens, asked: dict[str, str]) -> None:
    whole = await names(admin, **asked, limit=500)
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        page = await admin.get("/api/v1/tokens", params=asked | {"limit": 2} | ({"cursor": cursor} if cursor else {}))
        seen += [item["name"] for item in page.json()["items"]]
        if not (cursor := page.json()["next_cursor"]):
            break
    assert seen == whole
    assert len(whole) >= 7


async def test_a_filter_looks_beyond_the_first_page_of_a_long_list(admin, manager: Manager) -> None:
    async with manager.database.write() as tx:
        for number in range(1203):
            kind = "alert" if number % 400 == 0 else "device"
            await events.add(
                tx, kind=kind, level="info", subject=f"cam-{number}", text=f"line {number}", now=manager.clock.now()
            )
    asked = {"filter": "kind:alert", "limit": 2}
    first = (await admin.get("/api/v1/events", params=asked)).json()
    assert [one["subject"] for one in first["items"]] == ["cam-1200", "cam-800"]
    second = (await admin.get("/api/v1/events", params=asked | {"cursor": first["next_cursor"]})).json()
    assert [one["subject"] for one in second["items"]] == ["cam-400", "cam-0"]
    assert second["next_cursor"] is None
    oldest = (await admin.get("/api/v1/events", params={"order": "sequence", "limit": 1})).json()["items"]
    assert oldest[0]["sequence"] < first["items"][0]["sequence"]


async def test_what_comes_as_csv_is_filtered_too_and_strangers_see_nothing(admin, tokens, strangers) -> None:
    answer = await admin.get("/api/v1/tokens", params={"filter": "ci-6"}, headers={"Accept": "text/csv"})
    assert answer.text.splitlines()[1].split(",")[1] == "ci-6"
    assert len(answer.text.splitlines()) == 2
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer nonsense"}):
        assert (await strangers.get("/api/v1/tokens?filter=ci-6", headers=headers)).status_code == 401


async def test_lists_without_pages_of_their_own_have_pages(admin) -> None:
    whole = (await admin.get("/api/v1/channels")).json()["items"]
    first = (await admin.get("/api/v1/channels?limit=1")).json()
    assert first["items"] == whole[:1]
    rest = (await admin.get("/api/v1/channels", params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert rest == {"items": whole[1:2], "next_cursor": None}


async def test_aliases_of_a_model_that_there_is_not_are_not_found(admin) -> None:
    answer = await admin.get("/api/v1/models/nothing/aliases")
    assert (answer.status_code, answer.json()["code"]) == (404, "E_NOT_FOUND")
