"""People: who they are, how they come in, what ends them; and what somebody tries who is none of them."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from fleet.access import backoff, passwords
from fleet.access.identify import COOKIE
from fleet.access.roles import GRANTS, ROLES
from fleet.api.app import create_app, needs
from fleet.api.context import Allow
from fleet.parts import Manager, listening, opened
from fleet.store import audit
from fleet.store.tables import Alert, AuditRow, BrowserSession, SignInAttempt, Token, User
from tests.fleet.api.test_access import routes
from tests.fleet.conftest import settings_in

SECRET = "seven grey herons wade"
OTHER = "nine brown otters swim"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

Make = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def cheap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cost of a password is not what a test is about, it is small."""
    if "costly" not in request.fixturenames:
        monkeypatch.setattr(passwords, "MEMORY_KIB", 64)
        monkeypatch.setattr(passwords, "PASSES", 1)


@pytest.fixture
def costly() -> None:
    """For a test of what passwords cost."""


@pytest.fixture
def person(admin: httpx2.AsyncClient) -> Make:
    async def make(name: str, role: str = "operator", **more: object) -> Any:
        answer = await admin.post("/api/v1/users", json={"name": name, "role": role, "password": SECRET, **more})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return make


async def signed_in(client: httpx2.AsyncClient, name: str, password: str = SECRET, **more: object) -> httpx2.Response:
    body = {"name": name, "password": password, **more}
    return await client.post("/api/v1/sign-in", json=body, headers={"Authorization": ""})


async def bearer(client: httpx2.AsyncClient, name: str, password: str = SECRET) -> dict[str, str]:
    answer = await signed_in(client, name, password)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


@asynccontextmanager
async def in_a_browser(manager: Manager, name: str, password: str = SECRET) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=create_app(manager))
    async with httpx2.AsyncClient(transport=transport, base_url="http://fleet") as client:
        answer = await client.post("/login", content=f"name={name}&password={password}", headers=FORM)
        assert answer.status_code == 303, answer.text
        yield client


async def csrf(manager: Manager, browser: httpx2.AsyncClient) -> dict[str, str]:
    async with manager.database.read() as tx:
        found = await tx.get(BrowserSession, manager.pepper.digest(browser.cookies[COOKIE]))
    assert found is not None
    return {"X-CSRF-Token": found.csrf}


async def later(manager: Manager, by: timedelta) -> None:
    """As if every attempt had been made `by` earlier."""
    async with manager.database.write() as tx:
        for row in await tx.scalars(select(SignInAttempt)):
            row.at -= by
            row.until = row.until - by if row.until is not None else None


# --- who there is


async def test_a_person_signs_in_with_name_and_password_and_acts_under_the_name(admin, person) -> None:
    made = await person("ann")
    assert (made["role"], made["state"]) == ("operator", "valid")
    assert "password" not in " ".join(key for key in made if key != "password_at")
    ann = await bearer(admin, "ann")
    me = (await admin.get("/api/v1/me", headers=ann)).json()
    assert (me["name"], me["role"], me["person"]) == ("ann", "operator", "ann")
    assert (await admin.post("/api/v1/invites", json={}, headers=ann)).status_code == 201
    rows = (await admin.get("/api/v1/audit")).json()["items"]
    assert [(row["actor"], row["action"]) for row in rows[:3]] == [
        ("ann", "invite.create"),
        ("ann", "user.sign-in"),
        ("admin", "user.create"),
    ]
    assert SECRET not in str(rows)


async def test_a_sign_in_ends_by_itself_at_the_time_asked_for(admin, person, manager: Manager) -> None:
    await person("ann", expires_seconds=3600)
    now = manager.clock.now()

    def hours(answer: httpx2.Response) -> float:
        return round((datetime.fromisoformat(answer.json()["expires_at"]) - now).total_seconds() / 3600, 1)

    assert hours(await signed_in(admin, "ann", expires_seconds=600)) == 0.2
    assert hours(await signed_in(admin, "ann")) == 1.0  # no longer than the person's own time
    await person("bo")
    assert hours(await signed_in(admin, "bo")) == 12.0
    refused = await signed_in(admin, "bo", expires_seconds=31 * 86400)
    assert (refused.status_code, refused.json()["code"]) == (422, "E_BAD_INPUT")
    assert "30 days" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("password", "why"),
    [("short", "5 characters"), ("a" * 40, "repeats"), ("ann of the hill", "name"), ("x" * 300, "more than 256")],
)
async def test_passwords_that_are_easy_to_guess_are_refused(admin, password: str, why: str) -> None:
    answer = await admin.post("/api/v1/users", json={"name": "ann", "role": "viewer", "password": password})
    assert (answer.status_code, answer.json()["code"]) == (422, "E_PASSWORD")
    assert why in answer.json()["detail"]
    assert password not in answer.text


