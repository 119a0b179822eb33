"""Memory that clients share with us (Triton's system shared memory): who registered what.

A region belongs to the user who registered it: nobody else sees it, names it or asks for what lies in it. The file
must be that user's own, so that nobody makes us read or write what he himself may not. Workers are told of each.

I/O: disk.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.serving.worker_wire import NOBODY, News

FOLDER: Final = Path("/dev/shm")  # noqa: S108 - where shm_open keeps its files
MAX_REGIONS: Final = 64  # of one user
MAX_BYTES: Final = 4 * 1024**3  # of one user
_MAX_NAME: Final = 128  # bytes
_KEY: Final = re.compile(r"/?([A-Za-z0-9_][A-Za-z0-9_.-]{0,254})")
_RESERVED: Final = "triton_python_backend_shm_region"  # of a Triton beside us; our own memory has no name


class RegionRefusedError(Exception):
    """The region cannot be had; status and text are for the client."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Region:
    """Registered memory, and the file that it is."""

    user: int
    name: str
    key: str
    offset: int
    size: int
    writable: bool
    descriptor: int

    @property
    def news(self) -> News:
        return News(self.user, self.name, self.offset, self.size, self.writable)

    @property
    def described(self) -> dict[str, Any]:
        """As `status` tells it."""
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.size}


class Registry:
    """The regions of all users. Descriptors are ours until a region is dropped."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._found: dict[tuple[int, str], Region] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Region]:
        return iter(list(self._found.values()))

    def status(self, user: int, name: str | None) -> bytes:
        """The regions of a user, as stock clients read them.

        Raises:
            RegionRefusedError: he has none of this name.
        """
        if name is not None and (user, name) not in self._found:
            raise RegionRefusedError(f"Unable to find system shared memory region: '{name}'", 404)
        rows = [region for region in self if region.user == user and name in (None, region.name)]
        return json.dumps([region.described for region in rows], separators=(",", ":")).encode()

    def register(self, user: int, name: str, body: bytes) -> Region:
        """Add the region that `body` `{"key", "offset", "byte_size"}` describes.

        Raises:
            RegionRefusedError: it is not there, not his, too much, or the name is taken.
        """
        if user == NOBODY:
            raise RegionRefusedError("shared memory is for programs of this machine whose user can be found out")
        if not 0 < len(name.encode("utf-8", "replace")) <= _MAX_NAME or not name.isprintable():
            raise RegionRefusedError(f"the name of a shared memory region is 1 to {_MAX_NAME} bytes of printable text")
        if (user, name) in self._found:
            raise RegionRefusedError(f"shared memory region '{name}' already in manager")
        key, offset, size = _place(name, body)
        self._bound(user, size)
        region = self._open(user, name, key, offset, size)
        self._found[user, name] = region
        return region

    def drop(self, user: int, name: str | None) -> list[Region]:
        """Forget a region of a user, or all of his; those that there were. Their descriptors are closed."""
        gone = [region for region in self if region.user == user and name in (None, region.name)]
        for region in gone:
            del self._found[user, region.name]
            os.close(region.descriptor)
        return gone

    def named_in(self, user: int, text: bytes) -> list[Region]:
        """Regions of the user that a request's JSON part names."""
        if not self._found or b"shared_memory_region" not in text:
            return []
        return [region for region in self if region.user == user and json.dumps(region.name).encode() in text]

    def _bound(self, user: int, size: int) -> None:
        own = [region for region in self if region.user == user]
        if len(own) >= MAX_REGIONS or sum(region.size for region in own) + size > MAX_BYTES:
            raise RegionRefusedError(
                f"at most {MAX_REGIONS} shared memory regions of {MAX_BYTES // 1024**3} GiB together are taken from "
                "one user: unregister those that are no longer used"
            )

    def _open(self, user: int, name: str, key: str, offset: int, size: int) -> Region:
        path = self._folder / key.removeprefix("/")
        writable = True
        try:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except PermissionError:
                writable = False
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RegionRefusedError(f"Unable to open shared memory region: '{key}' ({error.strerror})") from None
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor)
            _check(name, os.fstat(descriptor), user, offset + size)
            stack.pop_all()
        return Region(user, name, key, offset, size, writable, descriptor)


def _place(name: str, body: bytes) -> tuple[str, int, int]:
    """Key, offset and size that a request to register names."""
    try:
        document = json.loads(body)
        key, offset, size = document["key"], document.get("offset", 0), document["byte_size"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RegionRefusedError('a region is {"key": name, "offset": bytes, "byte_size": bytes}') from None
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (offset, size))
    if not whole or offset < 0 or size <= 0 or offset + size > 2**62:
        raise RegionRefusedError(
            f"failed to register shared memory region '{name}': offset and byte_size are not a place in memory"
        )
    found = _KEY.fullmatch(key) if isinstance(key, str) else None
    if found is None or found[1].startswith(_RESERVED):
        raise RegionRefusedError(
            f"failed to register shared memory region '{name}': the key is not a name that shm_open takes "
            "(letters, digits, '_', '.', '-'), or is reserved"
        )
    return key, offset, size


def _check(name: str, found: os.stat_result, user: int, end: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise RegionRefusedError(f"failed to register shared memory region '{name}': it is not memory")
    if found.st_uid != user:
        raise RegionRefusedError(f"failed to register shared memory region '{name}': it belongs to another user")
    if found.st_size < end:
        raise RegionRefusedError(
            f"failed to register shared memory region '{name}': it has {found.st_size} bytes, offset and byte_size "
            f"reach to {end}"
        )
