"""The webhook of a gate: asked over a real socket, signed, and what becomes of its answers."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from fleet.rollouts import gate, hooks
from fleet.rollouts.checks import Result
from fleet.rollouts.errors import HookError
from fleet.rollouts.hook_driver import HookDriver
from fleet.rollouts.states import Evidence, Hook, HookAnswer, Limits
from fleet.settings import FleetSettings, GateSettings
from tests.fleet.rollouts.conftest import T0
from tests.fleet.rollouts.test_engine import at, evidence, rollout
from tests.simulators.receivers import HANGS, WebReceiver

SECRET = "a-secret-of-sixteen-signs"


@pytest.fixture
async def web() -> AsyncIterator[WebReceiver]:
    found = WebReceiver()
    await found.start()
    yield found
    await found.stop()


async def started(world: Any, api: httpx2.AsyncClient, web: WebReceiver, **more: Any) -> str:
    """A rollout that asks `web`, with its canary done."""
    own = GateSettings(secret=SecretStr(SECRET), allow_private=True)
    world.settings = world.settings.model_copy(update={"gates": own})
    for name in ("cam-1", "cam-2"):
        await world.device(name)
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    webhook = {"url": web.url, "every": 60, **more}
    asked = {
        "model": "digits",
        "version": "2.0.0",
        "waves": ["1", "100%"],
        "bake_seconds": 0,
        "gate": {"webhook": webhook},
    }
    answer = await api.post("/rollouts", json=asked)
    assert answer.status_code == 201, answer.text
    made = str(answer.json()["id"])
    await world.driver.advance()
    canary = next(it.device for it in (await world.view(made)).deployments if it.wave == 1)
    await world.report(canary, made, "committed", version="2.0.0")
    await world.serve(canary, "2.0.0")
    return made


async def turn(world: Any, driver: HookDriver, seconds: float = 0) -> Any:
    world.after(seconds)
    await driver.advance()
    await world.driver.advance()


def hook_check(view: Any) -> tuple[str, str]:
    return next((it.result, it.detail) for it in view.gates if it.name == "webhook")


async def test_a_wave_waits_for_a_pass_that_is_asked_for_signed(
    world: Any, api: httpx2.AsyncClient, web: WebReceiver
) -> None:
    web.answer = b'{"result": "wait", "reason": "the night shift is\\n not here"}'
    made, driver = await started(world, api, web), HookDriver(world)
    await world.driver.advance()
    assert (await world.view(made)).wave == 1  # nobody was asked yet
    await turn(world, driver)
    view = await world.view(made)
    assert (view.wave, hook_check(view)) == (1, ("wait", "webhook: the night shift is not here"))
    (post,) = web.posts
    moment, _, mac = post.headers["flotilla-signature"].partition(",v1=")
    signed = moment.removeprefix("t=").encode() + b"." + post.body
    assert mac == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    said = json.loads(post.body)
    assert (said["type"], said["rollout"], said["wave"]["index"]) == ("rollout-gate/1", made, 1)
    assert said["devices"] == {"released": 1, "committed": 1, "ended": 1, "silent": 0}
    assert {"failures", "errors"} <= {it["name"] for it in said["checks"]}
    await turn(world, driver, 30)
    assert len(web.posts) == 1  # not before `every` is over
    web.answer = b'{"result": "pass"}'
    await turn(world, driver, 31)
    assert (await world.view(made)).wave == 2


async def test_a_fail_stops_the_rollout_with_its_reason(world: Any, api: httpx2.AsyncClient, web: WebReceiver) -> None:
    web.answer = b'{"result": "fail", "reason": "line 3 sees ghosts", "more": 1}'
    made = await started(world, api, web)
    await turn(world, HookDriver(world))
    view = await world.view(made)
    assert (view.state, view.reason) == ("rolling-back", "webhook: line 3 sees ghosts")


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (500, b"no", "HTTP 500"),
        (302, b"no", "HTTP 302"),
        (200, b"no", "did not answer"),
        (200, b'{"result": "maybe"}', "did not answer"),
        (200, b"[" * 20_000, "did not answer"),
        (HANGS, b"", "no answer in 0.3 s"),
    ],
)
async def test_what_is_no_answer_means_to_wait(
    world: Any, api: httpx2.AsyncClient, web: WebReceiver, status: int, answer: bytes, reason: str
) -> None:
    web.plan(status)
    web.answer = answer
    made = await started(world, api, web, timeout=0.3)
    await turn(world, HookDriver(world))
    view = await world.view(made)
    assert view.wave == 1
    assert hook_check(view)[0] == "wait"
    assert reason in hook_check(view)[1]


@pytest.mark.parametrize(("policy", "state"), [("fail", "rolling-back"), ("wait", "running")])
async def test_after_the_limit_the_policy_decides(
    world: Any, api: httpx2.AsyncClient, web: WebReceiver, policy: str, state: str
) -> None:
    made, driver = await started(world, api, web, give_up=100, on_limit=policy), HookDriver(world)
    await web.stop()  # nobody answers
    await turn(world, driver)
    assert hook_check(await world.view(made))[1].startswith("the webhook cannot be reached")
    await turn(world, driver, 99)
    assert (await world.view(made)).state == "running"
    await turn(world, driver, 2)
    assert (await world.view(made)).state == state


async def test_an_answer_survives_a_restart(world: Any, api: httpx2.AsyncClient, web: WebReceiver) -> None:
    web.answer = b'{"result": "wait"}'
    await started(world, api, web)
    await HookDriver(world).advance()
    await HookDriver(world).advance()  # as after a restart: it was asked already
    assert len(web.posts) == 1


SETTINGS = FleetSettings(gates=GateSettings(secret=SecretStr(SECRET)))
CHANNELS = FleetSettings.model_validate(
    {"channels": {"ops": {"kind": "webhook", "url": "https://x.example", "secret": SECRET},
                  "mail": {"kind": "email", "host": "h", "sender": "a@b.c", "recipients": ["a@b.c"]}}}
)  # fmt: skip


@pytest.mark.parametrize(
    ("hook", "settings", "words"),
    [
        (Hook(url="https://x.example"), FleetSettings(), "no secret"),
        (Hook(url="http://127.0.0.1:1"), SETTINGS, "this machine"),
        (Hook(channel="mail"), CHANNELS, "not a channel of kind webhook"),
        (Hook(channel="nobody"), CHANNELS, "not a channel of kind webhook"),
    ],
)
def test_a_webhook_that_cannot_be_asked_is_refused_at_once(hook: Hook, settings: FleetSettings, words: str) -> None:
    with pytest.raises(HookError, match=words) as caught:
        hooks.checked(hook, settings)
    assert caught.value.remedy


async def test_a_name_that_leads_to_a_private_network_is_not_posted_to(
    world: Any, api: httpx2.AsyncClient, web: WebReceiver
) -> None:
    made, driver = await started(world, api, web), HookDriver(world)
    own = GateSettings(secret=SecretStr(SECRET))
    world.settings = world.settings.model_copy(update={"gates": own})
    await turn(world, driver)
    assert "this machine" in hook_check(await world.view(made))[1]
    assert web.posts == []


@pytest.mark.parametrize(
    "webhook", [{}, {"url": "ftp://x"}, {"url": "https://x.example", "channel": "ops"}, {"channel": "a", "every": 1}]
)
async def test_a_webhook_in_another_form_is_refused(
    world: Any, api: httpx2.AsyncClient, webhook: dict[str, Any]
) -> None:
    body = {"model": "digits", "version": "2.0.0", "gate": {"webhook": webhook}}
    assert (await api.post("/rollouts?dry_run=true", json=body)).status_code == 422


def test_a_channel_brings_its_own_secret_and_address() -> None:
    found = hooks.destination(Hook(channel="ops"), CHANNELS)
    assert (found.url, found.secret) == ("https://x.example", SecretStr(SECRET))


def test_a_pass_of_the_wave_before_is_none_of_this_one() -> None:
    asking = rollout(1, 1, limits=Limits(webhook=Hook(channel="ops")), wave=1)
    said = HookAnswer(0, "pass", "webhook: fine", T0)
    known: Evidence = replace(evidence(1, 1), hook=said)
    found = next(it for it in gate.judge(asking, known, at(0)) if it.name == "webhook")
    assert (found.result, found.holds) == (Result.WAIT, True)
    again = hooks.taken(said, 1, hooks.Answer(result="wait"), at(5))
    assert hooks.taken(again, 1, hooks.Answer(result="wait"), at(9)).since == at(5)
