"""The tables of people who sign in with a password; `tables` has them as well.

I/O: none.
"""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet.store.columns import Base


class User(Base):
    """A person. A name is given once and never again, so that the audit keeps its meaning."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(Text)  # argon2id over the keyed hash of the password
    created_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
    password_at: Mapped[datetime]  # when it was chosen
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class SignInAttempt(Base):
    """Failures in a row, of one name or one address. A row in time is forgotten."""

    __tablename__ = "sign_in_attempts"
    key: Mapped[str] = mapped_column(String(80), primary_key=True)  # keyed hashes: people type passwords as names
    failures: Mapped[int]
    until: Mapped[datetime | None]  # nothing is tried before
    at: Mapped[datetime] = mapped_column(index=True)
