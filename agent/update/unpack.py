"""Stored chunks -> one file: each read, checked, opened and written once, by a few threads behind everybody else.

    thread 1   read  name?  open  write  digest 1, 2   read  name?  open  write  ...
    thread 2   read  name?  open  write  read  name?  open  write  digest 3, 4   ...

Work is done at a few desks of about four megabytes, again and again, so that memory does not grow with the file.
Places in the file are known before, so chunks are written in any order; only the digest takes them in turn, by
whichever thread finds one due. The threads are niced: they have what inference leaves of the processors, at each
moment (ADR 33).

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
from shared.manifest import Artifact, Chunk

_SEALED_BYTES: Final = chunking.CHUNK_BYTES + chunking.OVERHEAD_BYTES  # no chunk of a manifest is longer
_SPARE_DESKS: Final = 2  # beyond one for each thread: none waits when another one is held up
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


class _Desk:
    """Room for one chunk while somebody works on it."""

    def __init__(self, key: bytes, name: str, count: int) -> None:
        self._opener = chunking.Opener(key=key, artifact=name, count=count)
        self._sealed = bytearray(_SEALED_BYTES)
        self.plain = memoryview(b"")

    def open(self, store: ChunkStore, chunk: Chunk, index: int) -> None:
        """Its bytes in `plain`, until the next one."""
        sealed = store.get_into(self._sealed, chunk)
        self.plain = self._opener.open(sealed, index=index, plain_bytes=chunk.plain_bytes)


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
        self._digesting = False  # somebody is at it
        self._free: list[_Desk] = []
        self._written: dict[int, _Desk] = {}  # by chunk, for the digest
        self._failed = False

    def run(self, effort: Effort) -> str:
        count = min(effort.threads, len(os.sched_getaffinity(0)), len(self._chunks))
        desks = min(count + _SPARE_DESKS, len(self._chunks))
        self._free = [_Desk(self._key, self._name, len(self._chunks)) for _ in range(desks)]
        with ThreadPoolExecutor(count, "unpack", _stand_back, (effort.nice,)) as pool:
            threads = [pool.submit(self._work) for _ in range(count)]
        for thread in threads:
            thread.result()
        return self._digest.hexdigest()

    def _work(self) -> None:
        try:
            while (taken := self._take()) is not None:
                index, desk = taken
                desk.open(self._store, self._chunks[index], index)
                _write(self._descriptor, desk.plain, self._places[index])
                with self._state:
                    self._written[index] = desk
                self._digest_what_is_due()
        except BaseException:
            with self._state:
                self._failed = True
                self._state.notify_all()
            raise

    def _take(self) -> tuple[int, _Desk] | None:
        """The next chunk, as soon as there is a desk for it. They are taken in order, so the one due is at work."""
        with self._state:
            self._state.wait_for(lambda: self._free or self._failed or self._untaken == len(self._chunks))
            if self._failed or self._untaken == len(self._chunks):
                return None
            self._untaken += 1
            return self._untaken - 1, self._free.pop()

    def _digest_what_is_due(self) -> None:
        """Unless another thread is at it, who then goes on with what was written meanwhile."""
        while (desk := self._due()) is not None:
            self._digest.update(desk.plain)
            with self._state:
                start, end = self._places[self._turn : self._turn + 2]
                self._turn += 1
                self._digesting = False
                self._free.append(desk)
                self._state.notify_all()
            self._begin_writing(start, end)

    def _due(self) -> _Desk | None:
        with self._state:
            if self._digesting or self._turn not in self._written:
                return None
            self._digesting = True
            return self._written.pop(self._turn)

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
