"""Rows of tables as lines of JSON, the same for every database, so that a backup of one is restored into another.

    ["cam-7", {"hall": "3"}, "2026-01-01T00:00:00+00:00", "c2lnbg==", ...]       in the order of `Form.columns`

I/O: none.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import zstandard
from sqlalchemy import JSON, BigInteger, Boolean, Float, LargeBinary, Text, TypeDecorator, column, table

from fleet.backups.errors import BackupDamagedError
from fleet.store.columns import Base, UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Table, TableClause

#: Who leads, what browsers hold and answers already given belong to the manager that wrote them, not to the fleet.
LEFT_OUT: Final = frozenset({"leadership", "browser_sessions", "answers"})
BLOCK_BYTES: Final = 1024 * 1024
_MAX_BLOCK_BYTES: Final = 256 * 1024 * 1024

#: Kind -> its type. The order matters: each column is of the first kind that fits.
_TYPES: Final[Mapping[str, Any]] = {
    "time": UtcDateTime(),
    "bytes": LargeBinary(),
    "json": JSON(none_as_null=True),
    "bool": Boolean(),
    "int": BigInteger(),
    "float": Float(),
    "text": Text(),
}


@dataclass(frozen=True, slots=True)
class Form:
    """A table: its name, and its columns with their kinds."""

    name: str
    columns: Mapping[str, str]

    def header(self) -> dict[str, Any]:
        """For the part's header."""
        return {"name": self.name, "columns": dict(self.columns)}

    @classmethod
    def of(cls, found: Table) -> Form:
        """Of a table as this program knows it."""
        return cls(found.name, {each.name: _kind(each.type) for each in found.columns})

    @classmethod
    def read(cls, header: Mapping[str, Any]) -> Form:
        """Inverse of `header`.

        Raises:
            BackupDamagedError: it is none.
        """
        try:
            columns = {str(name): str(kind) for name, kind in header["columns"].items()}
            form = cls(str(header["name"]), columns)
        except (KeyError, AttributeError):
            raise BackupDamagedError("rows without the form of their table") from None
        if not columns or not set(columns.values()) <= _TYPES.keys():
            raise BackupDamagedError(f"rows of {form.name} are of a kind that there is not")
        return form

    def clause(self) -> TableClause:
        """For INSERT: this table as it was, whatever it is today."""
        return table(self.name, *(column(name, _TYPES[kind]) for name, kind in self.columns.items()))

    def line(self, row: Sequence[Any]) -> bytes:
        """One row."""
        said = [_said(value) if kind in ("time", "bytes") else value
                for value, kind in zip(row, self.columns.values(), strict=True)]  # fmt: skip
        return json.dumps(said, separators=(",", ":")).encode() + b"\n"

    def rows(self, block: bytes) -> Iterator[dict[str, Any]]:
        """The rows of a compressed block, by name of column.

        Raises:
            BackupDamagedError: it is none.
        """
        try:
            lines = zstandard.ZstdDecompressor().decompress(block, max_output_size=_MAX_BLOCK_BYTES).splitlines()
            for line in lines:
                values = json.loads(line)
                pairs = zip(self.columns.items(), values, strict=True)
                yield {name: _meant(value, kind) for (name, kind), value in pairs}
        except (zstandard.ZstdError, ValueError, TypeError, binascii.Error, RecursionError) as error:
            raise BackupDamagedError(f"rows of {self.name} cannot be read: {error}") from None


def compressed(lines: Sequence[bytes]) -> bytes:
    """A block."""
    return zstandard.ZstdCompressor(level=3).compress(b"".join(lines))


def tables() -> list[Table]:
    """What a backup holds, those first that others refer to."""
    return [each for each in Base.metadata.sorted_tables if each.name not in LEFT_OUT]


def _kind(found: Any) -> str:
    plain = found.impl if isinstance(found, TypeDecorator) and not isinstance(found, UtcDateTime) else found
    kinds = ((UtcDateTime, "time"), (LargeBinary, "bytes"), (JSON, "json"), (Boolean, "bool"))
    for each, kind in kinds:
        if isinstance(plain, each):
            return kind
    python: object = plain.python_type
    return "int" if python is int else "float" if python is float else "text"


def _said(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value


def _meant(value: Any, kind: str) -> Any:
    if value is None:
        return None
    match kind:
        case "time":
            return datetime.fromisoformat(value)
        case "bytes":
            return base64.b64decode(value, validate=True)
        case _:
            return value
