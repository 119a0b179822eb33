"""The front's end of its control socket: notes at once, records of observations in batches, nothing that waits.

I/O: network.
"""

import contextlib
import json
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from agent.serving.worker_wire import MAX_MESSAGE

_REPORT_SECONDS: Final = 0.1
_RECORD_BYTES: Final = 48 * 1024  # of observations in one message
_RECORDS_KEPT: Final = 20_000  # while the daemon does not listen; then the oldest go


class Outbox:
    """What the daemon has not taken yet."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._records: deque[bytes] = deque()
        self._notes: deque[bytes] = deque()
        self._reported = 0.0

    @property
    def waiting(self) -> bool:
        return bool(self._records or self._notes)

    def receive(self) -> tuple[bytes, list[int]] | None:
        """An order and its descriptors; empty when the daemon is gone; None when there is none now."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b"", []
        return message, descriptors

    def note(self, document: dict[str, Any]) -> None:
        """News, sent now if the socket has room."""
        self._notes.append(json.dumps(document).encode())
        self._send_notes()

    def record(self, records: Iterable[bytes]) -> None:
        """Observations for the next batch."""
        self._records.extend(records)
        while len(self._records) > _RECORDS_KEPT:
            self._records.popleft()

    def send(self, now: float) -> None:
        """Send notes, and every tenth of a second the records."""
        self._send_notes()
        if now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            self._send_records()

    def _send_notes(self) -> None:
        with contextlib.suppress(OSError):  # no room: next time; nobody there: reading tells
            while self._notes:
                self._control.send(self._notes[0])
                self._notes.popleft()

    def _send_records(self) -> None:
        with contextlib.suppress(OSError):
            while self._records:
                batch = self._batch()
                self._control.send(b"".join(batch))
                for _ in batch:
                    self._records.popleft()

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for record in self._records:
            size += len(record)
            if size > _RECORD_BYTES and batch:
                break
            batch.append(record)
        return batch
