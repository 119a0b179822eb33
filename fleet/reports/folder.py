"""The folder of reports that the manager writes by itself: whole files only, and never more than so many.

I/O: disk.
"""

from pathlib import Path

from shared.durable import make_folder, replace_file, sync_folder


class Folder:
    """Files of one folder. Used from threads, one call at a time."""

    def __init__(self, path: Path, keep: int) -> None:
        self.path, self._keep = path, keep

    def has(self, name: str) -> bool:
        """Whether this file was written before."""
        return (self.path / name).is_file()

    def write(self, files: dict[str, bytes]) -> None:
        """Store files, each at once, and remove the oldest beyond what is kept. Once more is harmless.

        Raises:
            OSError: the disk does not take them.
        """
        make_folder(self.path, mode=0o755)
        for name, data in files.items():
            replace_file(self.path / name, data, mode=0o644)
        self.prune()

    def prune(self) -> None:
        """Keep the newest files only. Hidden ones are not ours, or unfinished."""
        found = [path for path in self.path.iterdir() if path.is_file() and path.name.startswith("drift-")]
        aged = sorted(found, key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
        for path in aged[self._keep :]:
            path.unlink(missing_ok=True)
        if len(aged) > self._keep:
            sync_folder(self.path)
