"""The rules of the REST API: problems, pages, filters, CSV, repeated requests, streams."""

import asyncio
import csv
import io
import json
import socket

import httpx2
import pytest

from fleet.api.events import follow
from fleet.parts import Manager
from fleet.store import events
from fleet.store.tables import Device

INVITE = {"uses": 2, "site": "hall"}


@pytest.fixture
async def fleet(enrolled) -> None:
    for number in range(7):
        await enrolled(
            f"cam-{number}",
            site="hall" if number % 2 else "yard",
            name=f"Camera {number}",
            online=number > 3,
            labels={"line": str(number % 3)},
            serving={"digits": "1.0.0" if number < 5 else "1.1.0"},
        )


async def ids(client: httpx2.AsyncClient, **params: object) -> list[str]:
    answer = await client.get("/api/v1/devices", params=params)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


@pytest.mark.parametrize("order", ["id", "-id", "name", "-name", "site", "-site", "enrolled_at", "-seen_at", "seen_at"])
async def test_pages_show_everything_once(admin, fleet, order: str) -> None:
    whole = await ids(admin, order=order, limit=500)
    assert sorted(whole) == [f"cam-{number}" for number in range(7)]
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        page = (
            await admin.get(
                "/api/v1/devices", params={"order": order, "limit": 2} | ({"cursor": cursor} if cursor else {})
            )
        ).json()
        seen += [item["id"] for item in page["items"]]
        if not (cursor := page["next_cursor"]):
            break
    assert seen == whole


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("site:hall", ["cam-1", "cam-3", "cam-5"]),
        ("site:hall online:true", ["cam-5"]),
        ("online:false label.line:0", ["cam-0", "cam-3"]),
        ("serving.digits:1.1.0", ["cam-5", "cam-6"]),
        ("serving.digits:1.1.*", ["cam-5", "cam-6"]),
        ("cam-2", ["cam-2"]),
        ("id:cam-* site:y*", ["cam-0", "cam-2", "cam-4", "cam-6"]),
        ("name:100%", []),
        ("_", []),
        ("lifecycle:pending", []),
    ],
)
async def test_filters(admin, fleet, wanted: str, expected: list[str]) -> None:
    assert await ids(admin, filter=wanted) == expected


@pytest.mark.parametrize("wanted", ["colour:red", "online:maybe", "label.a'b:1", "(site:hall"])
async def test_a_filter_that_cannot_be_read_shows_the_place(admin, wanted: str) -> None:
    answer = await admin.get("/api/v1/devices", params={"filter": wanted})
    assert (answer.status_code, answer.json()["code"]) == (422, "E_FILTER")
    assert "⟶" in answer.json()["detail"]


@pytest.mark.parametrize(
    "params",
    [
        {"order": "api_key_hash"},
        {"cursor": "nonsense"},
        {"cursor": "WzFd"},
        {"cursor": "e30"},
        {"cursor": "WzEsMl0", "order": "seen_at"},
        {"limit": 0},
        {"limit": 501},
    ],
)
async def test_a_bad_question_is_explained(admin, params: dict[str, object]) -> None:
    answer = await admin.get("/api/v1/devices", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "E_BAD_INPUT")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_problem_says_what_why_and_what_next(admin) -> None:
    answer = await admin.get("/api/v1/devices/nobody", headers={"X-Request-Id": "abc-1"})
    assert answer.status_code == 404
    assert answer.json() == {
        "type": "urn:flotilla:problem:E_NOT_FOUND",
        "code": "E_NOT_FOUND",
        "title": "Not found",
        "status": 404,
        "detail": "there is no device 'nobody'",
        "hint": "see them all: flotilla device list",
        "request_id": "abc-1",
    }
    assert answer.headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize(("path", "status"), [("/api/v1/nothing", 404), ("/api/v1/me", 405)])
async def test_unknown_paths_and_methods_are_problems_too(admin, path: str, status: int) -> None:
    answer = await admin.delete(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_time_that_is_none_is_told_with_an_example(admin) -> None:
    body = {"model": "digits", "version": "1.0.0", "at": "yesterday"}
    answer = await admin.post("/api/v1/schedules", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "at: must be a time such as 2026-12-01T02:00:00Z"


async def test_unknown_fields_are_refused_and_named(admin) -> None:
    answer = await admin.post("/api/v1/invites", json={"uses": 1, "color": "red"})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/body/color", "detail": "there is no such field"}]
    assert answer.json()["detail"] == "color: there is no such field"


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"window": {"start": "22", "end": "05:00"}}, "window/start: must have the form"),
        ({"window": {"start": "22:00", "end": "22:00"}}, "window: a window begins and ends at different times"),
        ({"stage_ratio": 0.9}, "stage_ratio belongs to blue-green rollouts"),
        ({"shadow": {"share": 2}}, "shadow/share: must be less than or equal to 1"),
        ({"model": None}, "model: must be a valid string"),
    ],
)
async def test_what_is_wrong_is_told_in_the_words_of_the_request(admin, more: dict[str, object], detail: str) -> None:
    answer = await admin.post("/api/v1/rollouts", json={"model": "digits", "version": "1.0.0", **more})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(detail)
    assert len(answer.json()["errors"]) == 1


