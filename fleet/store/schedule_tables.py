"""Tables of schedules and aliases; `tables` names them among the others.

I/O: none.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String, false
from sqlalchemy.orm import Mapped, mapped_column

from fleet.store.columns import Base


class Schedule(Base):
    """Work for later: `state` is the word shown, `body` the whole `fleet.schedules.states.Schedule`."""

    __tablename__ = "schedules"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), index=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    body: Mapped[dict[str, Any]]
    rollout_id: Mapped[str | None] = mapped_column(String(16), index=True)  # the newest one that it made
    created_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Alias(Base):
    """A name that stands for a version of a model, such as `stable`; devices follow it."""

    __tablename__ = "aliases"
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64))
    moved_by: Mapped[str] = mapped_column(String(128))
    moved_at: Mapped[datetime]


class AliasMove(Base):
    """Every move of an alias, so that it can be undone. `version` None: it was removed."""

    __tablename__ = "alias_moves"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    model: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    before: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[str | None] = mapped_column(String(64))
    by: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]
    undone: Mapped[bool] = mapped_column(default=False, server_default=false())
    undoes: Mapped[bool] = mapped_column(default=False, server_default=false())  # it is itself the undoing of one
    __table_args__ = (Index("alias_moves_by_name", "model", "name"),)
