"""What an update must not forget, in one SQLite file with `synchronous=FULL`.

    inbox        announcements as received, not yet verified
    updates      `current` (being performed) and `next` (verified, waiting), each one lifecycle.Update
    notes        highest assignment seen, newest verified time
    floors       per model: the release counter that nothing may go below
    bad          releases that failed here, with the reason
    documents    trusted TUF metadata and manifests, as received
    performance  how the version before did, for comparison after a restart
    goods        per model: releases that were committed here, the one that serves last; with their rollout
    by_hand      releases that a person took back here, with the rollout that had brought them
    endings      per model: how its last update ended

Each method is one transaction. Threads may share a journal. Every method may raise JournalBusyError (the
disk is full: later) or DamagedJournalError (it cannot be read any more).

I/O: disk.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from agent.update.lifecycle import Ending, Update
from agent.update.probation import Performance
from agent.update.reasons import DamagedJournalError, JournalBusyError
from shared import durable
from shared.errors import FlotillaError
from shared.identifiers import sha256
from shared.messages import Announcement

INBOX_LIMIT: Final = 16  # a flood of forgeries pushes out forgeries, and the manager announces again

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS inbox
    (id INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT UNIQUE NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS updates (place TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS floors (model TEXT PRIMARY KEY, counter INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bad (manifest TEXT PRIMARY KEY, code TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS performance (model TEXT, version TEXT, body BLOB NOT NULL, PRIMARY KEY (model, version));
CREATE TABLE IF NOT EXISTS goods (id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, manifest TEXT NOT NULL,
    rollout TEXT, UNIQUE (model, manifest));
CREATE TABLE IF NOT EXISTS by_hand (manifest TEXT PRIMARY KEY, rollout TEXT);
CREATE TABLE IF NOT EXISTS endings (model TEXT PRIMARY KEY, body BLOB NOT NULL);
"""
_UPDATE: Final = TypeAdapter(Update)
_PERFORMANCE: Final = TypeAdapter(Performance)
_ENDING: Final = TypeAdapter(Ending)
_TRUST: Final = "trust/"
_MANIFEST: Final = "manifest/"

Place = Literal["current", "next"]


