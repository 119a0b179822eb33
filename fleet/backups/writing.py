"""Write a backup, while the manager runs or beside its folder: rows as of one instant, keys, chunks.

Rows are laid aside in a file without a name before anything leaves, so that a slow reader holds no transaction open.

I/O: disk, tasks.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

import zstandard
from sqlalchemy import select, text

from fleet.backups import rows
from fleet.backups.form import Writer
from fleet.releases import leftovers
from fleet.store import releases as store
from fleet.store.database import HEAD
from shared.clock import rfc3339
from shared.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.backups.sealing import Lock
    from fleet.releases.depot import Depot
    from fleet.store.database import Database

KEYS: Final = ("pepper", "snapshot.key", "timestamp.key", "director.key", "escrow.key")
CONFIG: Final = "fleet.yaml"
_PAGE: Final = 500
_PIECE_BYTES: Final = 1024 * 1024


@dataclass
class Written:
    """What a backup came to hold; whole once its last byte was given."""

    chunks: bool
    at: datetime
    rows: int = 0
    chunk_count: int = 0
    missing: list[str] = field(default_factory=list)  # chunks that the depot lacked
    bytes: int = 0

    def document(self) -> dict[str, Any]:
        """For the audit log and `--json`."""
        return {
            "created": rfc3339(self.at),
            "rows": self.rows,
            "chunks": self.chunk_count if self.chunks else None,
            "missing_chunks": len(self.missing),
            "bytes": self.bytes,
        }


async def expected_bytes(tx: AsyncSession) -> int:
    """About how long the chunks of a backup are, for a bar of progress."""
    artifacts = [artifact for manifest in await _manifests(tx) for artifact in manifest.artifacts.values()]
    return sum({chunk.id: chunk.size_bytes for artifact in artifacts for chunk in artifact.chunks}.values())


async def _manifests(tx: AsyncSession) -> list[Manifest]:
    return [Manifest.parse(row.manifest) for row in await store.every(tx) if row.state != "retired"]


@dataclass(frozen=True, slots=True)
class Maker:
    """What a backup is made of."""

    database: Database
    depot: Depot
    data_dir: Path
    lock: Lock
    version: str

    async def pieces(self, written: Written) -> AsyncIterator[bytes]:
        """The bytes of a backup, in pieces; `written` grows with them.

        Raises:
            StoreError: the depot cannot be reached now.
        """
        with tempfile.TemporaryFile(dir=self.data_dir) as aside:
            writer = Writer(self.lock.key)
            names = await self._rows(writer, aside, written)
            aside.seek(0)
            while piece := await asyncio.to_thread(aside.read, _PIECE_BYTES):
                written.bytes += len(piece)
                yield piece
        async for piece in self._chunks(writer, names, written):
            written.bytes += len(piece)
            yield piece

    async def _rows(self, writer: Writer, aside: IO[bytes], written: Written) -> Sequence[str]:
        """Write head, secrets and rows; the names of the chunks that these rows speak of."""
        head = {
            "created": rfc3339(written.at),
            "version": self.version,
            "revision": HEAD,
            "chunks": written.chunks,
            **self.lock.terms(),
        }
        aside.write(writer.part("head", **head))
        aside.write(writer.part("secrets", self.lock.seal(await asyncio.to_thread(self._secrets))))
        async with self.database.read() as tx:
            if not self.database.one_process:  # SQLite's transactions see one instant as they are
                await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            for found in rows.tables():
                await self._table(tx, writer, rows.Form.of(found), aside, written)
            manifests = await _manifests(tx)
            documents = {role: row.data for role, row in (await store.newest_documents(tx)).items()}
        roles = {role: data for role, data in documents.items() if role.startswith("model-")}
        return sorted(await asyncio.to_thread(leftovers.named, self.depot, manifests, roles))

    async def _table(
        self, tx: AsyncSession, writer: Writer, form: rows.Form, aside: IO[bytes], written: Written
    ) -> None:
        table = next(each for each in rows.tables() if each.name == form.name)
        found = await tx.stream(select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_PAGE))
        lines: list[bytes] = []
        held = 0
        async for page in found.partitions(_PAGE):
            for row in page:
                lines.append(form.line(row))
                held += len(lines[-1])
                written.rows += 1
                if held >= rows.BLOCK_BYTES:
                    aside.write(writer.part("rows", rows.compressed(lines), **form.header(), rows=len(lines)))
                    lines, held = [], 0
        aside.write(writer.part("rows", rows.compressed(lines), **form.header(), rows=len(lines)))

    async def _chunks(self, writer: Writer, names: Sequence[str], written: Written) -> AsyncIterator[bytes]:
        for name in names:
            chunk = await asyncio.to_thread(self.depot.get, name)
            if chunk is None:
                written.missing.append(name)
                continue
            written.chunk_count += 1
            if written.chunks:
                yield writer.part("chunk", chunk, name=name)
        said = json.dumps({"names": list(names), "missing": written.missing}).encode()
        yield writer.part("index", zstandard.ZstdCompressor().compress(said))
        yield writer.end()

    def _secrets(self) -> dict[str, bytes]:
        """Keys of the manager, and its settings where they lie beside its data."""
        found = {f"keys/{name}": (self.data_dir / "keys" / name).read_bytes() for name in KEYS}
        config = self.data_dir / CONFIG
        return {**found, CONFIG: config.read_bytes()} if config.exists() else found
