"""Sealed chunks at any URL that fsspec knows: `s3://bucket/prefix` and others; a chunk's age is the object's.

Errors of the libraries end here.

I/O: network, clock.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from fleet.releases import depot
from fleet.releases.errors import StoreError, StoreSetupError
from shared.errors import FlotillaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_RENEWED_AFTER: Final = timedelta(hours=12)  # objects have no age to set: one that is older is written again


class BucketDepot:
    """A `depot.Depot` at `url`. Credentials come from where the library of the scheme looks for them."""

    def __init__(self, url: str, **options: Any) -> None:
        """Raises:
        StoreSetupError: the scheme is unknown, or its package is not installed.
        """
        self._url = url
        self._ageing = threading.Lock()
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise StoreSetupError(f"releases.store {url!r}: {error}") from None

    def where(self, name: str) -> Path | None:
        """See `depot.Depot`."""
        depot.place(name)
        return None

    def missing(self, names: Iterable[str]) -> list[str]:
        """See `depot.Depot`."""
        return [name for name in names if not self._renewed(name)]

    def get(self, name: str) -> bytes | None:
        """See `depot.Depot`."""
        path = self._path(name)
        with self._asked("read"):
            try:
                return bytes(self._files.cat_file(path))
            except FileNotFoundError:
                return None

    def put(self, name: str, chunk: bytes) -> bool:
        """See `depot.Depot`."""
        depot.examined(name, chunk)
        if self._renewed(name):
            return False
        with self._asked("write"):
            self._files.pipe_file(self._path(name), chunk)
        return True

    def remove(self, name: str, *, before: datetime | None = None) -> bool:
        """See `depot.Depot`."""
        with self._ageing, self._asked("delete"):
            written = self._written(name)
            if written is None or (before is not None and written >= before):
                return False
            self._files.rm_file(self._path(name))
        return True

    def older(self, before: datetime) -> Sequence[str]:
        """See `depot.Depot`."""
        with self._asked("list"):
            self._files.invalidate_cache()
            found = self._files.find(f"{self._root}/chunks", detail=True)
            return [
                name
                for path, facts in found.items()
                if depot.NAME.fullmatch(name := path.rpartition("/")[2]) and _age(facts) < before
            ]

    def _renewed(self, name: str) -> bool:
        """True if the chunk is here; it is far from being abandoned from now on."""
        path = self._path(name)
        with self._ageing, self._asked("look at"):
            written = self._written(name)
            if written is None:
                return False
            if written < datetime.now(UTC) - _RENEWED_AFTER:
                self._files.pipe_file(path, self._files.cat_file(path))
        return True

    def _written(self, name: str) -> datetime | None:
        try:
            self._files.invalidate_cache()
            return _age(self._files.info(self._path(name)))
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> str:
        return f"{self._root}/{depot.place(name)}"

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except FlotillaError:
            raise
        except Exception as error:  # noqa: BLE001  # each library of a scheme has errors of its own
            raise StoreError(f"cannot {what} chunks at {self._url}: {type(error).__name__}: {error}") from None


def _age(facts: dict[str, Any]) -> datetime:
    found = facts.get("LastModified") or facts.get("created") or facts.get("mtime")
    if isinstance(found, int | float):
        return datetime.fromtimestamp(found, UTC)
    if not isinstance(found, datetime):
        raise ValueError("it does not say how old its files are")
    return found if found.tzinfo else found.replace(tzinfo=UTC)
