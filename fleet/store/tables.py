"""Tables of the manager. `migrations/` brings an older database to this form.

Times are aware UTC; JSON columns hold exactly what the named type serialises to.

I/O: none.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet.store.columns import Base as Base
from fleet.store.columns import Large
from fleet.store.columns import UtcDateTime as UtcDateTime
from fleet.store.gate_tables import Habit as Habit
from fleet.store.gate_tables import HookState as HookState
from fleet.store.gate_tables import TrialState as TrialState
from fleet.store.gate_tables import Verdict as Verdict
from fleet.store.leadership_table import Leadership as Leadership
from fleet.store.schedule_tables import Alias as Alias
from fleet.store.schedule_tables import AliasMove as AliasMove
from fleet.store.schedule_tables import Schedule as Schedule
from fleet.store.user_tables import SignInAttempt as SignInAttempt
from fleet.store.user_tables import User as User

_FAILED: Final = text("failed > 0")


class Device(Base):
    """A device that enrolled. `lifecycle`: pending, active, revoked."""

    __tablename__ = "devices"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    site: Mapped[str] = mapped_column(String(128), default="")
    labels: Mapped[dict[str, Any]]
    hardware: Mapped[str] = mapped_column(String(64), default="")  # hardware class
    lifecycle: Mapped[str] = mapped_column(String(16), default="active", index=True)
    sign_key: Mapped[bytes]  # Ed25519 public
    box_key: Mapped[bytes]  # X25519 public
    api_key_hash: Mapped[str] = mapped_column(String(64))  # keyed blake2b-256, hex
    enrolled_at: Mapped[datetime]
    # What the device last said of itself (messages.DeviceState), and when we heard it:
    online: Mapped[bool] = mapped_column(default=False)
    seen_at: Mapped[datetime | None]
    boot: Mapped[str] = mapped_column(String(64), default="")
    agent_version: Mapped[str] = mapped_column(String(32), default="")
    slots: Mapped[list[Any]]
    features: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")  # what its agent can do, by name
    serving: Mapped[dict[str, Any]]  # model -> version
    # What we told it: version and the two signed documents of the newest announcement.
    assignment: Mapped[int] = mapped_column(default=0)
    assigned: Mapped[str | None] = mapped_column(Text)  # raw signed assignment (TUF role `director`)


class Stream(Base):
    """Highest durable sequence of one outbox of one device, for each kind of message."""

    __tablename__ = "streams"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)  # report, telemetry
    durable: Mapped[int] = mapped_column(default=0)
    shed: Mapped[int] = mapped_column(default=0)  # messages that the device threw away for want of room


class Invite(Base):
    """A claim token. Only its hash is kept."""

    __tablename__ = "invites"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    site: Mapped[str] = mapped_column(String(128), default="")
    labels: Mapped[dict[str, Any]]
    auto_accept: Mapped[bool] = mapped_column(default=True)
    uses_left: Mapped[int]
    created_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Release(Base):
    """One version of one model. `state`: released, withdrawn, retired (its chunks are gone)."""

    __tablename__ = "releases"
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    counter: Mapped[int]
    manifest_digest: Mapped[str] = mapped_column(String(64), unique=True)
    manifest: Mapped[bytes]  # as signed
    escrow_key: Mapped[str] = mapped_column(Text)  # content key sealed to the manager's escrow key
    baseline: Mapped[dict[str, Any]]  # sketches.Baseline
    state: Mapped[str] = mapped_column(String(16), default="released")
    published_by: Mapped[str] = mapped_column(String(128))
    published_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]  # given to no device since; stays when it is retired
    withdrawn_by: Mapped[str | None] = mapped_column(String(128))
    withdrawn_reason: Mapped[str | None] = mapped_column(Text)
    __table_args__ = (UniqueConstraint("model", "counter"),)


class Metadata(Base):
    """TUF metadata as received or signed: every root, the newest of every other role."""

    __tablename__ = "metadata"
    role: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class Rollout(Base):
    """`state` is the word shown; `body` is the whole engine.Rollout."""

    __tablename__ = "rollouts"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), index=True)
    version: Mapped[str] = mapped_column(String(64))
    strategy: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(24), index=True)
    reason: Mapped[str | None] = mapped_column(Text)
    body: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    priority: Mapped[int] = mapped_column(default=1, server_default="1")  # its rank: the highest first


class Deployment(Base):
    """One device in one rollout."""

    __tablename__ = "deployments"
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True, index=True)
    wave: Mapped[int]
    state: Mapped[str] = mapped_column(String(24))  # queued, a messages.Phase, timed-out
    reason: Mapped[str | None] = mapped_column(Text)
    detail: Mapped[str | None] = mapped_column(Text)
    since: Mapped[datetime]
    previous: Mapped[str | None] = mapped_column(String(64))  # version that served before
    assignment: Mapped[int] = mapped_column(default=0)  # assignment version that carried it
    fetched_bytes: Mapped[int | None] = mapped_column(Large)
    total_bytes: Mapped[int | None] = mapped_column(Large)
    sources: Mapped[dict[str, Any] | None]  # bytes that came, by source, as the device counted them
    told_at: Mapped[datetime | None]  # when the rollout decided to announce it; deadlines count from here
    switched_at: Mapped[datetime | None]  # when it was decided that it swaps: with the announcement, or later
    recalled_at: Mapped[datetime | None]  # when the rollout decided to take it back; `state` then tells of the way back
    outcome: Mapped[str | None] = mapped_column(String(24))  # how the way forward stood when it was taken back
    outcome_reason: Mapped[str | None] = mapped_column(Text)
    outcome_detail: Mapped[str | None] = mapped_column(Text)
    shadow: Mapped[dict[str, Any] | None]  # messages.ShadowFigures, the newest reported


class OwedAction(Base):
    """An effect that a saved decision owes; performed at least once, each performance harmless."""

    __tablename__ = "owed_actions"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))  # announce, stage, switch, recall, call-off
    device_id: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    owed_at: Mapped[datetime]
    performed_at: Mapped[datetime | None] = mapped_column(index=True)


class Report(Base):
    """Every update report, once."""

    __tablename__ = "reports"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(String(64), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    rollout_id: Mapped[str | None] = mapped_column(String(16), index=True)
    phase: Mapped[str] = mapped_column(String(24))
    received_at: Mapped[datetime]
    body: Mapped[dict[str, Any]]  # messages.UpdateReport


class Window(Base):
    """Every telemetry window, once."""

    __tablename__ = "windows"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(String(64), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    start: Mapped[datetime]
    end: Mapped[datetime]
    received_at: Mapped[datetime]
    requests: Mapped[int]
    failed: Mapped[int]
    body: Mapped[dict[str, Any]]  # messages.TelemetryWindow
    counted: Mapped[bool] = mapped_column(default=False, server_default=false())  # its counts are in `sketches`
    __table_args__ = (
        Index("windows_by_release", "model", "version", "received_at"),
        Index("windows_to_count", "counted", "received_at"),
        Index("windows_by_device", "device_id", "received_at"),
        Index("windows_by_arrival", "received_at"),
        Index("windows_with_failures", "received_at", "device_id", sqlite_where=_FAILED, postgresql_where=_FAILED),
    )


class Sketch(Base):
    """All feature counts of one release on one device in one hour or day (`span`)."""

    __tablename__ = "sketches"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    span: Mapped[str] = mapped_column(String(4), primary_key=True)  # hour, day
    start: Mapped[datetime] = mapped_column(primary_key=True)
    vector: Mapped[bytes]  # telemetry.vectors.pack, in the order of telemetry.layout
    __table_args__ = (Index("sketches_by_start", "span", "start"),)


class BaselineChoice(Base):
    """What a scope is compared with when it is not the release's reference data, and the days that are ordinary."""

    __tablename__ = "baselines"
    scope: Mapped[str] = mapped_column(String(80), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    vector: Mapped[bytes | None]  # None: the release's own
    days: Mapped[list[Any]]  # first instants of the ordinary days, RFC 3339
    pinned: Mapped[bool]
    chosen_by: Mapped[str] = mapped_column(String(128))
    chosen_at: Mapped[datetime]


class DriftState(Base):
    """The newest verdict on one feature of one release in one scope: `device:ID`, `site:S`, `hardware:H`, `fleet`."""

    __tablename__ = "drift"
    scope: Mapped[str] = mapped_column(String(80), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    feature: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))  # collecting, ok, warning, drifted
    samples: Mapped[int]
    body: Mapped[dict[str, Any]]  # drift.Statistics and the counts that they were computed from
    since: Mapped[datetime]
    updated_at: Mapped[datetime]


