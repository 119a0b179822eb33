"""Sums of labels and latencies, kept so that a start reads them instead of every window.

A sum is a row of `sketches` with the span `perf`. Each also says up to which arrival windows were counted when it was
written; the newest of these is true of all, since sums that did not change had nothing to add.

I/O: none.
"""

import json
import zlib
from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from fleet.store import sketches
from fleet.store.sketches import Place
from fleet.store.tables import Sketch

SPAN: Final = "perf"


class Sum(NamedTuple):
    """What one release did on one device in one bucket of time; `counted_to` is the arrival of the newest window."""

    place: Place
    counted_to: datetime
    body: dict[str, Any]


async def load(tx: AsyncSession, since: datetime) -> AsyncIterator[Sum]:
    """Every sum of a bucket that began at `since` or later. What is damaged is left out."""
    async for page in sketches.since(tx, SPAN, since):
        for place, stored in page:
            try:
                body = json.loads(zlib.decompress(stored))
                yield Sum(place, datetime.fromisoformat(body["counted_to"]), body)
            except (zlib.error, ValueError, KeyError):
                continue


async def save(tx: AsyncSession, sums: Collection[Sum], *, oldest: datetime) -> None:
    """Insert or replace these, and forget what began before `oldest`."""
    known = await sketches.vectors(tx, [one.place for one in sums])
    for one in sums:
        body = json.dumps(one.body | {"counted_to": one.counted_to.isoformat()}, separators=(",", ":"))
        await sketches.put(tx, one.place, zlib.compress(body.encode()), new=one.place not in known)
    await tx.execute(delete(Sketch).where(Sketch.span == SPAN, Sketch.start < oldest))
