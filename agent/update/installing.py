"""`flotilla-agent install BUNDLE`: follow the assignments of a bundle one after the other, to their end.

With the daemon, it does all of it; without, the first release is verified, copied and left as the update that the
next start performs. Repeating either is harmless, and finishes what was interrupted.

I/O: disk, tasks.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from agent.errors import InstallFailedError
from agent.update import plan, reasons
from agent.update.bundle import BundleFolder
from agent.update.chunk_store import ChunkStore
from agent.update.journal import Journal
from shared.manifest import Manifest
from shared.messages import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from agent.update.driver import Driver
    from agent.update.lifecycle import Update
    from agent.update.trust import Trust
    from shared.bundle import Packed

LOOK_SECONDS: Final = 0.2
#: Not a phase: an assignment that this device had followed, or passed over for a newer one.
SEEN_BEFORE: Final = "seen-before"
#: Not a phase either: the next start of the agent installs it.
PREPARED: Final = "prepared"
#: For one that is prepared: repeat the command when the agent runs.
WAITS: Final = "waits"


@dataclass(frozen=True, slots=True)
class Installed:
    """What became of one release of the bundle; `outcome` is a final phase or one of the words above."""

    model: str
    version: str
    outcome: str
    reason: str | None = None
    detail: str | None = None


async def install(driver: Driver, journal: Journal, *, device: str, folder: Path) -> dict[str, object]:
    """What the daemon does: every release in order; the answer tells how each ended.

    Raises:
        RefusedError: the bundle is not whole, not valid or not for this device; nothing of it was begun.
    """
    bundle = await asyncio.to_thread(BundleFolder, folder)
    numbers = bundle.numbers(device)
    driver.sources.attach(bundle)
    try:
        found = []
        for number, packed in zip(numbers, bundle.described.releases, strict=False):
            update = await driver.bring(bundle, number) if number > journal.seen else None
            found.append(await _end(journal, packed, fresh=update is not None))
    finally:
        driver.sources.detach(bundle.name)
    return _document(folder, found)


async def _end(journal: Journal, packed: Packed, *, fresh: bool) -> Installed:
    """How the release ends, once no update carries it any more."""
    seen = fresh
    while _carried(journal, packed.manifest):
        seen = True
        await asyncio.sleep(LOOK_SECONDS)
    ending = journal.ending(packed.model)
    if ending is None or ending.version != packed.version:
        return Installed(packed.model, packed.version, SEEN_BEFORE if not seen else Phase.COMMITTED)
    outcome = ending.phase if seen else SEEN_BEFORE
    return Installed(packed.model, packed.version, outcome, ending.reason, ending.detail)


def _carried(journal: Journal, manifest: str) -> bool:
    return any(it is not None and it.manifest == manifest for it in (journal.update("current"), journal.update("next")))


async def prepare(state_dir: Path, trust: Trust, journal: Journal, *, folder: Path) -> dict[str, object]:
    """What is done while no daemon runs here: the first release that is new waits, complete, for the next start.

    Raises:
        RefusedError: the bundle is not whole, not valid or not for this device; nothing changed.
        UpdateBusyError: an update was interrupted and is to be finished first.
    """
    bundle = await asyncio.to_thread(BundleFolder, folder)
    if journal.update("current") is not None or journal.update("next") is not None:
        remedy = "start the agent, then repeat the command"
        raise reasons.UpdateBusyError("an update waits for the agent", remedy=remedy)
    found: list[Installed] = []
    for number, packed in zip(bundle.numbers(trust.device), bundle.described.releases, strict=False):
        outcome = SEEN_BEFORE
        if any(one.outcome == PREPARED for one in found):
            outcome = WAITS
        elif number > journal.seen and (update := await trust.verify_bundle(bundle, number)) is not None:
            if update.reason is not None:
                raise reasons.BundleRefusedError(f"{update.detail} ({update.reason})")
            copied = await _copy(ChunkStore(state_dir), journal, bundle, update)
            counted = replace(update, sources={bundle.name: copied})
            journal.accepted(bundle.announcement(trust.device, number), counted)
            journal.promote()
            outcome = PREPARED
        found.append(Installed(packed.model, packed.version, outcome))
    return _document(folder, found)


async def _copy(store: ChunkStore, journal: Journal, bundle: BundleFolder, update: Update) -> int:
    """Bytes of chunks that were not here."""
    copied = 0
    data = await bundle.manifest(update.manifest)
    await asyncio.to_thread(bundle.check, update.manifest)
    for chunk in plan.chunks(Manifest.parse(data, update.manifest)):
        if not store.has(chunk):
            await asyncio.to_thread(store.put, chunk.id, await bundle.chunk(chunk))
            copied += chunk.size_bytes
    journal.save_manifest(update.manifest, data)
    return copied


def _document(folder: Path, found: list[Installed]) -> dict[str, object]:
    return {"bundle": str(folder), "releases": [asdict(one) for one in found]}


def judge(document: dict[str, object]) -> None:
    """Nothing, if every release of the answer is here or will be.

    Raises:
        InstallFailedError: one came to another end.
    """
    fine = {Phase.COMMITTED, SEEN_BEFORE, PREPARED, WAITS}
    releases = document["releases"]
    bad = [one for one in releases if one["outcome"] not in fine] if isinstance(releases, list) else []
    if bad:
        told = "; ".join(
            f"{it['model']}@{it['version']} {it['outcome']}: {it['detail']} ({it['reason']})" for it in bad
        )
        raise InstallFailedError(told)