@pytest.mark.parametrize("name", ["", "Ann", "an n", "../ann", "ann/bo", "system:x", "a" * 65])
async def test_names_that_could_be_mistaken_are_refused(admin, name: str) -> None:
    body = {"name": name, "role": "viewer", "password": SECRET}
    assert (await admin.post("/api/v1/users", json=body)).status_code == 422


async def test_a_name_is_given_once(admin, person) -> None:
    await person("ann")
    body = {"name": "ann", "role": "viewer", "password": SECRET}
    assert (await admin.post("/api/v1/users", json=body)).status_code == 409
    assert (await admin.delete("/api/v1/users/ann")).status_code == 200
    again = await admin.post("/api/v1/users", json=body)
    assert again.status_code == 409
    assert "never given again" in again.json()["detail"]
    assert (await admin.patch("/api/v1/users/ann", json={"password": OTHER})).status_code == 409
    assert (await admin.get("/api/v1/users/nobody")).json()["code"] == "E_NOT_FOUND"


async def test_nobody_passes_for_another_in_the_audit(admin, person) -> None:
    await person("ann", "admin")
    for name in ("ann", "ann/x", "system:rollouts"):
        answer = await admin.post("/api/v1/tokens", json={"name": name, "role": "viewer"})
        assert answer.status_code in (409, 422), name
    refused = await admin.post("/api/v1/users", json={"name": "admin", "role": "viewer", "password": SECRET})
    assert refused.status_code == 409  # the first token has this name
    assert "flotilla token revoke" in refused.json()["hint"]
    ann = await bearer(admin, "ann")
    made = (await admin.post("/api/v1/tokens", json={"name": "admin", "role": "operator"}, headers=ann)).json()
    assert made["person"] == "ann"
    hers = {"Authorization": f"Bearer {made['token']}"}
    assert (await admin.get("/api/v1/me", headers=hers)).json()["name"] == "ann/admin"


# --- what ends


async def test_revoking_ends_every_sign_in_and_token_at_once(admin, person, manager: Manager) -> None:
    await person("ann", "admin")
    ann = await bearer(admin, "ann")
    made = (await admin.post("/api/v1/tokens", json={"name": "nightly", "role": "viewer"}, headers=ann)).json()
    nightly = {"Authorization": f"Bearer {made['token']}"}
    async with in_a_browser(manager, "ann") as browser:
        for client, headers in ((admin, ann), (admin, nightly), (browser, {})):
            assert (await client.get("/api/v1/me", headers=headers)).status_code == 200
        plan = (await admin.delete("/api/v1/users/ann", params={"dry_run": True})).json()
        assert [one["name"] for one in plan["tokens"]] == ["nightly"]
        assert [one["with"] == "browser" for one in plan["signed_in"]] == [True, False]
        assert (await browser.get("/api/v1/me")).status_code == 200
        assert (await admin.delete("/api/v1/users/ann")).json()["revoked_at"]
        for client, headers in ((admin, ann), (admin, nightly), (browser, {})):
            assert (await client.get("/api/v1/me", headers=headers)).status_code == 401
    assert (await signed_in(admin, "ann")).json()["code"] == "E_SIGN_IN"
    assert (await admin.delete("/api/v1/users/ann")).status_code == 200  # once more is harmless
    alerts = (await admin.get("/api/v1/alerts")).json()["items"]
    assert any("revoked token" in alert["text"] for alert in alerts)  # somebody still used it


