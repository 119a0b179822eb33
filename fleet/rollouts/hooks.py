"""The webhook of a gate: who is asked, what is posted, what an answer means (docs/gates.md).

    POST {"type": "rollout-gate/1", "rollout": ..., "wave": ..., "checks": [...]}    signed as alerts are
    200  {"result": "pass" | "wait" | "fail", "reason": "..."}

I/O: none.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from fleet.alerts.channels import LOOPBACK, Webhook, web_address
from fleet.rollouts.checks import Check
from fleet.rollouts.errors import HookError
from fleet.rollouts.states import Hook, HookAnswer, Rollout
from fleet.settings import FleetSettings
from shared.clock import rfc3339

#: Of an answer, more is not read.
MAX_ANSWER_BYTES: Final = 16 * 1024


class Body(BaseModel):
    """`gate.webhook` of a request: a URL, or the name of a channel of kind webhook."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    url: Annotated[str, Field(max_length=1000), AfterValidator(web_address)] | None = None
    channel: Annotated[str, Field(max_length=64)] | None = None
    timeout: Annotated[float, Field(gt=0, le=60)] = 10.0  # seconds, as everything here
    every: Annotated[float, Field(ge=5, le=86400)] = 60.0
    give_up: Annotated[float, Field(gt=0, le=30 * 86400)] = 3600.0
    on_limit: Literal["wait", "fail"] = "wait"

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if (self.url is None) == (self.channel is None):
            raise ValueError("name either a url or a channel")
        return self

    def hook(self) -> Hook:
        """As the engine knows it."""
        return Hook(self.url, self.channel, self.timeout, self.every, self.give_up, self.on_limit)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where and how the question goes."""

    url: str
    secret: SecretStr | None
    secret_file: Path | None
    allow_private: bool
    ca_file: Path | None


def destination(hook: Hook, settings: FleetSettings) -> Destination:
    """Where `hook` leads with these settings.

    Raises:
        HookError: the channel does not exist or is of another kind; there is no secret to sign with; the URL leads
            to this machine.
    """
    if hook.channel is not None:
        channel = settings.channels.get(hook.channel)
        if not isinstance(channel, Webhook):
            raise HookError(f"{hook.channel!r} is not a channel of kind webhook")
        return Destination(channel.url, channel.secret, channel.secret_file, channel.allow_private, channel.ca_file)
    mine = settings.gates
    if mine.secret is None and mine.secret_file is None:
        raise HookError(
            "there is no secret to sign with", remedy="set gates.secret_file in fleet.yaml, or name a channel"
        )
    url = hook.url or ""
    if urlsplit(url).hostname in LOOPBACK and not mine.allow_private:
        raise HookError(
            "the URL leads to this machine", remedy="set gates.allow_private in fleet.yaml, or name a channel"
        )
    return Destination(url, mine.secret, mine.secret_file, mine.allow_private, mine.ca_file)


def checked(hook: Hook, settings: FleetSettings) -> Hook:
    """`hook`, if it can be asked.

    Raises:
        HookError: as `destination`.
    """
    destination(hook, settings)
    return hook


def question(rollout: Rollout, checks: tuple[Check, ...], counts: dict[str, int], now: datetime) -> bytes:
    """What is posted."""
    wave = rollout.waves[rollout.wave]
    said = {
        "type": "rollout-gate/1",
        "rollout": rollout.id,
        "model": rollout.model,
        "version": rollout.version,
        "wave": {"index": rollout.wave + 1, "of": len(rollout.waves), "name": wave.name, "devices": wave.size},
        "devices": counts,
        "checks": [
            {
                "name": it.name, "result": it.result, "value": it.value, "limit": it.limit, "unit": it.unit,
                "reference": it.reference, "e_value": it.e_value, "p": it.p, "detail": it.detail,
            }
            for it in checks if not it.holds
        ],
        "at": rfc3339(now),
    }  # fmt: skip
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


class Answer(BaseModel):
    """What comes back; what else is in it is not looked at."""

    model_config = ConfigDict(frozen=True)

    result: Literal["pass", "wait", "fail"]
    reason: str = ""


def read(status: int, body: bytes) -> Answer:
    """The answer; everything that is none means to wait, with the reason."""
    if status != 200:
        return Answer(result="wait", reason=f"the webhook answered HTTP {status}")
    try:
        said = Answer.model_validate_json(body)
    except (ValidationError, RecursionError):
        return Answer(result="wait", reason='the webhook did not answer {"result": "pass", "wait" or "fail"}')
    reason = " ".join(said.reason.split())[:400]
    return Answer(result=said.result, reason=f"webhook: {reason}" if reason else f"the webhook says {said.result}")


def taken(before: HookAnswer | None, wave: int, answer: Answer, now: datetime) -> HookAnswer:
    """The newest answer, with the time since when this wave waits for a pass."""
    same = before is not None and before.wave == wave and before.result != "pass"
    return HookAnswer(wave, answer.result, answer.reason, before.since if before is not None and same else now)


def due(hook: Hook, asked_at: datetime | None, now: datetime) -> bool:
    """Whether it is to be asked now; `asked_at` is when it was last asked about this wave."""
    return asked_at is None or now - asked_at >= timedelta(seconds=hook.every_seconds)
