"""What a backup looks like: a line that names the form, then parts, each with its digest, then a seal over all.

    flotilla-backup/1\\n
    [4 bytes: length of the header][header: JSON][payload] ...

    head      when, of which revision of the tables, how the passphrase is stretched
    secrets   keys and pepper, sealed by the passphrase
    rows      lines of one table, compressed; as many parts as it takes
    chunk     a sealed chunk of a release, called by its digest
    index     names of all chunks that devices may ask for, and of those that the depot lacked
    end       how many parts came before, and a seal over their headers by the same passphrase

A header holds its payload's length and SHA-256, so the seal over the headers is one over everything.

I/O: none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from fleet.backups.errors import BackupDamagedError, BackupNewerError
from shared.identifiers import sha256

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FIRST_LINE: Final = b"flotilla-backup/1\n"
_FAMILY: Final = b"flotilla-backup/"
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_PAYLOAD_BYTES: Final = 256 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")


class Source(Protocol):
    """Where a backup is read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part, its digest checked."""

    kind: str
    header: Mapping[str, Any]
    payload: bytes


class Seal:
    """The running seal over headers: whoever does not know the key can change nothing unnoticed."""

    def __init__(self, key: bytes) -> None:
        self._sum = hashlib.blake2b(key=key, digest_size=32, person=b"flotilla/backup")
        self.parts = 0

    def add(self, header: bytes) -> None:
        """The next header, as it is written."""
        self._sum.update(_LENGTH.pack(len(header)) + header)
        self.parts += 1

    def value(self) -> str:
        """Of all headers so far."""
        return self._sum.hexdigest()


class Writer:
    """Turns parts into bytes, in order."""

    def __init__(self, key: bytes) -> None:
        self._seal = Seal(key)

    def part(self, kind: str, payload: bytes = b"", **more: Any) -> bytes:
        """The bytes of one part; of the first one with the line before it."""
        first = FIRST_LINE if self._seal.parts == 0 else b""
        header = _header(kind, payload, more)
        self._seal.add(header)
        return first + _LENGTH.pack(len(header)) + header + payload

    def end(self) -> bytes:
        """The last part."""
        header = _header("end", b"", {"parts": self._seal.parts, "seal": self._seal.value()})
        return _LENGTH.pack(len(header)) + header


def _header(kind: str, payload: bytes, more: Mapping[str, Any]) -> bytes:
    said = {"part": kind, **more, "bytes": len(payload), "sha256": sha256(payload)}
    return json.dumps(said, separators=(",", ":")).encode()


class Reader:
    """The parts of a backup, one after the other. Each is checked before it is given."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._headers: list[bytes] = []
        self.end: Mapping[str, Any] | None = None

    def parts(self) -> Iterator[Part]:
        """All but the end.

        Raises:
            BackupNewerError: another form.
            BackupDamagedError: not a backup, cut off, or a part is not what its header says.
        """
        found = self._source.read(len(FIRST_LINE))
        if found != FIRST_LINE:
            if found.startswith(_FAMILY):
                raise BackupNewerError(f"a backup of form {found[len(_FAMILY) :].decode(errors='replace').strip()}")
            raise BackupDamagedError("this file is no backup of Flotilla")
        while True:
            raw = self._exactly(_LENGTH.unpack(self._exactly(_LENGTH.size))[0], MAX_HEADER_BYTES)
            part = self._part(raw)
            if part.kind == "end":
                if self._source.read(1):
                    raise BackupDamagedError("something follows the end of the backup")
                self.end = part.header
                return
            self._headers.append(raw)
            yield part

    def sealed_by(self, key: bytes) -> bool:
        """Whether the whole backup, read to its end, was written by somebody who knows `key`."""
        if self.end is None:
            raise RuntimeError("not read to its end")
        seal = Seal(key)
        for header in self._headers:
            seal.add(header)
        fits = hmac.compare_digest(seal.value(), str(self.end.get("seal")))
        return fits and self.end.get("parts") == seal.parts

    def _part(self, raw: bytes) -> Part:
        try:
            header = json.loads(raw)
            kind, size, digest = str(header["part"]), int(header["bytes"]), str(header["sha256"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BackupDamagedError(f"part {len(self._headers) + 1} has no readable header") from None
        payload = self._exactly(size, MAX_PAYLOAD_BYTES)
        if sha256(payload) != digest:
            name = f" {header['name']}" if "name" in header else ""
            raise BackupDamagedError(f"part {len(self._headers) + 1} ({kind}{name}) has other content than its digest")
        return Part(kind, header, payload)

    def _exactly(self, size: int, limit: int = MAX_HEADER_BYTES) -> bytes:
        if not 0 <= size <= limit:
            raise BackupDamagedError(f"part {len(self._headers) + 1} claims {size} bytes")
        data = self._source.read(size)
        if len(data) != size:
            raise BackupDamagedError(f"the file ends in the middle of part {len(self._headers) + 1}")
        return data