async def test_the_last_admin_stays_whoever_that_is(admin, person) -> None:
    await person("ann", "admin")
    ann = await bearer(admin, "ann")
    (first,) = [one for one in (await admin.get("/api/v1/tokens")).json()["items"] if one["role"] == "admin"]
    await admin.post("/api/v1/tokens", json={"name": "hers", "role": "admin"}, headers=ann)
    assert (await admin.delete(f"/api/v1/tokens/{first['id']}", headers=ann)).status_code == 200
    for answer in (
        await admin.delete("/api/v1/users/ann", headers=ann),  # her tokens would end with her
        await admin.patch("/api/v1/users/ann", json={"role": "viewer"}, headers=ann),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (409, "ann is the last admin")
    body = {"name": "bo", "role": "admin", "password": SECRET}
    assert (await admin.post("/api/v1/users", json=body, headers=ann)).status_code == 201
    assert (await admin.delete("/api/v1/users/ann", headers=ann)).status_code == 200


async def test_another_role_ends_sign_ins_and_tokens(admin, person) -> None:
    await person("ann", "admin")
    ann = await bearer(admin, "ann")
    made = (await admin.post("/api/v1/tokens", json={"name": "ci", "role": "admin"}, headers=ann)).json()
    assert (await admin.patch("/api/v1/users/ann", json={"role": "viewer"})).json()["role"] == "viewer"
    assert (await admin.get("/api/v1/me", headers=ann)).status_code == 401
    assert (await admin.get("/api/v1/me", headers={"Authorization": f"Bearer {made['token']}"})).status_code == 401
    assert (await admin.post("/api/v1/invites", json={}, headers=await bearer(admin, "ann"))).status_code == 403


async def test_a_person_whose_time_is_over_is_out(admin, person, manager: Manager) -> None:
    await person("ann", expires_seconds=3600)
    ann = await bearer(admin, "ann")
    async with manager.database.write() as tx:
        await tx.execute(update(User).values(expires_at=manager.clock.now() - timedelta(seconds=1)))
    assert (await admin.get("/api/v1/me", headers=ann)).status_code == 401
    assert (await signed_in(admin, "ann")).status_code == 401
    assert (await admin.get("/api/v1/users/ann")).json()["state"] == "expired"
    await admin.patch("/api/v1/users/ann", json={"expires_seconds": 3600})
    assert (await signed_in(admin, "ann")).status_code == 200


async def test_people_change_their_own_password_and_nobody_elses(admin, person) -> None:
    await person("ann", "viewer")
    ann, elsewhere = await bearer(admin, "ann"), await bearer(admin, "ann")
    body = {"current_password": "wrong wrong wrong", "password": OTHER}
    assert (await admin.patch("/api/v1/me", json=body, headers=ann)).json()["code"] == "E_SIGN_IN"
    body["current_password"] = SECRET
    assert (await admin.patch("/api/v1/me", json=body)).json()["code"] == "E_CONFLICT"  # a token has none
    short = await admin.patch("/api/v1/me", json={**body, "password": "short"}, headers=ann)
    assert short.json()["code"] == "E_PASSWORD"
    assert (await admin.patch("/api/v1/me", json=body, headers=ann)).json() == {"name": "ann", "signed_out": 2}
    for headers in (ann, elsewhere):
        assert (await admin.get("/api/v1/me", headers=headers)).status_code == 401
    assert (await signed_in(admin, "ann")).status_code == 401
    hers = await bearer(admin, "ann", OTHER)
    assert (await admin.patch("/api/v1/users/ann", json={"password": SECRET}, headers=hers)).status_code == 403


async def test_signing_out_ends_the_token_of_a_sign_in_and_no_other(admin, person) -> None:
    await person("ann")
    ann = await bearer(admin, "ann")
    assert (await admin.post("/api/v1/sign-out", headers=ann)).json() == {"ended": True}
    assert (await admin.get("/api/v1/me", headers=ann)).status_code == 401
    assert (await admin.post("/api/v1/sign-out")).json() == {"ended": False}
    assert (await admin.get("/api/v1/me")).status_code == 200
    alerts = (await admin.get("/api/v1/alerts")).json()["items"]
    assert alerts == []  # a token that was signed out is not a stolen one


# --- browsers (A60, A61)


async def test_two_browsers_of_one_person_are_listed_and_each_signs_out_alone(admin, person, manager) -> None:
    await person("ann")
    async with in_a_browser(manager, "ann") as first, in_a_browser(manager, "ann") as second:
        places = (await admin.get("/api/v1/users/ann")).json()["signed_in"]
        assert [one["with"] for one in places] == ["browser", "browser"]
        old = first.cookies[COOKIE]
        assert (await first.post("/logout", headers=await csrf(manager, first))).status_code == 303
        assert (await second.get("/api/v1/me", headers={"Cookie": f"{COOKIE}={old}"})).status_code == 401
        assert (await second.get("/api/v1/me")).json()["name"] == "ann"


async def test_a_planted_cookie_is_not_the_session_after_signing_in(admin, person, manager, strangers) -> None:
    await person("ann")
    async with in_a_browser(manager, "ann") as browser:
        planted = browser.cookies[COOKIE]
        await browser.post("/login", content=f"name=ann&password={SECRET}", headers=FORM)
        assert browser.cookies[COOKIE] != planted
        assert (await browser.get("/api/v1/me")).status_code == 200
        browser.cookies.clear()
        assert (await browser.get("/api/v1/me", headers={"Cookie": f"{COOKIE}={planted}"})).status_code == 401
        made_up = {"Cookie": f"{COOKIE}=fse_made-up-by-somebody"}
        assert (await browser.get("/api/v1/me", headers=made_up)).status_code == 401


async def test_a_browser_is_out_after_the_longest_time_however_busy(admin, person, manager: Manager) -> None:
    await person("ann")
    async with in_a_browser(manager, "ann") as browser:
        async with manager.database.write() as tx:
            (session,) = await tx.scalars(select(BrowserSession))
            assert session.expires_at - session.created_at == timedelta(hours=12)
            session.seen_at, session.expires_at = manager.clock.now(), manager.clock.now() - timedelta(seconds=1)
        assert (await browser.get("/api/v1/me")).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://fleet.evil"}]
)
async def test_the_page_of_another_site_signs_nobody_in(admin, person, headers) -> None:
    await person("ann")
    answer = await admin.post("/login", content=f"name=ann&password={SECRET}", headers=FORM | headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    good = await admin.post("/login", content=f"name=ann&password={SECRET}", headers=FORM | {"Origin": "http://fleet"})
    assert good.status_code == 303


# --- guessing (A41)


@pytest.mark.usefixtures("costly")
async def test_an_unknown_name_and_a_wrong_password_look_the_same_and_take_the_same_time(admin, person) -> None:
    await person("ann")
    seconds: dict[str, list[float]] = {"ann": [], "who": []}
    texts = set()
    for name in ("ann", "who") * 4:
        begun = time.process_time()
        answer = await signed_in(admin, name, "wrong wrong wrong")
        seconds[name].append(time.process_time() - begun)
        document = answer.json()
        document.pop("request_id")
        texts.add(str((answer.status_code, document)))
        page = await admin.get("/login")
        assert page.status_code == 200
    assert len(texts) == 1
    ratio = median(seconds["who"]) / median(seconds["ann"])
    assert 0.6 < ratio < 1.7, seconds
    assert min(seconds["who"]) > 0.03  # it was compared with something


async def test_a_hundred_wrong_passwords_are_few_that_are_tried(admin, person, monkeypatch, manager: Manager) -> None:
    await person("ann")
    tried = 0
    fits = manager.sign_ins.passwords.fits

    async def counting(password: str, stored: str | None) -> bool:
        nonlocal tried
        tried += 1
        return await fits(password, stored)

    monkeypatch.setattr(manager.sign_ins.passwords, "fits", counting)
    answers = [await signed_in(admin, "ann", f"wrong wrong {number}") for number in range(30)]
    assert tried == backoff.FREE["name"]
    assert {answer.status_code for answer in answers[tried:]} == {429}
    refused = answers[-1]
    assert refused.json()["code"] == "E_SIGN_IN_WAIT"
    assert int(refused.headers["retry-after"]) >= 1
    assert (await signed_in(admin, "ann")).status_code == 429  # the right one has to wait, too
    await later(manager, timedelta(seconds=10))
    assert (await signed_in(admin, "ann")).status_code == 200
    alerts = (await admin.get("/api/v1/alerts")).json()["items"]
    assert any("5 wrong passwords in a row for user ann" in alert["text"] for alert in alerts)
    assert (await signed_in(admin, "ann", "wrong wrong wrong")).status_code == 401  # and the name begins anew


async def test_attempts_at_the_same_moment_are_counted_each(admin, person, manager: Manager) -> None:
    await person("ann")
    answers = await asyncio.gather(*(signed_in(admin, "ann", f"wrong wrong {number}") for number in range(12)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(401) == backoff.FREE["name"]
    assert codes.count(429) == 12 - backoff.FREE["name"]


async def test_one_address_that_tries_many_names_waits(admin, person, manager: Manager) -> None:
    answers = [await signed_in(admin, f"name-{number}", "wrong wrong wrong") for number in range(22)]
    assert [answer.status_code for answer in answers].count(401) == backoff.FREE["address"]
    async with manager.database.read() as tx:
        keys = [row.key for row in await tx.scalars(select(SignInAttempt))]
    assert not any("name" in key for key in keys)  # somebody types a password there one day
    await later(manager, backoff.FORGOTTEN + timedelta(hours=1))
    await signed_in(admin, "other", "wrong wrong wrong")
    async with manager.database.read() as tx:
        assert len((await tx.scalars(select(SignInAttempt))).all()) == 2  # this name, this address


async def test_a_restart_of_the_manager_forgives_nothing(tmp_path) -> None:
    settings = settings_in(tmp_path / "fleet")
    for code in (401, 429):
        with listening(settings) as door:
            async with opened(settings, door) as (manager, _):
                transport = httpx2.ASGITransport(app=create_app(manager))
                async with httpx2.AsyncClient(transport=transport, base_url="http://fleet") as client:
                    if code == 401:
                        for _ in range(backoff.FREE["name"]):
                            assert (await signed_in(client, "ann", "wrong wrong wrong")).status_code == 401
                    else:
                        assert (await signed_in(client, "ann", "wrong wrong wrong")).status_code == 429


async def test_more_at_once_than_memory_allows_are_sent_away(admin, person, manager: Manager) -> None:
    await person("ann")
    manager.sign_ins.passwords._busy = passwords.AT_ONCE + passwords.WAITING
    answer = await signed_in(admin, "ann")
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "E_SIGN_IN_BUSY", "2")
    manager.sign_ins.passwords._busy = 0
    assert (await signed_in(admin, "ann")).status_code == 200  # and was not counted as wrong


@pytest.mark.usefixtures("costly")
async def test_the_database_alone_allows_no_guessing(admin, person, manager: Manager) -> None:
    from argon2 import PasswordHasher
    from argon2.exceptions import VerifyMismatchError

    answer = await admin.post(
        "/api/v1/users",
        json={"name": "ann", "role": "viewer", "password": SECRET},
        headers={"Idempotency-Key": "k"},
    )
    assert answer.status_code == 201
    async with manager.database.read() as tx:
        stored = (await tx.scalars(select(User.password_hash))).one()
    assert re.match(r"\$argon2id\$v=19\$m=65536,t=3,p=1\$", stored)
    with pytest.raises(VerifyMismatchError):
        PasswordHasher().verify(stored, SECRET)  # the pepper is missing
    assert SECRET.encode() not in (manager.settings.data_dir / "fleet.sqlite").read_bytes()


# --- the whole matrix, with people


async def test_people_and_the_tokens_they_make_may_what_their_role_may(admin, person, strangers) -> None:
    for role in ROLES:
        await person(f"the-{role}", role)
    for role in ROLES:
        headers = await bearer(admin, f"the-{role}")
        for method, route in routes():
            found = needs(route)
            if not isinstance(found, Allow) or "/stream/" in route.path or route.path == "/api/v1/sign-out":
                continue
            path = re.sub(r"\{[^}]+\}", "no-such-thing", route.path)
            answer = await strangers.request(method, path, headers=headers)
            allowed = found.permission in GRANTS[role]
            assert (answer.status_code == 403) == (not allowed), (role, method, path, answer.text)
            assert answer.status_code != 401


async def test_the_chain_of_the_audit_holds_with_people_in_it(admin, person, manager: Manager) -> None:
    await person("ann")
    await bearer(admin, "ann")
    await admin.delete("/api/v1/users/ann")
    async with manager.database.read() as tx:
        assert await audit.first_broken(tx) is None
        assert (await tx.scalars(select(AuditRow.action).order_by(AuditRow.sequence.desc()))).first() == "user.revoke"
        assert (await tx.scalars(select(Alert))).all() == []
        assert [row.login for row in await tx.scalars(select(Token).where(Token.user_id.is_not(None)))] == [True]
