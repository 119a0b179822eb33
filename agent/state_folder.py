"""One agent in one state folder.

I/O: disk.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import AlreadyRunningError, StateFolderError
from shared.durable import make_folder


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Make the state folder and keep other agents out of it. The kernel drops the lock of the dead.

    Raises:
        AlreadyRunningError: another agent works there.
        StateFolderError: the folder cannot be used.
    """
    try:
        make_folder(state_dir)
        descriptor = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateFolderError(f"{state_dir}: {error.strerror}") from None
    try:
        _lock(descriptor, state_dir)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, state_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyRunningError(f"an agent works in {state_dir} already") from None
