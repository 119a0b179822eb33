"""What this device has said and the manager has not yet acknowledged: durable, in order, bounded.

Two lines (reports, telemetry), each with its own sequence from 1. Reports are never shed; telemetry
sheds its oldest beyond the limit. `stream` names this file: a new file is a new stream. Drafts are windows that are
still being filled: who opens the file after a power cut finds them as messages.

I/O: disk, chance.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.errors import OutboxError
from agent.telemetry.window import Stamp
from shared.messages import Queued, TelemetryWindow, UpdateReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from shared.clock import Clock

logger = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS stream (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS line (
  kind TEXT PRIMARY KEY,
  last INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0, shed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message (
  kind TEXT NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, sequence)
);
CREATE TABLE IF NOT EXISTS draft (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""


class Kind(StrEnum):
    """One line of the outbox."""

    REPORT = "report"
    TELEMETRY = "telemetry"


_FORMS: Final[Mapping[Kind, type[Queued]]] = {Kind.REPORT: UpdateReport, Kind.TELEMETRY: TelemetryWindow}


@dataclass(frozen=True, slots=True)
class Depth:
    """How full one line is."""

    waiting: int
    last: int
    acked: int
    shed: int


class _Line(NamedTuple):
    """What is kept of one line beside its messages."""

    last: int
    acked: int
    shed: int


class Outbox:
    """The file. Every call is one durable transaction; callers are on one thread."""

    def __init__(self, path: Path, *, device: str, limit_bytes: int, clock: Clock) -> None:
        self._path, self._device, self._limit_bytes, self._clock = path, device, limit_bytes, clock
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            self._database = self._open()
        self.stream = str(self._database.execute("SELECT id FROM stream").fetchone()[0])
        self._telemetry_bytes = self._measure()
        self._recover()

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        except sqlite3.OperationalError as error:
            raise OutboxError(f"{self._path}: {error}") from None
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            with _transaction(database):
                for statement in _SCHEMA.split(";\n"):
                    database.execute(statement)
                for kind in Kind:
                    database.execute("INSERT OR IGNORE INTO line (kind) VALUES (?)", (kind,))
                if database.execute("SELECT 1 FROM stream").fetchone() is None:
                    database.execute("INSERT INTO stream VALUES (?)", (secrets.token_hex(8),))
        except sqlite3.DatabaseError as error:
            database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise OutboxError(f"{self._path}: {error}") from None
            raise
        return database

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        logger.error("outbox damaged, starting a new one path=%s error=%s", self._path, error)
        for suffix in ("", "-wal", "-shm"):
            old = self._path.with_name(self._path.name + suffix)
            if old.exists():
                old.replace(old.with_name(old.name + ".damaged"))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _recover(self) -> None:
        """Drafts of a life that ended without a word become messages."""
        for name, body in self._database.execute("SELECT name, body FROM draft ORDER BY name").fetchall():
            kept = TelemetryWindow.parse(body)
            try:
                self.put(Kind.TELEMETRY, functools.partial(_stamped, kept), instead_of=name)
            except OutboxError as error:
                logger.warning("window lost name=%s error=%s", name, error)

    def keep(self, name: str, make: Callable[[Stamp], TelemetryWindow]) -> None:
        """Store a window that goes on, in place of what was kept of it before. Durable at return.

        Raises:
            OutboxError: it could not be stored.
        """
        stamp = Stamp(self._device, self.stream, self._line(Kind.TELEMETRY).last + 1, self._clock.now())
        body = make(stamp).to_bytes()
        try:
            self._database.execute("INSERT OR REPLACE INTO draft VALUES (?, ?)", (name, body))
        except sqlite3.OperationalError as error:
            raise OutboxError(f"{self._path}: {error}") from None

    def put(self, kind: Kind, make: Callable[[Stamp], Queued], *, instead_of: str | None = None) -> int:
        """Store the message that `make` builds from its stamp; its sequence. Durable at return.

        A draft that it stands for (`instead_of`) goes in the same transaction.

        Raises:
            OutboxError: it could not be stored, even after telemetry made room.
        """
        try:
            sequence = self._insert(kind, make, instead_of)
        except sqlite3.OperationalError as error:
            if kind is Kind.TELEMETRY or not self._shed_half():
                raise OutboxError(f"{self._path}: {error}") from None
            logger.warning("telemetry shed to make room for a report error=%s", error)
            try:
                sequence = self._insert(kind, make, instead_of)
            except sqlite3.OperationalError as again:
                raise OutboxError(f"{self._path}: {again}") from None
        return sequence

    def _insert(self, kind: Kind, make: Callable[[Stamp], Queued], instead_of: str | None) -> int:
        with _transaction(self._database):
            sequence = self._line(kind).last + 1
            body = make(Stamp(self._device, self.stream, sequence, self._clock.now())).to_bytes()
            self._database.execute("DELETE FROM draft WHERE name = ?", (instead_of,))
            self._database.execute("UPDATE line SET last = ? WHERE kind = ?", (sequence, kind))
            self._database.execute("INSERT INTO message VALUES (?, ?, ?)", (kind, sequence, body))
            grown = len(body) if kind is Kind.TELEMETRY else 0
            shed = self._shed_to(self._limit_bytes - grown) if grown else 0
        self._telemetry_bytes += grown - shed
        return sequence

    def _shed_to(self, limit_bytes: int) -> int:
        """Delete the oldest telemetry until what was there before is within the limit; bytes freed."""
        freed = number = 0
        while self._telemetry_bytes - freed > limit_bytes:
            row = self._database.execute(
                "SELECT sequence, length(body) FROM message WHERE kind = ? ORDER BY sequence LIMIT 1", (Kind.TELEMETRY,)
            ).fetchone()
            if row is None:
                break
            self._database.execute("DELETE FROM message WHERE kind = ? AND sequence = ?", (Kind.TELEMETRY, row[0]))
            freed, number = freed + int(row[1]), number + 1
        if number:
            self._database.execute("UPDATE line SET shed = shed + ? WHERE kind = ?", (number, Kind.TELEMETRY))
            logger.warning("telemetry shed windows=%d", number)
        return freed

    def _shed_half(self) -> bool:
        """Free room inside the file; False if there was none to free."""
        try:
            with _transaction(self._database):
                freed = self._shed_to(self._telemetry_bytes // 2)
        except sqlite3.OperationalError:
            return False
        self._telemetry_bytes -= freed
        return freed > 0

    def peek(self, kind: Kind, after: int, limit: int) -> Sequence[Queued]:
        """Up to `limit` messages beyond sequence `after`, oldest first; each names the one before and what was shed."""
        rows = self._database.execute(
            "SELECT sequence, body FROM message WHERE kind = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            (kind, after, limit),
        ).fetchall()
        if not rows:
            return ()
        before = self._database.execute(
            "SELECT max(sequence) FROM message WHERE kind = ? AND sequence < ?", (kind, rows[0][0])
        ).fetchone()[0]
        line = self._line(kind)
        previous = max(before or 0, line.acked)
        told = {"shed": line.shed} if kind is Kind.TELEMETRY else {}
        found: list[Queued] = []
        for sequence, body in rows:
            found.append(_FORMS[kind].parse(body).model_copy(update={"after": previous, **told}))
            previous = int(sequence)
        return found

    def acknowledged(self, kind: Kind, sequence: int) -> bool:
        """Forget everything up to `sequence`. False if that was nothing new or was never said."""
        line = self._line(kind)
        if not line.acked < sequence <= line.last:
            return False
        freed = self._measure(sequence) if kind is Kind.TELEMETRY else 0
        with _transaction(self._database):
            self._database.execute("UPDATE line SET acked = ? WHERE kind = ?", (sequence, kind))
            self._database.execute("DELETE FROM message WHERE kind = ? AND sequence <= ?", (kind, sequence))
        self._telemetry_bytes -= freed
        return True

    def depth(self, kind: Kind) -> Depth:
        """How full the line is."""
        line = self._line(kind)
        waiting = self._database.execute("SELECT count(*) FROM message WHERE kind = ?", (kind,)).fetchone()[0]
        return Depth(waiting, line.last, line.acked, line.shed)

    def _line(self, kind: Kind) -> _Line:
        query = "SELECT last, acked, shed FROM line WHERE kind = ?"
        return _Line(*self._database.execute(query, (kind,)).fetchone())

    def _measure(self, up_to: int = 2**62) -> int:
        row = self._database.execute(
            "SELECT coalesce(sum(length(body)), 0) FROM message WHERE kind = ? AND sequence <= ?",
            (Kind.TELEMETRY, up_to),
        ).fetchone()
        return int(row[0])


def _stamped(kept: TelemetryWindow, stamp: Stamp) -> TelemetryWindow:
    return kept.model_copy(update={"sequence": stamp.sequence, "stream": stamp.stream})


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite rolled back by itself already
            database.execute("ROLLBACK")
        raise
