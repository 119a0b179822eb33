"""Who may do what: every route of the application, every role; sessions and CSRF."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from fastapi.routing import APIRoute

from fleet.access.identify import COOKIE
from fleet.access.roles import GRANTS, PERMISSIONS, ROLES, Actor
from fleet.api.app import ROUTERS, create_app, needs
from fleet.api.context import Allow, Public
from fleet.parts import Manager

#: What anybody may call. A new line here is a decision.
OPEN = {
    ("POST", "/api/v1/enroll"),
    ("POST", "/api/v1/peers"),  # the signature of a device is in the body
    ("POST", "/api/v1/leave"),  # likewise
    ("GET", "/chunks/{name}"),
    ("GET", "/manifests/{digest}"),
    ("GET", "/metadata/{file}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/api/openapi.json"),
    ("GET", "/api/docs"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("POST", "/api/v1/sign-in"),  # name and password are in the body
    ("POST", "/logout"),
    # pages send strangers to /login by themselves:
    ("GET", "/"),
    ("GET", "/fleet"),
    ("GET", "/rollouts"),
    ("GET", "/drift"),
    ("GET", "/rollouts/{rollout}"),
}


def routes() -> Iterator[tuple[str, APIRoute]]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods - {"HEAD"}:
                yield method, route


def test_every_route_declares_who_may_call_it() -> None:
    assert [route.path for _, route in routes() if needs(route) is None] == []


def test_only_the_known_routes_are_open() -> None:
    assert {(method, route.path) for method, route in routes() if isinstance(needs(route), Public)} <= OPEN


def test_every_permission_is_used_and_admin_has_all() -> None:
    used = {found.permission for _, route in routes() if isinstance(found := needs(route), Allow)}
    assert used <= set(PERMISSIONS)
    assert GRANTS["admin"] == set(PERMISSIONS)
    assert not any(Actor("x", "device").permissions())


async def test_the_whole_matrix(strangers: httpx2.AsyncClient, token_for) -> None:
    """A role that may not gets 403, a stranger 401, before anything else of the request is looked at."""
    for role in (None, *ROLES):
        headers = {"Authorization": f"Bearer {await token_for(role)}"} if role else {}
        for method, route in routes():
            found = needs(route)
            if not isinstance(found, Allow) or "/stream/" in route.path:
                continue
            path = re.sub(r"\{[^}]+\}", "no-such-thing", route.path)
            answer = await strangers.request(method, path, headers=headers)
            if role is None:
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.json()["code"] == "E_UNAUTHENTICATED"
            elif found.permission in GRANTS[role]:
                assert answer.status_code not in (401, 403), (role, method, path, answer.text)
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "E_FORBIDDEN"), (role, method, path)
                assert "roles:" in answer.json()["hint"]


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer ", "Basic eDp5", "nonsense"])
async def test_a_wrong_credential_is_a_stranger(strangers: httpx2.AsyncClient, header: str) -> None:
    assert (await strangers.get("/api/v1/me", headers={"Authorization": header})).status_code == 401


async def test_a_revoked_token_ends_at_once_and_takes_its_browsers_along(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/api/v1/tokens", json={"name": "ann", "role": "operator"})).json()
    login = await admin.get("/login", params={"token": made["token"]}, headers={"Authorization": ""})
    cookie = {"Cookie": f"{COOKIE}={login.cookies[COOKIE]}", "Authorization": ""}
    admin.cookies.clear()
    ann = {"Authorization": f"Bearer {made['token']}"}
    assert (await admin.get("/api/v1/me", headers=ann)).json()["role"] == "operator"
    assert (await admin.get("/api/v1/me", headers=cookie)).json()["name"] == "ann"
    assert (await admin.delete(f"/api/v1/tokens/{made['id']}")).json()["revoked_at"]
    assert (await admin.get("/api/v1/me", headers=ann)).status_code == 401
    assert (await admin.get("/api/v1/me", headers=cookie)).status_code == 401


async def test_the_last_admin_stays(admin: httpx2.AsyncClient) -> None:
    (first,) = (await admin.get("/api/v1/tokens")).json()["items"]
    answer = await admin.delete(f"/api/v1/tokens/{first['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "E_CONFLICT")


async def test_a_browser_signs_in_acts_with_its_csrf_token_and_signs_out(manager: Manager, token_for) -> None:
    transport = httpx2.ASGITransport(app=create_app(manager))
    async with httpx2.AsyncClient(transport=transport, base_url="http://fleet") as browser:
        page = await browser.get("/login")
        assert page.status_code == 200
        assert "<form" in page.text
        token = await token_for("operator")
        answer = await browser.post(
            "/login",
            content=f"token={token}&next=/rollouts",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/rollouts")
        said = answer.headers["set-cookie"].lower()
        assert "httponly" in said
        assert "samesite=lax" in said
        assert (await browser.get("/api/v1/me")).json()["role"] == "operator"
        refused = await browser.post("/api/v1/invites", json={})
        assert (refused.status_code, refused.json()["code"]) == (403, "E_CSRF")
        async with manager.database.read() as tx:
            from fleet.store import tokens

            found = await tokens.browser(tx, manager.pepper.digest(browser.cookies[COOKIE]))
        assert found is not None
        csrf = {"X-CSRF-Token": found[0].csrf}
        assert (await browser.post("/api/v1/invites", json={}, headers=csrf)).status_code == 201
        assert (await browser.post("/logout")).status_code == 403
        assert (await browser.post("/logout", headers=csrf)).status_code == 303
        assert (await browser.get("/api/v1/me")).status_code == 401


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/a\nb"]
)
async def test_signing_in_never_leads_elsewhere(strangers: httpx2.AsyncClient, token_for, target: str) -> None:
    answer = await strangers.get("/login", params={"token": await token_for("viewer"), "next": target})
    assert answer.headers["location"] == "/"


async def test_a_wrong_token_does_not_sign_in(strangers: httpx2.AsyncClient) -> None:
    answer = await strangers.get("/login", params={"token": "flt_nonsense"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_an_idle_browser_signs_in_again(manager: Manager, strangers: httpx2.AsyncClient, token_for) -> None:
    from datetime import timedelta

    from sqlalchemy import update

    from fleet.store.tables import BrowserSession

    await strangers.get("/login", params={"token": await token_for("viewer")})
    assert (await strangers.get("/api/v1/me")).status_code == 200
    async with manager.database.write() as tx:
        await tx.execute(update(BrowserSession).values(seen_at=manager.clock.now() - timedelta(hours=1)))
    assert (await strangers.get("/api/v1/me")).status_code == 401
