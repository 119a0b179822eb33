"""Requests: what is sent, and what each answer means."""

from contextlib import closing

import pytest

from fleet.cli.api import Api
from fleet.cli.errors import CliError, Exit
from fleet.cli.session import Session


@pytest.fixture
def api(manager):
    with closing(Api(Session(manager.url, "secret", {"url": "flag"}))) as made:
        yield made


def test_sends_the_token_and_a_fresh_key_for_each_post(api, manager):
    manager.answer("POST /api/v1/tokens", {"id": "a"}, 201)
    assert api.post("/tokens", json={"name": "x"}) == {"id": "a"}
    api.post("/tokens", json={"name": "x"})
    first, second = manager.asked
    assert first.headers["authorization"] == "Bearer secret"
    assert first.body == {"name": "x"}
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_a_lost_answer_is_asked_for_again_with_the_same_key(api, manager):
    manager.answer("POST /api/v1/tokens", None, 0)
    manager.answer("POST /api/v1/tokens", {"id": "a"}, 201)
    assert api.post("/tokens", json={"name": "x"}) == {"id": "a"}
    first, second = manager.asked
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_an_answer_that_stays_lost_is_unreachable(api, manager):
    for _ in range(2):
        manager.answer("GET /api/v1/me", None, 0)
    with pytest.raises(CliError) as caught:
        api.get("/me")
    assert caught.value.exit == Exit.UNREACHABLE


def test_an_empty_answer_is_none(api, manager):
    manager.answer("DELETE /api/v1/tokens/a", None, 204)
    assert api.delete("/tokens/a") is None


@pytest.mark.parametrize(
    ("status", "problem", "exit_code"),
    [
        (404, {"code": "E_NOT_FOUND", "title": "t", "hint": "h"}, Exit.NOT_FOUND),
        (401, {"code": "E_AUTH", "title": "t"}, Exit.NOT_ALLOWED),
        (403, {"code": "E_AUTH", "title": "t"}, Exit.NOT_ALLOWED),
        (409, {"code": "E_VERSION_EXISTS", "title": "t"}, Exit.CONFLICT),
        (422, {"code": "E_BAD_INPUT", "title": "t"}, Exit.USAGE),
        (422, {"code": "E_BODY", "title": "t", "errors": [{"pointer": "/waves", "detail": "no"}]}, Exit.USAGE),
        (422, {"code": "E_FILTER", "title": "t"}, Exit.USAGE),
        (422, {"code": "E_ONNX", "title": "t"}, Exit.FAILED),
        (503, {"code": "E_UNAVAILABLE", "title": "t"}, Exit.UNREACHABLE),
        (500, {"title": "t"}, Exit.FAILED),
    ],
)
def test_problems_become_errors_with_the_right_exit_code(api, manager, status, problem, exit_code):
    manager.answer("GET /api/v1/x", problem, status)
    with pytest.raises(CliError) as caught:
        api.get("/x")
    assert caught.value.exit == exit_code
    assert caught.value.code == problem.get("code", "E_HTTP_500")
    if "errors" in problem:
        assert "/waves: no" in caught.value.why


def test_nobody_there_is_unreachable_and_says_where_the_address_came_from():
    with closing(Api(Session("http://127.0.0.1:9", None, {"url": "flag"}))) as api, pytest.raises(CliError) as caught:
        api.get("/me")
    assert caught.value.exit == Exit.UNREACHABLE
    assert "flag" in caught.value.why


@pytest.mark.parametrize("url", ["localhost:8420", "ftp://x", "http://", "http://[::1", ""])
def test_a_bad_address_is_a_usage_error(url):
    with pytest.raises(CliError) as caught:
        Api(Session(url, None, {}))
    assert caught.value.exit == Exit.USAGE


def test_pages_are_read_to_the_end_or_to_the_limit(api, manager):
    manager.answer("GET /api/v1/devices", {"items": [1, 2], "next_cursor": "c"})
    manager.answer("GET /api/v1/devices?cursor=c", {"items": [3], "next_cursor": None})
    assert api.pages("/devices") == [1, 2, 3]
    assert api.pages("/devices", limit=1) == [1]


def test_a_stream_gives_the_data_of_each_event_and_skips_comments(api, manager):
    manager.answer("GET /api/v1/events", ': hello\n\nid: 1\ndata: {"a": 1}\n\ndata: {"b":\ndata: 2}\n\n: ping\n\n')
    assert list(api.stream("/events")) == [{"a": 1}, {"b": 2}]


def test_a_stream_that_is_refused_is_an_error(api, manager):
    manager.answer("GET /api/v1/events", {"code": "E_FORBIDDEN", "title": "no"}, 403)
    with pytest.raises(CliError) as caught:
        list(api.stream("/events"))
    assert caught.value.exit == Exit.NOT_ALLOWED


def test_absolute_paths_are_outside_of_the_interface(api, manager):
    manager.answer("GET /readyz", {"ready": True})
    assert api.get("//readyz") == {"ready": True}
