"""Tables of the gate of rollouts; `tables` has them as well.

I/O: none.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet.store.columns import Base


class Habit(Base):
    """What one device did in the days before a rollout, for the gate's comparisons. Rates are for each unit."""

    __tablename__ = "habits"
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    hardware: Mapped[str] = mapped_column(String(64))
    ready: Mapped[bool] = mapped_column(default=False)  # the rates are known
    slow_above: Mapped[int]  # results in later latency bins are slow ones; beyond all bins without history
    error_rate: Mapped[float] = mapped_column(default=0.0)  # of requests
    slow_rate: Mapped[float] = mapped_column(default=0.0)  # of results; 0 without history
    crash_rate: Mapped[float] = mapped_column(default=0.0)  # restarts a second
    wrong_rate: Mapped[float] = mapped_column(default=0.0)  # of labelled answers
    error_squares: Mapped[float] = mapped_column(default=0.0)  # habits.Spread
    error_expected: Mapped[float] = mapped_column(default=0.0)
    slow_squares: Mapped[float] = mapped_column(default=0.0)
    slow_expected: Mapped[float] = mapped_column(default=0.0)
    wrong_expected: Mapped[float] = mapped_column(default=0.0)
    excluded: Mapped[bool] = mapped_column(default=False)  # its crashes prove nothing: it crashed or was silent before
    crashes: Mapped[int] = mapped_column(default=0)  # of this rollout that were counted
    silent: Mapped[bool] = mapped_column(default=False)  # that was counted as well


class TrialState(Base):
    """The gate's comparisons of one rollout, with all windows that came before `until` taken in."""

    __tablename__ = "trials"
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    until: Mapped[datetime]
    body: Mapped[dict[str, Any]]  # trials.Trials
    usual_failures: Mapped[float | None]  # share of devices that ended badly in rollouts before
    accuracy: Mapped[float | None]  # of the release on its reference data


class Verdict(Base):
    """What the gate said, when it changed and now and then between, with all that it was said on."""

    __tablename__ = "verdicts"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    at: Mapped[datetime] = mapped_column(index=True)
    result: Mapped[str] = mapped_column(String(8))  # pass, wait, fail
    body: Mapped[dict[str, Any]]  # verdicts.Verdict
    __table_args__ = (Index("verdicts_by_rollout", "rollout_id", "id"),)


class HookState(Base):
    """What the webhook of a rollout last said."""

    __tablename__ = "hooks"
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    wave: Mapped[int]
    result: Mapped[str] = mapped_column(String(8))  # pass, wait, fail
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime]  # first asked about this wave without a pass since
    asked_at: Mapped[datetime]
