"""What can be asked, by noun. Written once for both worlds: answers are values, or awaited.

`One` is what one document comes back as (`Document`, or `Awaitable[Document]`), `Many` a whole list.

I/O: none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from fleet.rest.calls import Call, Document, get, given, post, under

One = TypeVar("One", covariant=True)
Many = TypeVar("Many", covariant=True)
Done: TypeAlias = Callable[[Document], bool]
Role: TypeAlias = Literal["viewer", "operator", "approver", "releaser", "admin"]
#: `all`, ids, or what `POST /rollouts` takes: `{"labels": {...}}`, `{"site": ...}`.
Target: TypeAlias = str | Sequence[str] | Mapping[str, Any]

#: States in which nothing more happens by itself.
ROLLOUT_OVER: Final = frozenset({"completed", "aborted", "rolled-back", "failed"})


class Ask(Protocol[One, Many]):
    """How calls are made."""

    def one(self, call: Call) -> One:
        """The document that answers `call`."""

    def many(self, call: Call) -> Many:
        """All items of a list, page after page."""

    def until(self, call: Call, done: Done, timeout_seconds: float | None) -> One:
        """The first answer of which `done` is true; asked again every second.

        Raises:
            WaitError: not within `timeout_seconds`.
        """


class _Resource(Generic[One, Many]):
    def __init__(self, ask: Ask[One, Many]) -> None:
        self._ask = ask


class Devices(_Resource[One, Many]):
    """`/devices`."""

    def list(self, filter: str = "", *, order: str = "id") -> Many:  # noqa: A002  # its name in the interface
        """Devices that fit `filter`, such as `site:hall-3 online:true`."""
        return self._ask.many(get("/devices", filter=filter or None, order=order))

    def get(self, device: str) -> One:
        """One device, by id or by its only name."""
        return self._ask.one(get(under("devices", device)))

    def metrics(self, device: str, *, limit: int = 60) -> One:
        """Its newest telemetry windows, newest first, in `items`."""
        return self._ask.one(get(f"{under('devices', device)}/metrics", limit=limit))

    def change(self, device: str, **fields: Any) -> One:
        """Name, site, labels; what is not given stays as it is."""
        return self._ask.one(Call("PATCH", under("devices", device), json=given(**fields)))

    def accept(self, device: str) -> One:
        """Let a waiting device in."""
        return self._ask.one(post(under("devices", device, "accept")))

    def reject(self, device: str) -> One:
        """Send a waiting device away."""
        return self._ask.one(post(under("devices", device, "reject")))

    def revoke(self, device: str) -> One:
        """Shut a device out, for good and at once."""
        return self._ask.one(post(under("devices", device, "revoke")))

    def roll_back(self, device: str, *, model: str | None = None, dry_run: bool = False) -> One:
        """Back to the version in the other slot."""
        return self._ask.one(post(under("devices", device, "rollback"), model=model, dry_run=dry_run or None))

    def wait(self, device: str, done: Done, *, timeout_seconds: float | None = None) -> One:
        """The device, once `done` is true of it."""
        return self._ask.until(get(under("devices", device)), done, timeout_seconds)


class Invites(_Resource[One, Many]):
    """`/invites`: claim tokens, by which devices enrol themselves."""

    def create(
        self,
        *,
        uses: int = 1,
        site: str = "",
        labels: Mapping[str, str] | None = None,
        expires_seconds: int | None = None,
        auto_accept: bool = True,
    ) -> One:
        """A new claim token, in `token`; it is shown once."""
        body = given(uses=uses, site=site, labels=labels, expires_seconds=expires_seconds, auto_accept=auto_accept)
        return self._ask.one(post("/invites", body))

    def list(self) -> Many:
        """Claim tokens, without the tokens."""
        return self._ask.many(get("/invites"))

    def delete(self, invite: str) -> One:
        """Make a claim token useless."""
        return self._ask.one(Call("DELETE", under("invites", invite)))


class Models(_Resource[One, Many]):
    """`/models`. To publish: `Fleet.publish`."""

    def list(self) -> Many:
        """All models with their newest version."""
        return self._ask.many(get("/models"))

    def withdraw(self, model: str, version: str, reason: str, *, rollback: bool = False, dry_run: bool = False) -> One:
        """Give a version to no device any more; with `rollback` who serves it goes back."""
        path = under("models", model, "versions", version, "withdraw")
        return self._ask.one(post(path, {"reason": reason, "rollback": rollback}, dry_run=dry_run or None))

    def restore(self, model: str, version: str, reason: str) -> One:
        """Give a withdrawn version out again."""
        return self._ask.one(post(under("models", model, "versions", version, "restore"), {"reason": reason}))

    def versions(self, model: str) -> Many:
        """All versions of a model, newest first."""
        return self._ask.many(get(under("models", model, "versions")))

    def get(self, model: str, version: str) -> One:
        """One version with its manifest and baseline."""
        return self._ask.one(get(under("models", model, "versions", version)))

    def clean_up(self, *, dry_run: bool = False) -> One:
        """Retire old versions that nothing needs, as `versioning` says; with `dry_run` only tell which."""
        return self._ask.one(post("/models/cleanup", dry_run=dry_run or None))


class Rollouts(_Resource[One, Many]):
    """`/rollouts`."""

    def plan(self, model: str, version: str, *, target: Target = "all", **options: Any) -> One:
        """What a rollout would do. Nothing is changed."""
        return self._ask.one(post("/rollouts", _wanted(model, version, target, options), dry_run=True))

    def start(self, model: str, version: str, *, target: Target = "all", key: str | None = None, **options: Any) -> One:
        """Begin one. `options` are fields of `POST /rollouts`: strategy, waves, bake_seconds, batch_size, gate ...

        With the same `key` a repeated call within a day starts nothing new.
        """
        call = post("/rollouts", _wanted(model, version, target, options))
        headers = {"Idempotency-Key": key} if key else {}
        return self._ask.one(Call(call.method, call.path, json=call.json, headers=headers))

    def list(self, *, state: str | None = None, model: str | None = None) -> Many:
        """Rollouts, newest first; `state="active"`: those in which something may still happen."""
        return self._ask.many(get("/rollouts", state=state, model=model))

    def get(self, rollout: str) -> One:
        """One rollout with its waves, devices, gates and timeline."""
        return self._ask.one(get(under("rollouts", rollout)))

    def wait(self, rollout: str, *, timeout_seconds: float | None = None) -> One:
        """The rollout, once it is over."""
        return self._ask.until(get(under("rollouts", rollout)), lambda it: it["state"] in ROLLOUT_OVER, timeout_seconds)

    def steer(self, rollout: str, verb: str, **body: Any) -> One:
        """Any action of a rollout: pause, resume, promote, approve, abort, rollback."""
        return self._ask.one(post(under("rollouts", rollout, verb), given(**body)))

    def pause(self, rollout: str, *, reason: str = "") -> One:
        """Tell no further device."""
        return self.steer(rollout, "pause", reason=reason)

    def resume(self, rollout: str, *, reason: str = "") -> One:
        """Go on after `pause`."""
        return self.steer(rollout, "resume", reason=reason)

    def promote(self, rollout: str, *, reason: str = "") -> One:
        """Waive the bake of the wave that is out."""
        return self.steer(rollout, "promote", reason=reason)

    def approve(self, rollout: str, *, reason: str = "") -> One:
        """Let one begin, or go on, that waits for another person than its author."""
        return self.steer(rollout, "approve", reason=reason)

    def abort(self, rollout: str, *, reason: str = "", **how: Any) -> One:
        """Stop; `how` says what becomes of devices that were told."""
        return self.steer(rollout, "abort", reason=reason, **how)

    def roll_back(self, rollout: str, *, reason: str = "") -> One:
        """Stop, and bring devices back to the version before."""
        return self.steer(rollout, "rollback", reason=reason)


def _wanted(model: str, version: str, target: Target, options: Mapping[str, Any]) -> Document:
    match target:
        case str() | Mapping():
            said: Any = target
        case _:
            said = {"ids": list(target)}
    return {"model": model, "version": version, "target": said, **given(**options)}


class Drift(_Resource[One, Many]):
    """`/drift`."""

    def list(self, *, model: str | None = None, scope: str | None = None, state: str | None = None) -> Many:
        """The newest verdict on every feature; `scope`: `device:cam-1`, `fleet`, ..."""
        return self._ask.many(get("/drift", model=model, scope=scope, state=state))

    def get(self, model: str, *, scope: str | None = None) -> One:
        """All features of one model, with the counts of window and reference over the same bins."""
        return self._ask.one(get(under("drift", model), scope=scope))


class Alerts(_Resource[One, Many]):
    """`/alerts`."""

    def list(self, *, state: str = "live", kind: str | None = None, scope: str | None = None) -> Many:
        """Alerts, newest first; `state="all"` with those that are over."""
        return self._ask.many(get("/alerts", state=state, kind=kind, scope=scope))

    def get(self, alert: str) -> One:
        """One alert with its evidence."""
        return self._ask.one(get(under("alerts", alert)))

    def acknowledge(self, alert: str, *, note: str | None = None) -> One:
        """I look after it."""
        return self._ask.one(post(under("alerts", alert, "ack"), given(note=note)))

    def resolve(self, alert: str, *, note: str | None = None) -> One:
        """It is over."""
        return self._ask.one(post(under("alerts", alert, "resolve"), given(note=note)))

    def silence(self, matcher: Mapping[str, Any], *, seconds: int, comment: str) -> One:
        """Tell nobody of alerts that fit, for so long."""
        return self._ask.one(post("/silences", {"matcher": dict(matcher), "seconds": seconds, "comment": comment}))


class Tokens(_Resource[One, Many]):
    """`/tokens`."""

    def create(
        self,
        name: str,
        role: Role,
        *,
        expires_seconds: int | None = None,
    ) -> One:
        """A new access token, in `token`; it is shown once."""
        return self._ask.one(post("/tokens", given(name=name, role=role, expires_seconds=expires_seconds)))

    def list(self) -> Many:
        """Tokens, without the secrets."""
        return self._ask.many(get("/tokens"))

    def revoke(self, token: str) -> One:
        """End a token at once."""
        return self._ask.one(Call("DELETE", under("tokens", token)))


class Users(_Resource[One, Many]):
    """`/users`: people who sign in with name and password."""

    def create(self, name: str, role: Role, password: str, *, expires_seconds: int | None = None) -> One:
        """Let a person in."""
        body = given(name=name, role=role, password=password, expires_seconds=expires_seconds)
        return self._ask.one(post("/users", body))

    def list(self) -> Many:
        """People, by name."""
        return self._ask.many(get("/users"))

    def get(self, name: str) -> One:
        """One person, where they are signed in, and their tokens."""
        return self._ask.one(get(under("users", name)))

    def change(
        self, name: str, *, role: Role | None = None, password: str | None = None, expires_seconds: int | None = None
    ) -> One:
        """Another role, password or end; what is not given stays as it is."""
        body = given(role=role, password=password, expires_seconds=expires_seconds)
        return self._ask.one(Call("PATCH", under("users", name), json=body))

    def revoke(self, name: str) -> One:
        """Shut a person out at once, with every token that they made."""
        return self._ask.one(Call("DELETE", under("users", name)))


class Audit(_Resource[One, Many]):
    """`/audit`."""

    def list(self) -> Many:
        """Who did what, newest first."""
        return self._ask.many(get("/audit"))

    def verify(self) -> One:
        """Is the chain of hashes intact?"""
        return self._ask.one(get("/audit/verify"))


class Schedules(_Resource[One, Many]):
    """`/schedules`: rollouts for later."""

    def create(self, model: str, version: str, *, target: Target = "all", **options: Any) -> One:
        """One that is due at `at` (RFC 3339) or by `cron`; `version` may be an alias. Options as of a rollout."""
        return self._ask.one(post("/schedules", _wanted(model, version, target, options)))

    def list(self, *, state: str = "live") -> Many:
        """Schedules, newest first; `state="all"` with those that are over."""
        return self._ask.many(get("/schedules", state=state))

    def get(self, schedule: str) -> One:
        """One schedule."""
        return self._ask.one(get(under("schedules", schedule)))

    def pause(self, schedule: str) -> One:
        """Let its time pass."""
        return self._ask.one(post(under("schedules", schedule, "pause")))

    def resume(self, schedule: str) -> One:
        """Go on after `pause`."""
        return self._ask.one(post(under("schedules", schedule, "resume")))

    def cancel(self, schedule: str) -> One:
        """End it. A rollout that it made already goes on."""
        return self._ask.one(post(under("schedules", schedule, "cancel")))
