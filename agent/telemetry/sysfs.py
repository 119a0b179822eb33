"""Small files of the kernel: what cannot be read is None or nothing, never an error.

I/O: disk.
"""

from collections.abc import Iterator
from pathlib import Path


def matching(root: Path, pattern: str) -> Iterator[Path]:
    """Paths below `root`, in order."""
    try:
        yield from sorted(root.glob(pattern))
    except OSError:
        return


def text(path: Path) -> str | None:
    """What the file says, without white space around it."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> float | None:
    """What a file of one number says."""
    found = text(path)
    try:
        return None if found is None else float(found)
    except ValueError:
        return None
