"""A bundle in a folder, such as one on a USB stick: read with care, believed no more than the network.

Every file is read no further than it may be long; a link or a device in the place of a file is refused. What is
missing or damaged is named.

I/O: disk, tasks.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from shared import bundle as layout
from shared.bundle import Bundle, BundleDeviceError, BundleError
from shared.identifiers import sha256
from shared.manifest import MAX_MANIFEST_BYTES, Manifest
from shared.messages import MAX_PAYLOAD_BYTES, Announcement

if TYPE_CHECKING:
    from pathlib import Path

    from shared.manifest import Chunk

MAX_METADATA_BYTES: Final = 5_000_000


class BundleFolder:
    """One bundle, open for reading. Also a source of chunks and manifests (`sources`).

    Raises:
        BundleError: the folder is none.
    """

    name: Final = "bundle"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = self._read(layout.DESCRIPTION, layout.MAX_DESCRIPTION_BYTES)
        self.described = Bundle.parse(self.description)

    def signature(self) -> dict[str, Any]:
        """Key id and signature over the description, as they stand there.

        Raises:
            BundleError: missing or damaged.
        """
        try:
            found = json.loads(self._read(layout.SIGNATURE, layout.MAX_SIGNATURE_BYTES))
            return {"keyid": str(found["keyid"]), "sig": str(found["sig"])}
        except (ValueError, TypeError, KeyError, RecursionError):
            raise BundleError(f"{layout.SIGNATURE} is damaged") from None

    def numbers(self, device: str) -> tuple[int, ...]:
        """The assignments for `device`, in the order in which they are to be followed.

        Raises:
            BundleDeviceError: there is none.
        """
        found = self.described.assignments.get(device)
        if not found:
            known = sorted(self.described.assignments)
            more = f" and {len(known) - 5} more" if len(known) > 5 else ""
            raise BundleDeviceError(f"the bundle is for {', '.join(known[:5])}{more}, this device is {device}")
        return tuple(sorted(found))

    def assignment(self, device: str, number: int) -> str:
        """The signed assignment, as text.

        Raises:
            BundleError: missing or damaged.
        """
        return self._text(layout.assignment_path(device, number))

    def announcement(self, device: str, number: int) -> Announcement:
        """What would have been announced."""
        return Announcement(
            timestamp=self._text(layout.metadata_path("timestamp.json")), assignment=self.assignment(device, number)
        )

    def metadata(self, file: str) -> bytes | None:
        """A file of TUF metadata; None when it is not here, which ends the search for newer roots."""
        path = layout.metadata_path(file)
        return self._read(path, MAX_METADATA_BYTES) if (self.folder / path).exists() else None

    def check(self, manifest: str) -> None:
        """Read everything that the release `manifest` needs, so that a bad copy is found before anything changes.

        Raises:
            BundleError: a file is missing or damaged; it is named.
        """
        data = self._named(layout.manifest_path(manifest), manifest, MAX_MANIFEST_BYTES)
        for artifact in Manifest.parse(data, manifest).artifacts.values():
            for chunk in artifact.chunks:
                self._named(layout.chunk_path(chunk.id), chunk.id, chunk.size_bytes)

    async def manifest(self, digest: str) -> bytes:
        """The manifest called `digest`."""
        return await asyncio.to_thread(self._named, layout.manifest_path(digest), digest, MAX_MANIFEST_BYTES)

    async def chunk(self, chunk: Chunk) -> bytes:
        """The chunk, if it is here and whole."""
        return await asyncio.to_thread(self._named, layout.chunk_path(chunk.id), chunk.id, chunk.size_bytes)

    def _text(self, path: str) -> str:
        try:
            return self._read(path, MAX_PAYLOAD_BYTES).decode()
        except UnicodeDecodeError:
            raise BundleError(f"{path} is damaged") from None

    def _named(self, path: str, name: str, limit_bytes: int) -> bytes:
        data = self._read(path, limit_bytes)
        if sha256(data) != name:
            raise BundleError(f"{path} is damaged")
        return data

    def _read(self, path: str, limit_bytes: int) -> bytes:
        try:
            descriptor = os.open(self.folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise BundleError(f"{path} is not a plain file")
                data = file.read(limit_bytes + 1)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                raise BundleError(f"{path} is missing from {self.folder}") from None
            raise BundleError(f"{path} cannot be read: {error.strerror}") from None
        if len(data) > limit_bytes:
            raise BundleError(f"{path} is damaged: longer than {limit_bytes} bytes")
        return data
