"""Is this announcement genuine, for this device, and about a release that release keys vouch for?

    announcement --bytes--> strict_json --> timestamp --python-tuf--> root .. targets, role of the model
    (or a bundle: judged at the time at which it was made, and only while it is valid itself)
                                            assignment --verify_delegate("director")--> orders --> Update

python-tuf verifies in a temporary folder filled from the journal; what it trusts afterwards goes back
in one transaction, because python-tuf's own store never calls fsync (ADR 2). The clock is never
believed to be earlier than signed documents prove.

I/O: network, disk, tasks.
"""

import asyncio
import logging
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Json, PositiveInt, ValidationError
from securesystemslib.signer import Signature  # type: ignore[attr-defined]
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Targets  # type: ignore[attr-defined]  # its stubs list no names
from tuf.ngclient import (  # type: ignore[attr-defined]
    FetcherInterface,
    Updater,
    UpdaterConfig,
)

from agent.update import reasons
from agent.update.bundle import BundleFolder
from agent.update.journal import Journal
from agent.update.lifecycle import Event, State, Update, advance
from agent.update.metadata import MetadataByNetwork, MetadataFromBundle, Wire
from shared import bundle as layout
from shared import signing
from shared.bundle import BundleError, BundleExpiredError
from shared.clock import Clock
from shared.delta.offer import Offer, offers
from shared.errors import BadInputError, RefusedError
from shared.identifiers import DeviceId, Digest, ModelName, Version, release_path
from shared.messages import MAX_PAYLOAD_BYTES, Announcement
from shared.shadow import Terms
from shared.windows import Window, check_zone

signing.install()
logger = logging.getLogger(__name__)

DIRECTOR: Final = "director"
#: How long the manager signs these for (docs/protocol.md): expiry minus this is a time that has passed.
LIFETIMES: Final = {"timestamp.json": timedelta(days=1), "snapshot.json": timedelta(days=7)}
OtherWay = Callable[[str], Coroutine[None, None, bytes]]  # file name -> signed document


