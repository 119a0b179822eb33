"""Take this device's agent away: everything below its state folder, the identity last.

I/O: disk.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from agent import identity
from agent.errors import StateFolderError
from agent.state_folder import locked

if TYPE_CHECKING:
    from pathlib import Path


def remove(state_dir: Path) -> None:
    """Delete keys, models, journal and reports. The folder itself stays: it may belong to the service.

    Only a folder in which a device is, or was being, enrolled is touched. Cut off in the middle, a second call ends it.

    Raises:
        NotEnrolledError: this is no state folder.
        AlreadyRunningError: the agent works there.
        StateFolderError: something cannot be deleted.
    """
    _check(state_dir)
    with locked(state_dir):
        try:
            for path in sorted(state_dir.iterdir(), key=lambda one: (one.name == identity.FOLDER, one.name)):
                if path.name != "agent.lock":
                    _delete(path)
            (state_dir / "agent.lock").unlink(missing_ok=True)
        except OSError as error:
            raise StateFolderError(f"{error.filename}: {error.strerror}") from None


def _check(state_dir: Path) -> None:
    if not (state_dir / identity.FOLDER).is_dir():
        identity.enrolment(state_dir)  # raises: it says what is missing


def _delete(path: Path) -> None:
    """A file, a link (not what it leads to), or a folder, also one that was sealed against writing."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path)