class Journal:
    """Opened once by the daemon.

    Raises:
        DamagedJournalError: the file is not a journal any more.
    """

    def __init__(self, path: Path) -> None:
        durable.make_folder(path.parent)
        self._lock = threading.RLock()
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DamagedJournalError(f"{path.name}: {error}") from None

    def close(self) -> None:
        """Nothing may be called afterwards."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                self._roll_back()
                raise _translated(error) from None
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def _one(self, query: str, *values: object) -> tuple[object, ...] | None:
        with self._lock:
            try:
                row: tuple[object, ...] | None = self._database.execute(query, values).fetchone()
            except sqlite3.DatabaseError as error:
                raise _translated(error) from None
            return row

    # announcements

    def take_in(self, announcement: Announcement) -> bool:
        """Keep what arrived until it is verified. False when these very bytes were dealt with before."""
        digest = fingerprint(announcement)
        if self._note("dealt-with") == digest:
            return False
        with self._transaction() as tx:
            tx.execute("INSERT OR IGNORE INTO inbox (digest, body) VALUES (?, ?)", (digest, announcement.to_bytes()))
            tx.execute("DELETE FROM inbox WHERE id <= (SELECT max(id) FROM inbox) - ?", (INBOX_LIMIT,))
        return True

    def oldest(self) -> Announcement | None:
        """The announcement to verify first."""
        row = self._one("SELECT body FROM inbox ORDER BY id LIMIT 1")
        return Announcement.parse(_bytes(row[0])) if row else None

    def refused(self, announcement: Announcement) -> None:
        """These bytes led nowhere; the same bytes again are ignored."""
        with self._transaction() as tx:
            _drop(tx, announcement)

    def accepted(self, announcement: Announcement, update: Update) -> None:
        """`update` waits as `next`; its assignment is the highest seen."""
        with self._transaction() as tx:
            _drop(tx, announcement)
            _write_note(tx, "seen", str(update.assignment))
            _write_update(tx, "next", update)

    @property
    def seen(self) -> int:
        """Highest assignment version verified; 0 before the first."""
        return int(self._note("seen") or 0)

    # updates

    def update(self, place: Place) -> Update | None:
        """The update kept at `place`.

        Raises:
            DamagedJournalError: what is there is not an update.
        """
        row = self._one("SELECT body FROM updates WHERE place = ?", place)
        try:
            return _UPDATE.validate_json(_bytes(row[0])) if row else None
        except ValidationError as error:
            raise DamagedJournalError(f"update {place!r}: {str(error).splitlines()[0]}") from None

    def save(self, update: Update) -> None:
        """The current update, with the effect that its state owes: before that is performed."""
        with self._transaction() as tx:
            _write_update(tx, "current", update)

    def promote(self) -> Update | None:
        """`next` becomes `current`, which must be free. None without one."""
        if self.update("current") is not None:
            raise RuntimeError("an update is not finished yet")
        with self._transaction() as tx:
            tx.execute("UPDATE updates SET place = 'current' WHERE place = 'next'")
        return self.update("current")

    def adopt(self, current: Update, adopted: Update) -> Update:
        """`current` goes on under the newer assignment of the same release, which stops waiting."""
        merged = replace(
            current,
            assignment=adopted.assignment,
            rollout=adopted.rollout,
            sealed_key=adopted.sealed_key,
            later=adopted.later,
            window=adopted.window,
            keep_versions=adopted.keep_versions,
            shadow=adopted.shadow,
        )
        with self._transaction() as tx:
            _write_update(tx, "current", merged)
            tx.execute("DELETE FROM updates WHERE place = 'next'")
        return merged

    def finish(self) -> None:
        """The current update is final and reported: forget it, and the manifests it needed."""
        with self._transaction() as tx:
            tx.execute("DELETE FROM updates WHERE place = 'current'")
            tx.execute("DELETE FROM documents WHERE name LIKE ?", (_MANIFEST + "%",))

    # what was learnt

    def mark_bad(self, manifest: str, code: str, detail: str) -> None:
        """Never try this release again here. A second call keeps the first reason."""
        with self._transaction() as tx:
            tx.execute("INSERT OR IGNORE INTO bad VALUES (?, ?, ?)", (manifest, code, detail))

    def bad(self, manifest: str) -> tuple[str, str] | None:
        """Code and detail of what went wrong with this release here."""
        row = self._one("SELECT code, detail FROM bad WHERE manifest = ?", manifest)
        return (str(row[0]), str(row[1])) if row else None

    def committed(self, update: Update, *, minimum_counter: int) -> None:
        """It serves for good: nothing below its minimum counter will be installed any more (that never lowers),
        and what was held against it is forgotten (it was forced, or is wanted again)."""
        with self._transaction() as tx:
            tx.execute(
                "INSERT INTO floors VALUES (?, ?)"
                " ON CONFLICT (model) DO UPDATE SET counter = max(counter, excluded.counter)",
                (update.model, minimum_counter),
            )
            tx.execute("DELETE FROM bad WHERE manifest = ?", (update.manifest,))
            tx.execute("DELETE FROM by_hand WHERE manifest = ?", (update.manifest,))
            _write_good(tx, update.model, update.manifest, update.rollout)

    def went_back(self, model: str, manifest: str) -> None:
        """A release that was good before serves again."""
        rollout = self.rollout_of(model, manifest)
        with self._transaction() as tx:
            _write_good(tx, model, manifest, rollout)

    def goods(self, model: str) -> tuple[str, ...]:
        """Manifests of the releases that were committed here, the one that served last at the end."""
        with self._lock:
            rows = self._database.execute("SELECT manifest FROM goods WHERE model = ? ORDER BY id", (model,))
            return tuple(str(row[0]) for row in rows)

    def rollout_of(self, model: str, manifest: str) -> str | None:
        """The rollout that brought a release that is good here."""
        row = self._one("SELECT rollout FROM goods WHERE model = ? AND manifest = ?", model, manifest)
        return str(row[0]) if row and row[0] is not None else None

    def take_back(self, manifest: str, rollout: str | None) -> None:
        """A person took this release back: `rollout` alone shall not bring it again."""
        with self._transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO by_hand VALUES (?, ?)", (manifest, rollout))

    def taken_back(self, update: Update) -> bool:
        """True when a person took the release back here, and nobody has wanted it anew since."""
        row = self._one("SELECT rollout FROM by_hand WHERE manifest = ?", update.manifest)
        return row is not None and row[0] is not None and row[0] == update.rollout

    def ended(self, ending: Ending) -> None:
        """How the last update of a model ended, for people."""
        with self._transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO endings VALUES (?, ?)", (ending.model, _ENDING.dump_json(ending)))

    def ending(self, model: str) -> Ending | None:
        """What `ended` kept."""
        row = self._one("SELECT body FROM endings WHERE model = ?", model)
        return _ENDING.validate_json(_bytes(row[0])) if row else None

    def floor(self, model: str) -> int:
        """Lowest release counter that may still be installed."""
        row = self._one("SELECT counter FROM floors WHERE model = ?", model)
        return int(str(row[0])) if row else 0

    def save_performance(self, model: str, version: str, performance: Performance) -> None:
        """How `version` does here, to compare the next one with."""
        with self._transaction() as tx:
            tx.execute(
                "INSERT OR REPLACE INTO performance VALUES (?, ?, ?)",
                (model, version, _PERFORMANCE.dump_json(performance)),
            )

    def performance(self, model: str, version: str) -> Performance:
        """What was last saved; empty when nothing was."""
        row = self._one("SELECT body FROM performance WHERE model = ? AND version = ?", model, version)
        return _PERFORMANCE.validate_json(_bytes(row[0])) if row else Performance()

    # documents

    def trusted(self) -> Mapping[str, bytes]:
        """TUF metadata by its file name in python-tuf's folder."""
        with self._lock:
            rows = self._database.execute("SELECT name, body FROM documents WHERE name LIKE ?", (_TRUST + "%",))
            return {str(name).removeprefix(_TRUST): _bytes(body) for name, body in rows}

    def save_trusted(self, files: Mapping[str, bytes], *, verified_at: datetime | None) -> None:
        """All trusted metadata at once; the newest verified time only moves forward."""
        if files == self.trusted() and verified_at is None:
            return
        with self._transaction() as tx:
            tx.execute("DELETE FROM documents WHERE name LIKE ?", (_TRUST + "%",))
            tx.executemany(
                "INSERT INTO documents VALUES (?, ?)", [(_TRUST + name, body) for name, body in files.items()]
            )
            if verified_at and (self.verified_at is None or verified_at > self.verified_at):
                _write_note(tx, "verified-at", verified_at.isoformat())

    @property
    def verified_at(self) -> datetime | None:
        """It is later than this: signed documents said so."""
        text = self._note("verified-at")
        return datetime.fromisoformat(text) if text else None

    def save_manifest(self, digest: str, data: bytes) -> None:
        """Keep a manifest until its update ends."""
        with self._transaction() as tx:
            tx.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (_MANIFEST + digest, data))

    def manifest(self, digest: str) -> bytes | None:
        """What `save_manifest` kept."""
        row = self._one("SELECT body FROM documents WHERE name = ?", _MANIFEST + digest)
        return _bytes(row[0]) if row else None

    def _note(self, name: str) -> str | None:
        row = self._one("SELECT value FROM notes WHERE name = ?", name)
        return str(row[0]) if row else None