async def test_rollouts_of_a_state_that_there_is_none_of_are_refused(admin) -> None:
    assert (await admin.get("/api/v1/rollouts", params={"state": "active"})).status_code == 200
    assert (await admin.get("/api/v1/rollouts", params={"state": "rolled-back"})).json()["items"] == []
    assert "state" in (await admin.get("/api/v1/rollouts", params={"state": "nonsense"})).json()["detail"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"null", b"[" * 5000])
async def test_a_body_that_is_no_json_object_is_refused(admin, body: bytes) -> None:
    answer = await admin.post("/api/v1/invites", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limit_is_refused(admin, manager: Manager, chunked: bool) -> None:
    size = manager.settings.server.max_body_bytes + 1

    async def pieces():
        for _ in range(size // 65536 + 1):
            yield b" " * 65536

    content = pieces() if chunked else b" " * size
    answer = await admin.post("/api/v1/invites", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "E_TOO_LARGE")


async def test_a_device_is_changed_and_the_audit_tells(admin, fleet) -> None:
    answer = await admin.patch("/api/v1/devices/cam-1", json={"labels": {"line": "9"}, "name": "Gate"})
    assert (answer.json()["labels"], answer.json()["name"], answer.json()["site"]) == ({"line": "9"}, "Gate", "hall")
    assert (await admin.get("/api/v1/devices/Gate")).json()["id"] == "cam-1"
    row = (await admin.get("/api/v1/audit", params={"limit": 1})).json()["items"][0]
    assert (row["action"], row["subject"], row["actor"]) == ("device.change", "cam-1", "admin")
    assert (await admin.get("/api/v1/audit/verify")).json()["intact"] is True
    for bad in ({"labels": {"a b": "1"}}, {"labels": {"a": "x" * 200}}, {"name": ""}, {"lifecycle": "active"}):
        assert (await admin.patch("/api/v1/devices/cam-1", json=bad)).status_code == 422


async def test_lists_come_as_csv_that_is_safe_to_open(admin, fleet) -> None:
    await admin.patch("/api/v1/devices/cam-1", json={"name": "=cmd()"})
    answer = await admin.get("/api/v1/devices", params={"limit": 3, "order": "id"}, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == ["cam-0", "cam-1", "cam-2"]
    assert rows[1]["name"] == "'=cmd()"
    assert json.loads(rows[0]["labels"]) == {"line": "0"}
    following = answer.headers["link"].split(">")[0].removeprefix("<")
    rest = await admin.get(following, headers={"Accept": "text/csv"})
    assert [row["id"] for row in csv.DictReader(io.StringIO(rest.text))] == ["cam-3", "cam-4", "cam-5"]


class TestIdempotency:
    async def test_the_same_request_is_done_once(self, admin, fleet) -> None:
        key = {"Idempotency-Key": "k-1"}
        first, second = [await admin.post("/api/v1/devices/cam-1/accept", headers=key) for _ in range(2)]
        assert first.json() == second.json()
        assert second.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers

    async def test_refusals_are_repeated_as_well(self, admin, enrolled) -> None:
        key = {"Idempotency-Key": "k-2"}
        assert (await admin.post("/api/v1/devices/cam-9/accept", headers=key)).status_code == 404
        await enrolled("cam-9")
        again = await admin.post("/api/v1/devices/cam-9/accept", headers=key)
        assert (again.status_code, again.headers["content-type"]) == (404, "application/problem+json")

    async def test_another_request_with_the_same_key_is_refused(self, admin, fleet) -> None:
        key = {"Idempotency-Key": "k-3"}
        await admin.post("/api/v1/invites", json={"uses": 1}, headers=key)
        answer = await admin.post("/api/v1/invites", json={"uses": 2}, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (422, "E_IDEMPOTENCY_MISMATCH")

    async def test_at_the_same_moment_one_does_it(self, admin) -> None:
        key = {"Idempotency-Key": "k-4"}
        answers = await asyncio.gather(*(admin.post("/api/v1/invites", json=INVITE, headers=key) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
        assert len((await admin.get("/api/v1/invites")).json()["items"]) == 1

    async def test_secrets_are_not_kept_for_repetition(self, admin, manager: Manager) -> None:
        key = {"Idempotency-Key": "k-5"}
        token = (await admin.post("/api/v1/invites", json=INVITE, headers=key)).json()["token"]
        again = await admin.post("/api/v1/invites", json=INVITE, headers=key)
        assert again.json()["code"] == "E_ANSWER_NOT_KEPT"
        stored = b"".join(path.read_bytes() for path in manager.settings.data_dir.glob("fleet.sqlite*"))
        assert token.encode() not in stored

    async def test_keys_of_two_people_do_not_meet(self, admin, token_for, fleet) -> None:
        other = {"Authorization": f"Bearer {await token_for('operator')}"}
        key = {"Idempotency-Key": "k-6"}
        await admin.post("/api/v1/devices/cam-1/accept", headers=key)
        answer = await admin.post("/api/v1/devices/cam-2/accept", headers=key | other)
        assert answer.json()["id"] == "cam-2"


async def test_rolling_a_device_back_needs_another_good_slot(admin, fleet) -> None:
    answer = await admin.post("/api/v1/devices/cam-1/rollback")
    assert (answer.status_code, answer.json()["code"]) == (409, "E_NO_OTHER_SLOT")


async def note(manager: Manager, text: str) -> None:
    async with manager.database.write() as tx:
        await events.add(tx, kind="device", level="ok", subject="cam-1", text=text, now=manager.clock.now())
    manager.hub.wake()


async def test_the_stream_goes_on_where_it_broke_off(manager: Manager) -> None:
    for text in ("one", "two", "three"):
        await note(manager, text)
    stream = follow(manager, 1)
    assert await anext(stream) == ": connected\n\n"
    assert [json.loads((await anext(stream)).split("data: ")[1])["text"] for _ in range(2)] == ["two", "three"]
    waiting = asyncio.create_task(anext(stream))
    await note(manager, "four")
    async with asyncio.timeout(5):
        message = await waiting
    assert message.startswith("id: 4\nevent: device\ndata: {")
    await stream.aclose()


async def test_the_stream_beats_also_while_other_things_are_committed(manager: Manager, monkeypatch) -> None:
    monkeypatch.setattr("fleet.api.events.BEAT_SECONDS", 0.2)
    stream = follow(manager, 0)
    assert await anext(stream) == ": connected\n\n"

    async def busy() -> None:
        while True:
            manager.hub.wake()
            await asyncio.sleep(0.01)

    noise = asyncio.create_task(busy())
    async with asyncio.timeout(5):
        assert await anext(stream) == ": beat\n\n"
    noise.cancel()
    await stream.aclose()


async def test_events_are_listed_newest_first(admin, manager: Manager) -> None:
    for number in range(5):
        await note(manager, str(number))
    page = (await admin.get("/api/v1/events", params={"limit": 3})).json()
    rest = (await admin.get("/api/v1/events", params={"limit": 3, "cursor": page["next_cursor"]})).json()
    assert [item["text"] for item in page["items"] + rest["items"]] == ["4", "3", "2", "1", "0"]
    assert rest["next_cursor"] is None


async def test_health_and_metrics(admin, strangers, fleet, manager: Manager) -> None:
    assert (await strangers.get("/healthz")).json() == {"status": "ok"}
    ready = (await strangers.get("/readyz")).json()
    assert (ready["ready"], ready["role"], ready["leader"]) == (True, "leader", manager.manager_url)
    text = (await admin.get("/metrics")).text
    assert 'flotilla_devices{lifecycle="active"} 7' in text
    assert "flotilla_devices_online 3" in text
    assert "flotilla_leader 1" in text


async def test_the_documentation_needs_nothing_from_outside(strangers) -> None:
    page = await strangers.get("/api/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "").replace("httponly", "")
    document = (await strangers.get("/api/openapi.json")).json()
    for path in document["paths"]:
        assert path in page.text
    assert document["paths"]["/api/v1/devices"]["get"]["x-permission"] == "devices:read"


async def test_metrics_of_a_device(admin, fleet, manager: Manager) -> None:
    assert (await admin.get("/api/v1/devices/cam-1/metrics")).json() == {"items": [], "next_cursor": None}
    assert (await admin.get("/api/v1/devices/nobody/metrics")).status_code == 404
    async with manager.database.read() as tx:
        assert await tx.get(Device, "cam-1") is not None


def test_a_free_port_is_known_before_anything_is_built(tmp_path) -> None:
    from fleet.errors import ListenError
    from fleet.parts import listening
    from fleet.settings import FleetSettings

    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = FleetSettings.model_validate({"data_dir": tmp_path, "server": {"port": taken.getsockname()[1]}})
        with pytest.raises(ListenError):
            listening(settings)