class Orders(BaseModel):
    """The `custom` part of an assignment. What is signed and not understood is refused (ADR 6)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    device: DeviceId
    model: ModelName
    version: Version
    manifest: Digest
    rollout: str | None = None
    sealed_key: str
    force: bool = False
    activate: Literal["now", "later", "never"] = "now"
    window: Window | None = None
    keep_versions: PositiveInt | None = None
    shadow: Json[Terms] | None = None  # as text: signed documents hold no fractions


class Trust:
    """What this device believes. One verification at a time."""

    def __init__(
        self, journal: Journal, *, root: bytes, device: str, manager_url: str, box_key: bytes, clock: Clock
    ) -> None:
        self._journal = journal
        self._root = root
        self._device = device
        self._metadata_url = f"{manager_url.rstrip('/')}/metadata/"
        self._box_key = box_key
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._other_way: OtherWay | None = None

    def fall_back_on(self, document: OtherWay) -> None:
        """Ask `document` for signed documents that the manager does not give by HTTP."""
        self._other_way = document

    @property
    def device(self) -> str:
        """Who we are."""
        return self._device

    async def verify(self, announcement: Announcement) -> Update | None:
        """The update that the announcement orders: VERIFIED, or REFUSED with a reason if the director's
        order is genuine but cannot be followed. None when this very assignment was accepted before.

        Raises:
            ForgedError, WrongDeviceError, ExpiredError, MetadataError, BadInputError: nothing in it counts.
            SourceUnavailableError: the manager's metadata cannot be had now; try again.
        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._verify, announcement, self._waiting())

    async def verify_bundle(self, bundle: BundleFolder, number: int) -> Update | None:
        """The same for assignment `number` in `bundle`, with all metadata from there.

        Raises:
            BundleError, BundleExpiredError: the bundle is not whole, or its time is over.
            ForgedError, WrongDeviceError, ExpiredError, ReplayedError, MetadataError: nothing in it counts.
        """
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._verify_bundle, bundle, number)

    def _waiting(self) -> Callable[[str], bytes] | None:
        """The other way, for the thread that verifies."""
        loop, other = asyncio.get_running_loop(), self._other_way
        if other is None:
            return None
        return lambda file: asyncio.run_coroutine_threadsafe(other(file), loop).result()

    def content_key(self, update: Update) -> bytes:
        """The key that opens the release's chunks.

        Raises:
            SealError: sealed for somebody else.
        """
        return signing.unseal(update.sealed_key, self._box_key)

    def _verify(self, announcement: Announcement, other: Callable[[str], bytes] | None) -> Update | None:
        for document in (announcement.timestamp, announcement.assignment):
            signing.strict_json(document, limit_bytes=MAX_PAYLOAD_BYTES)
        with tempfile.TemporaryDirectory(prefix="flotilla-trust-") as folder, closing(Wire()) as wire:
            self._materialise(Path(folder))
            updater = self._refreshed(Path(folder), announcement.timestamp, other, wire)
            try:
                return self._ordered(Path(folder), updater, announcement.assignment)
            finally:
                self._write_back(Path(folder), verified=True)

    def _verify_bundle(self, bundle: BundleFolder, number: int) -> Update | None:
        assignment = bundle.assignment(self._device, number)
        signing.strict_json(assignment, limit_bytes=MAX_PAYLOAD_BYTES)
        described = bundle.described
        with tempfile.TemporaryDirectory(prefix="flotilla-trust-") as name:
            folder = Path(name)
            self._materialise(folder)
            try:
                updater = self._refresh(folder, MetadataFromBundle(bundle), at=described.created)
            except DownloadError as error:
                raise BundleError(f"signed documents are missing: {error}") from None
            except RepositoryError as error:  # nothing of it is kept: nobody vouched for the time yet
                raise self._translated(None, error) from None
            self._vouched(folder, bundle)
            if self._now() > described.expires:
                raise BundleExpiredError(
                    f"the bundle of {described.created:%Y-%m-%d} ended {described.expires:%Y-%m-%d}"
                )
            update = self._ordered(folder, updater, assignment)
            if update is not None:
                self._still_valid(folder, update.model)
                update = replace(update, offers=())  # a bundle carries full files
            self._write_back(folder, verified=True)
            return update

    def _vouched(self, folder: Path, bundle: BundleFolder) -> None:
        """Nothing, if the director that the release keys name signed the bundle's description."""
        top, found = _targets((folder / "targets.json").read_bytes()), bundle.signature()
        signature = Signature(found["keyid"], found["sig"])
        try:
            signed = layout.signed_part(bundle.description)
            top.signed.verify_delegate(DIRECTOR, signed, {signature.keyid: signature})
        except (UnsignedMetadataError, ValueError) as error:
            raise reasons.ForgedError(f"{layout.DESCRIPTION}: {error}") from None

    def _still_valid(self, folder: Path, model: str) -> None:
        """Only timestamp and snapshot may be older than their time: what people signed may not."""
        known = [folder / f"{role}.json" for role in ("root", "targets", f"model-{model}")]
        for path in [path for path in known if path.exists()]:
            signed = Metadata.from_bytes(path.read_bytes()).signed
            if signed.is_expired(self._now()):
                raise reasons.ExpiredError(f"{path.stem} expired {signed.expires:%Y-%m-%d}")

    def _ordered(self, folder: Path, updater: Updater, assignment: str) -> Update | None:
        version, orders = self._orders(folder, assignment)
        if version == self._journal.seen:
            return None
        update = _update(version, orders)
        try:
            update = replace(update, offers=self._judge(version, orders, updater))
            self.content_key(update)
        except RefusedError as error:
            return advance(update, Event.REJECTED, reason=error.code, detail=error.detail)
        return advance(update, Event.TRUSTED)

    def _refreshed(self, folder: Path, hint: str, other: Callable[[str], bytes] | None, wire: Wire) -> Updater:
        """An updater whose top-level metadata is verified and current. The announcement's own timestamp
        is tried first; one that is stale is no proof of bad will, the manager is asked for today's."""
        try:
            return self._refresh(folder, MetadataByNetwork(hint.encode(), other, wire))
        except (ExpiredMetadataError, BadVersionNumberError, DownloadHTTPError) as error:
            logger.info("announced timestamp not usable error=%s", type(error).__name__)
        except (RepositoryError, DownloadError) as error:
            raise self._translated(folder, error) from None
        try:
            return self._refresh(folder, MetadataByNetwork(None, other, wire))
        except (RepositoryError, DownloadError) as error:
            raise self._translated(folder, error) from None

    def _refresh(self, folder: Path, fetcher: FetcherInterface, *, at: datetime | None = None) -> Updater:
        updater = Updater(
            str(folder),
            self._metadata_url,
            fetcher=fetcher,
            config=UpdaterConfig(prefix_targets_with_hash=False),
            bootstrap=self._root,
        )
        updater._trusted_set.reference_time = at or self._now()  # noqa: SLF001  # python-tuf takes no clock
        updater.refresh()
        return updater

    def _translated(self, folder: Path | None, error: Exception) -> Exception:
        if folder is not None:
            self._write_back(folder, verified=False)
        match error:
            case DownloadError():
                return reasons.SourceUnavailableError(f"trust metadata: {error}")
            case UnsignedMetadataError():
                return reasons.ForgedError(f"trust metadata: {error}")
            case ExpiredMetadataError():
                return reasons.ExpiredError(f"trust metadata: {error}")
            case BadVersionNumberError():
                return reasons.ReplayedError(f"trust metadata: {error}")
            case _:
                return reasons.MetadataError(f"trust metadata: {error}")

    def _orders(self, folder: Path, assignment: str) -> tuple[int, Orders]:
        """Version and content of the assignment, whose signature and addressee are right."""
        top = _targets((folder / "targets.json").read_bytes())
        found = _targets(assignment.encode())
        try:
            top.signed.verify_delegate(DIRECTOR, found.signed_bytes, found.signatures)
        except (UnsignedMetadataError, ValueError) as error:
            raise reasons.ForgedError(f"assignment: {error}") from None
        path = f"assign/{self._device}"
        target = found.signed.targets.get(path)
        if target is None or len(found.signed.targets) != 1 or not _may_say(top.signed, path):
            raise reasons.WrongDeviceError(f"assignment for {', '.join(found.signed.targets)[:200] or 'nobody'}")
        try:
            orders = Orders.model_validate(target.custom)
        except ValidationError as error:
            raise reasons.MetadataError(f"assignment: {str(error).splitlines()[0]}") from None
        if orders.device != self._device:
            raise reasons.WrongDeviceError(f"assignment for {orders.device}")
        if found.signed.is_expired(self._now()):
            raise reasons.ExpiredError(f"assignment {found.signed.version} expired {found.signed.expires:%Y-%m-%d}")
        return found.signed.version, orders

    def _judge(self, version: int, orders: Orders, updater: Updater) -> tuple[Offer, ...]:
        """The deltas that release keys offer for what the orders name."""
        if version < self._journal.seen:
            raise reasons.ReplayedError(f"assignment {version} after {self._journal.seen}")
        if orders.window is not None:
            check_zone(orders.window.zone)
        path = release_path(orders.model, orders.version)
        try:
            released = updater.get_targetinfo(path)
        except DownloadError as error:
            raise reasons.SourceUnavailableError(f"{path}: {error}") from None
        except ExpiredMetadataError as error:
            raise reasons.ExpiredError(f"{path}: {error}") from None
        except UnsignedMetadataError as error:
            raise reasons.ForgedError(f"{path}: {error}") from None
        except RepositoryError as error:
            raise reasons.MetadataError(f"{path}: {error}") from None
        if released is None:
            raise reasons.NotReleasedError(f"no release key vouches for {orders.model}@{orders.version}")
        if released.hashes.get("sha256") != orders.manifest:
            raise reasons.NotReleasedError(f"release keys vouch for another {orders.model}@{orders.version}")
        return offers(released.custom)

    # the folder that python-tuf works in

    def _materialise(self, folder: Path) -> None:
        for name, data in self._journal.trusted().items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)

    def _write_back(self, folder: Path, *, verified: bool) -> None:
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*.json")
            if path.is_file() and not path.is_symlink()
        }
        self._journal.save_trusted(files, verified_at=_signed_before(files) if verified else None)

    def _now(self) -> datetime:
        floor = self._journal.verified_at
        return max(self._clock.now(), floor) if floor else self._clock.now()