class Alert(Base):
    """`state`: `fleet.alerts.states.State`. At most one alert per (kind, scope, subject) that is not resolved."""

    __tablename__ = "alerts"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), index=True)  # `fleet.alerts.states.KINDS`
    scope: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(160))  # such as `digits@1.1.0 input.brightness`
    severity: Mapped[str] = mapped_column(String(16))  # low, medium, high, critical
    state: Mapped[str] = mapped_column(String(16), index=True)
    text: Mapped[str] = mapped_column(Text)
    body: Mapped[dict[str, Any]]
    note: Mapped[str | None] = mapped_column(Text)
    acknowledged_by: Mapped[str | None] = mapped_column(String(128))
    opened_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
    since: Mapped[datetime | None]  # when it came into its state; None: at its opening
    told_at: Mapped[datetime | None]  # when a message about it was first owed to somebody


class Silence(Base):
    """Alerts that fit `matcher` are not told to anybody until `until`, or until somebody ends it."""

    __tablename__ = "silences"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    matcher: Mapped[dict[str, Any]]  # matching.Matcher
    comment: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    until: Mapped[datetime] = mapped_column(index=True)
    ended_by: Mapped[str | None] = mapped_column(String(128))
    ended_at: Mapped[datetime | None]


class AlertNotice(Base):
    """What is to be told of an alert: saved with the change, settled once it was decided who is told."""

    __tablename__ = "alert_notices"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    alert_id: Mapped[str] = mapped_column(ForeignKey("alerts.id"), index=True)
    event: Mapped[str] = mapped_column(String(16))  # opened, worsened, escalated, resolved
    severity: Mapped[str] = mapped_column(String(16))
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    settled_at: Mapped[datetime | None] = mapped_column(index=True)


