"""Replace a file so that a power cut leaves the old content or the new, never a mixture.

I/O: disk.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None)
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `data` to `path` at once: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk shall not be fuller by a half-written file
        raise
    sync_folder(path.parent)


def begin_writing(descriptor: int, place: int, size_bytes: int) -> None:
    """Have the system start to bring this part of a file to the disk, so that the fsync later waits for less.

    Nothing is durable by it, and where the system does not offer it nothing is done.
    """
    start = getattr(_LIBC, "sync_file_range", None)
    if start is not None:
        start(descriptor, ctypes.c_int64(place), ctypes.c_int64(size_bytes), _WRITE)


def sync_folder(folder: Path) -> None:
    """Make renames and removals inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, *, mode: int = 0o700) -> None:
    """Create `folder` and its parents durably. A second call does nothing."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode=mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)
