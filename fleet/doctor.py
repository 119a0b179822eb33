"""Look at everything that the manager stands on; say what is wrong and what to do about it.

I/O: disk, network.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from sqlalchemy import make_url, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fleet.access.secrets import Pepper
from fleet.parts import depot_of, fingerprint
from fleet.releases.online_keys import OnlineKeys
from fleet.releases.repository import Repository
from fleet.store import backups, leadership, releases
from fleet.store.database import HEAD, revision
from fleet.store.tables import Leadership, Release
from shared.clock import SystemClock
from shared.errors import FlotillaError
from shared.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from fleet.settings import FleetSettings

State = Literal["pass", "warn", "fail"]
_SIGNS: Final[dict[State, str]] = {"pass": "✓", "warn": "!", "fail": "✗"}
_FREE_BYTES: Final = 1024**3
#: Before this the clock of a machine cannot be right.
_EPOCH_YEAR: Final = 2026
_KEYS: Final = ("pepper", "snapshot.key", "timestamp.key", "director.key", "escrow.key")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    text: str
    fix: str = ""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def healthy(findings: Sequence[Finding]) -> bool:
    """True when nothing failed; warnings are no failures."""
    return all(finding.state != "fail" for finding in findings)


def told(findings: Sequence[Finding]) -> Iterator[str]:
    """One line for each finding, and one for each remedy."""
    for finding in findings:
        yield f"{_SIGNS[finding.state]} {finding.what:<9} {finding.text}"
        if finding.fix:
            yield f"  {'':<9} fix: {finding.fix}"


async def examine(settings: FleetSettings) -> list[Finding]:
    """Everything, in the order in which things need each other."""
    return [
        *_folder(settings),
        *_keys(settings),
        *await _database(settings),
        *await _together(settings),
        *_broker(settings),
        _clock(SystemClock().now()),
    ]


def _folder(settings: FleetSettings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not folder.is_dir():
        yield Finding("disk", "fail", f"there is no folder {folder}", f"flotilla-fleet init --data-dir {folder}")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            "disk", "fail", f"{folder} is not writable for this user", f"chown it, or run as its owner: {folder}"
        )
        return
    free = shutil.disk_usage(folder).free
    enough = free > _FREE_BYTES
    fix = "" if enough else "make room; releases need about their own size each"
    yield Finding("disk", "pass" if enough else "warn", f"{folder}, {free / 1024**3:.1f} GiB free", fix)


def _keys(settings: FleetSettings) -> Iterator[Finding]:
    folder = settings.data_dir / "keys"
    missing = [name for name in _KEYS if not (folder / name).is_file()]
    open_to_all = [name for name in _KEYS if (folder / name).is_file() and (folder / name).stat().st_mode & 0o077]
    if missing:
        fix = f"flotilla-fleet init --data-dir {settings.data_dir}, or flotilla backup restore FILE"
        yield Finding("keys", "fail", f"missing: {', '.join(missing)}", fix)
    if open_to_all:
        yield Finding("keys", "fail", f"readable for others: {', '.join(open_to_all)}", f"chmod 600 {folder}/*")
    if not missing and not open_to_all:
        yield Finding("keys", "pass", f"{len(_KEYS)} keys in {folder}, for this user only")


async def _database(settings: FleetSettings) -> list[Finding]:
    if settings.database.url is None and not (settings.data_dir / "fleet.sqlite").is_file():
        return [Finding("database", "fail", "there is none yet", f"flotilla-fleet init --data-dir {settings.data_dir}")]
    engine = create_async_engine(settings.database_url)
    try:
        async with engine.connect() as connection:
            found = await revision(connection)
            if found != HEAD:
                fix = f"flotilla-fleet migrate --data-dir {settings.data_dir}"
                return [Finding("database", "fail", f"at revision {found}, this program needs {HEAD}", fix)]
            findings = [Finding("database", "pass", f"{engine.name}, revision {found}")]
            if engine.name == "sqlite":
                findings.append(_integrity((await connection.execute(text("PRAGMA quick_check"))).scalar()))
            async with AsyncSession(connection) as tx:
                known = await releases.newest_documents(tx)
                behind = await Repository.behind(tx)
                worry = await backups.worry(tx, SystemClock().now())
            return [*findings, _trust(known["root"].version if "root" in known else None, behind), _backup(worry)]
    except (SQLAlchemyError, OSError) as error:
        return [Finding("database", "fail", str(error).splitlines()[0], "check database.url, the server and the disk")]
    finally:
        await engine.dispose()


def _integrity(answer: object) -> Finding:
    if answer == "ok":
        return Finding("integrity", "pass", "quick_check: ok")
    return Finding(
        "integrity",
        "fail",
        f"quick_check: {answer}",
        "flotilla backup restore FILE --replace, with the newest backup; this file is set aside",
    )


def _backup(worry: str | None) -> Finding:
    if worry is None:
        return Finding("backup", "pass", "there is one, or no device yet")
    return Finding("backup", "warn", worry, "flotilla backup create, and keep the file elsewhere")


def _trust(root: object, behind: str | None) -> Finding:
    if behind:
        text = f"restored from a backup: {behind} must be signed anew before devices believe this manager"
        return Finding("trust", "warn", text, "flotilla init, where the release keys are")
    if root:
        return Finding("trust", "pass", f"root version {root}")
    return Finding(
        "trust", "warn", "not initialised: no release can be published, no device can enrol", "flotilla init"
    )


async def _together(settings: FleetSettings) -> list[Finding]:
    """What several managers on one database must have in common."""
    if settings.database.url is None or make_url(settings.database.url).get_backend_name() == "sqlite":
        return []
    findings = []
    if settings.mqtt.url is None:
        fix = "set mqtt.url to a broker that all of them reach; one manager alone needs none"
        findings.append(Finding("managers", "warn", "the embedded broker serves one manager only", fix))
    engine = create_async_engine(settings.database_url)
    try:
        async with AsyncSession(engine) as tx:
            leader = await leadership.leader(tx)
            manifests = list(await tx.scalars(select(Release.manifest)))
    except (SQLAlchemyError, OSError):
        return findings  # the finding on the database says so
    finally:
        await engine.dispose()
    if all((settings.data_dir / "keys" / name).is_file() for name in _KEYS):
        findings.append(_leader(settings, leader))
    return [*findings, _depot(settings, manifests)]


def _leader(settings: FleetSettings, leader: Leadership | None) -> Finding:
    if leader is None:
        return Finding("managers", "pass", "no manager leads now")
    keys = settings.data_dir / "keys"
    try:
        ours = fingerprint(Pepper.open(keys / "pepper"), OnlineKeys.open(keys))
    except FlotillaError as error:
        return Finding("managers", "fail", error.detail, error.remedy)
    if leader.keys != ours:
        fix = f"copy the folder keys of that manager to {keys}"
        return Finding("managers", "fail", f"{leader.holder} ({leader.url}) leads with other keys than these", fix)
    return Finding("managers", "pass", f"{leader.holder} leads at {leader.url}, with these keys")


def _depot(settings: FleetSettings, manifests: Sequence[bytes]) -> Finding:
    """Whether chunks that another manager took are here as well."""
    parsed = [Manifest.parse(manifest) for manifest in manifests]
    names = {chunk.id for manifest in parsed for artifact in manifest.artifacts.values() for chunk in artifact.chunks}
    missing = len(depot_of(settings).missing(sorted(names)))
    if missing:
        fix = "let releases.store be one folder on shared storage, or one bucket, for all managers"
        return Finding("depot", "fail", f"{missing} of {len(names)} chunks are not here: devices wait for them", fix)
    return Finding("depot", "pass", f"all {len(names)} chunks of the releases are here")


def _broker(settings: FleetSettings) -> Iterator[Finding]:
    if settings.mqtt.url is None:
        yield from _embedded(settings)
        return
    parts = urlsplit(settings.mqtt.url)
    address = (parts.hostname or "", parts.port or (8883 if parts.scheme == "mqtts" else 1883))
    try:
        with socket.create_connection(address, timeout=3):
            yield Finding("broker", "pass", f"{settings.mqtt.url} answers")
    except OSError as error:
        yield Finding("broker", "fail", f"{settings.mqtt.url}: {error}", "start the broker, or correct mqtt.url")


def _embedded(settings: FleetSettings) -> Iterator[Finding]:
    running = _endpoints(settings)
    if running is not None and _answers(running):
        yield Finding("broker", "pass", f"embedded, {running} answers")
        return
    address = (settings.mqtt.embedded_host, settings.mqtt.embedded_port)
    try:
        with socket.create_server(address):
            yield Finding("broker", "pass", "embedded; the manager does not run, its port is free")
    except OSError as error:
        fix = "end what listens there, or set mqtt.embedded_port: 0"
        yield Finding("broker", "fail", f"embedded, port {address[1]}: {error}", fix)


def _endpoints(settings: FleetSettings) -> str | None:
    try:
        return str(json.loads((settings.data_dir / "endpoints.json").read_text())["mqtt"])
    except (OSError, ValueError, KeyError):
        return None


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 1883), timeout=2):
            return True
    except OSError:
        return False


def _clock(now: datetime) -> Finding:
    if now.year >= _EPOCH_YEAR:
        return Finding("clock", "pass", f"{now:%Y-%m-%d %H:%M:%S} UTC")
    return Finding("clock", "fail", f"it is not {now.year}", "set the clock: timedatectl set-ntp true")