def _targets(data: bytes) -> Metadata[Targets]:
    try:
        found: Metadata[Targets] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise BadInputError(f"not TUF metadata: {error}") from None
    if not isinstance(found.signed, Targets):
        raise reasons.ForgedError(f"a {found.signed.type} in the place of targets")
    return found


def _may_say(top: Targets, path: str) -> bool:
    roles = (top.delegations.roles if top.delegations else None) or {}
    return DIRECTOR in roles and bool(roles[DIRECTOR].is_delegated_path(path))


def _signed_before(files: Mapping[str, bytes]) -> datetime | None:
    """The latest time that every verified online document is known to be younger than."""
    known = [
        Metadata.from_bytes(files[name]).signed.expires - lifetime
        for name, lifetime in LIFETIMES.items()
        if name in files
    ]
    return min(known, default=None)


def _update(version: int, orders: Orders) -> Update:
    return Update(
        assignment=version,
        model=orders.model,
        version=orders.version,
        manifest=orders.manifest,
        sealed_key=orders.sealed_key,
        rollout=orders.rollout,
        force=orders.force,
        later=orders.activate == "later",
        called_off=orders.activate == "never",
        window=orders.window,
        keep_versions=orders.keep_versions,
        shadow=orders.shadow,
        state=State.ANNOUNCED,
    )