class Delivery(Base):
    """One message owed to one channel. `state`: pending, delivered, refused, given-up."""

    __tablename__ = "deliveries"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)  # travels in the message: drop repeats by it
    channel: Mapped[str] = mapped_column(String(64))
    purpose: Mapped[str] = mapped_column(String(16))  # notification, retraining
    group_key: Mapped[str] = mapped_column(String(255))
    body: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    outcome: Mapped[str | None] = mapped_column(Text)  # what the newest attempt brought
    owed_at: Mapped[datetime] = mapped_column(index=True)
    tried_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    __table_args__ = (Index("deliveries_by_state", "state", "channel"),)


class ChannelState(Base):
    """How a channel does: failures in a row, and when it is tried next."""

    __tablename__ = "channel_states"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    next_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]


class Event(Base):
    """What happened, in order: the activity feed, `GET /events`, the dashboard's live stream."""

    __tablename__ = "events"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(32))  # `fleet.store.events.Kind`
    level: Mapped[str] = mapped_column(String(8))  # ok, info, warn, crit
    subject: Mapped[str] = mapped_column(String(160))  # device id, rollout id, model@version, alert id
    rollout_id: Mapped[str | None] = mapped_column(String(16), index=True)
    text: Mapped[str] = mapped_column(Text)


class AuditRow(Base):
    """Every write: who, what, from where. `hash` covers the row and the hash before it."""

    __tablename__ = "audit"
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))  # such as `rollout.start`
    subject: Mapped[str] = mapped_column(String(160))
    request_id: Mapped[str] = mapped_column(String(64))
    body: Mapped[dict[str, Any]]
    hash: Mapped[str] = mapped_column(String(64))


class Token(Base):
    """A bearer token. `role`: viewer, operator, approver, releaser, admin; of a `login`, that of its user counts."""

    __tablename__ = "tokens"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    role: Mapped[str] = mapped_column(String(16))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    user_id: Mapped[str | None] = mapped_column(String(32), index=True)  # whose it is; None: made without a user
    login: Mapped[bool] = mapped_column(default=False, server_default=false())  # made by signing in with a password


class BrowserSession(Base):
    """A browser that signed in with a token, or as a user; only the hash of its cookie is kept."""

    __tablename__ = "browser_sessions"
    cookie_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"), index=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"), index=True)
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]  # whatever it does


class Answer(Base):
    """The answer once given to a POST with an Idempotency-Key, kept for 24 hours."""

    __tablename__ = "answers"
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    body: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime]
