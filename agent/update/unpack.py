"""Stored chunks -> one file: each read, checked, opened and written once, by a few threads behind everybody else.

    thread 1   read  name?  open  write  digest                read  name?  open  write  digest
    thread 2                read  name?  open  write  (turn)  digest               read  ...

Every thread works in two or three megabytes of its own, again and again, so that memory does not grow with the file.
Places in the file are known before, so chunks are written in any order; only the digest takes them in turn. The
threads are niced: they have what inference leaves of the processors, at each moment (ADR 33).

I/O: disk.
"""

import contextlib
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from agent.update.chunk_store import ChunkStore
from shared import chunking, durable
from shared.manifest import Artifact

_BUFFER_BYTES: Final = chunking.CHUNK_BYTES + chunking.OVERHEAD_BYTES  # no chunk of a manifest is longer
_STEP_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to work: at most so many `threads`, each of this niceness or more."""

    threads: int = 1
    nice: int = 0


def unpack(
    descriptor: int, name: str, artifact: Artifact, *, content_key: bytes, store: ChunkStore, effort: Effort
) -> str:
    """Write the plain bytes of the artifact `name` to an open, empty file; their SHA-256. Not synced.

    Raises:
        DamagedChunkError: a chunk in the store is missing or not the one named (it is dropped there).
        WrongKeyError: the content key does not open the chunks.
    """
    return _Unpacking(descriptor, name, artifact, chunking.artifact_key(content_key, name), store).run(effort)


class _Unpacking:
    """One file. What threads share is behind `_state`."""

    def __init__(self, descriptor: int, name: str, artifact: Artifact, key: bytes, store: ChunkStore) -> None:
        self._descriptor, self._name, self._key, self._store = descriptor, name, key, store
        self._chunks = artifact.chunks
        self._places = [0, *accumulate(chunk.plain_bytes for chunk in artifact.chunks)]
        self._digest = hashlib.sha256()
        self._state = threading.Condition()
        self._untaken = 0  # the first chunk that no thread has taken
        self._turn = 0  # the chunk that the digest takes next
        self._failed = False

    def run(self, effort: Effort) -> str:
        count = min(effort.threads, len(os.sched_getaffinity(0)), len(self._chunks))
        with ThreadPoolExecutor(count, "unpack", _stand_back, (effort.nice,)) as pool:
            threads = [pool.submit(self._work) for _ in range(count)]
        for thread in threads:
            thread.result()
        return self._digest.hexdigest()

    def _work(self) -> None:
        opener = chunking.Opener(key=self._key, artifact=self._name, count=len(self._chunks))
        buffer = bytearray(_BUFFER_BYTES)
        try:
            while (index := self._take()) is not None:
                self._one(index, opener, buffer)
        except BaseException:
            with self._state:
                self._failed = True
                self._state.notify_all()
            raise

    def _take(self) -> int | None:
        with self._state:
            if self._failed or self._untaken == len(self._chunks):
                return None
            self._untaken += 1
            return self._untaken - 1

    def _one(self, index: int, opener: chunking.Opener, buffer: bytearray) -> None:
        chunk = self._chunks[index]
        sealed = self._store.get_into(buffer, chunk)
        plain = opener.open(sealed, index=index, plain_bytes=chunk.plain_bytes)
        _write(self._descriptor, plain, self._places[index])
        with self._state:
            self._state.wait_for(lambda: self._turn == index or self._failed)
            if self._failed:
                return
        self._digest.update(plain)  # nobody else has this turn
        with self._state:
            self._turn += 1
            self._state.notify_all()
        self._begin_writing(self._places[index], self._places[index + 1])

    def _begin_writing(self, start: int, end: int) -> None:
        """When a step is complete, so that disk and processors work at the same time."""
        if start // _STEP_BYTES != end // _STEP_BYTES:
            durable.begin_writing(self._descriptor, (start // _STEP_BYTES) * _STEP_BYTES, _STEP_BYTES)


def _write(descriptor: int, data: memoryview, place: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, place)
        data, place = data[count:], place + count


def _stand_back(nice: int) -> None:
    """Let others go first, with this thread alone; it cannot be undone where LimitNICE forbids it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