def fingerprint(announcement: Announcement) -> str:
    """Names these bytes: a fresh timestamp around the same assignment is another announcement."""
    return sha256(f"{announcement.timestamp}\n{announcement.assignment}".encode())


def _translated(error: sqlite3.DatabaseError) -> FlotillaError:
    if isinstance(error, sqlite3.OperationalError):
        return JournalBusyError(f"journal: {error}")
    return DamagedJournalError(f"journal: {error}")


def _drop(tx: sqlite3.Connection, announcement: Announcement) -> None:
    digest = fingerprint(announcement)
    tx.execute("DELETE FROM inbox WHERE digest = ?", (digest,))
    _write_note(tx, "dealt-with", digest)


def _write_note(tx: sqlite3.Connection, name: str, value: str) -> None:
    tx.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))


def _write_good(tx: sqlite3.Connection, model: str, manifest: str, rollout: str | None) -> None:
    tx.execute("INSERT OR REPLACE INTO goods (model, manifest, rollout) VALUES (?, ?, ?)", (model, manifest, rollout))


def _write_update(tx: sqlite3.Connection, place: Place, update: Update) -> None:
    tx.execute("INSERT OR REPLACE INTO updates VALUES (?, ?)", (place, _UPDATE.dump_json(update)))


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise DamagedJournalError("a column of the journal does not hold bytes")
    return value
