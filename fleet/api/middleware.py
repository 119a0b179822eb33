"""Before a route sees a request: an id, a bounded body, the caller, the CSRF check, the answer given before.

I/O: chance.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from typing import TYPE_CHECKING, Final

from fleet.access.answers import NOT_KEPT
from fleet.api.asgi import App, Message, Receive, Scope, Send
from fleet.api.problems import Problem

if TYPE_CHECKING:
    from fleet.access.answers import Answers
    from fleet.access.identify import Doorman
    from fleet.access.secrets import Pepper
    from shared.clock import Clock

logger = logging.getLogger(__name__)

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: Content for devices and pages for everybody: nobody is looked up for these.
ANONYMOUS: Final = ("/chunks/", "/manifests/", "/metadata/", "/static/", "/healthz", "/readyz")
#: Its form needs no CSRF token: there may be no session yet, and a foreign page's POST brings no cookie (SameSite).
SIGN_IN: Final = "/login"
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")


class Gate:
    """The outermost layer of the application."""

    def __init__(
        self, app: App, *, doorman: Doorman, answers: Answers, pepper: Pepper, clock: Clock, max_body_bytes: int
    ) -> None:
        self._app, self._doorman, self._answers, self._clock = app, doorman, answers, clock
        self._pepper = pepper
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        scope["flotilla.request_id"] = request_id
        sender = _Sender(send, request_id)
        try:
            await self._serve(scope, _bounded(scope, receive, self._max_body_bytes), sender)
        except Problem as problem:
            if sender.started:
                raise
            await answer_problem(sender, problem, request_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(ANONYMOUS):
            await self._identify(scope)
        key = _header(scope, b"idempotency-key")
        if scope["method"] == "POST" and key and scope.get("flotilla.actor") is not None:
            await self._once(key, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _identify(self, scope: Scope) -> None:
        authorization, cookie = _header(scope, b"authorization"), _header(scope, b"cookie")
        if not authorization and not cookie:
            return
        caller = await self._doorman.identify(authorization=authorization, cookie=cookie, now=self._clock.now())
        if caller is None:
            return
        scope["flotilla.actor"] = caller.actor(scope["flotilla.request_id"])
        scope["flotilla.csrf"] = caller.csrf
        if caller.csrf and scope["method"] not in SAFE_METHODS and scope["path"] != SIGN_IN:
            said = _header(scope, b"x-csrf-token")
            if not secrets.compare_digest(said.encode(), caller.csrf.encode()):
                raise Problem(
                    403,
                    "E_CSRF",
                    "This page is out of date",
                    "the request does not carry the CSRF token of this browser session",
                    "load the page again and repeat what you did",
                )

    async def _once(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not _KEY.fullmatch(key):
            raise Problem(422, "E_IDEMPOTENCY_KEY", "Unusable Idempotency-Key", "1 to 128 visible characters, please")
        body = await _whole(receive)
        actor = scope["flotilla.actor"]
        place = hashlib.sha256(f"{actor.name}|{actor.role}|{key}".encode()).hexdigest()
        said = b"|".join((scope["path"].encode(), scope.get("query_string", b""), body))
        request_hash = self._pepper.digest(hashlib.sha256(said).hexdigest())  # keyed: there may be a password in it
        before = await self._answers.begin(place, request_hash, self._clock.now())
        if before is not None:
            await _repeat(send, before.request_hash == request_hash, before.status, before.body)
            return
        recorder = _Recorder(send)
        try:
            await self._app(scope, _given(body, receive), recorder)
        except BaseException:
            await self._answers.forget(place)
            raise
        if recorder.status >= 500 or recorder.status == 429:
            await self._answers.forget(place)
        else:
            await self._answers.finish(place, recorder.status, recorder.text())


async def _repeat(send: Send, same: bool, status: int | None, body: str | None) -> None:
    if not same:
        raise Problem(
            422,
            "E_IDEMPOTENCY_MISMATCH",
            "Idempotency-Key used twice",
            "this key came before with another request",
            "use a new key for a new request",
        )
    if status is None:
        raise Problem(
            409,
            "E_IN_FLIGHT",
            "Still at work",
            "the first request with this key has no answer yet",
            "ask again in a second",
            headers={"Retry-After": "1"},
        )
    if body is NOT_KEPT:
        raise Problem(
            409,
            "E_ANSWER_NOT_KEPT",
            "Done before",
            "this request was answered before; the answer held a secret, which is not kept",
            "revoke what was made then, and make a new one with a new key",
        )
    kind = b"application/problem+json" if status >= 400 else b"application/json"
    headers = [(b"content-type", kind), (b"idempotency-replayed", b"true")]
    await _answer(send, status, headers, body.encode())


class _Sender:
    """Adds the request's id to every answer, and knows whether one has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id = send, request_id.encode()
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._id)]
        await self._send(message)


class _Recorder:
    """Keeps a copy of an answer on its way out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._body = bytearray()
        self._secret = False
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = dict(message.get("headers", ()))
            self._secret = b"no-store" in headers.get(b"cache-control", b"")
        else:
            self._body += message.get("body", b"")
        await self._send(message)

    def text(self) -> str | None:
        return NOT_KEPT if self._secret else self._body.decode()


def _bounded(scope: Scope, receive: Receive, limit: int) -> Receive:
    too_long = Problem(
        413, "E_TOO_LARGE", "Request too large", f"a body may have {limit} bytes", "raise server.max_body_bytes"
    )
    announced = _header(scope, b"content-length")
    left = limit

    async def bounded() -> Message:
        nonlocal left
        if announced.isdigit() and int(announced) > limit:
            raise too_long
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_long
        return message

    return bounded


def _given(body: bytes, receive: Receive) -> Receive:
    """Hand over `body`, then whatever else comes (a disconnect)."""
    left = [body]

    async def given() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return given


async def _whole(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return bytes(body)


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope.get("headers", ()):
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def answer_problem(send: Send, problem: Problem, request_id: str) -> None:
    """Send a problem as the whole answer."""
    headers = [(b"content-type", b"application/problem+json")]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await _answer(send, problem.status, headers, json.dumps(problem.document(request_id)).encode())


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
