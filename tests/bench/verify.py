"""What a device pays to believe: signed documents from the root to its assignment, with 1 to 1000 models in the fleet.

    first       nothing known: root, timestamp, snapshot, targets, the model's role, the assignment
    again       a new assignment, nothing else changed
    next        a new release of the model: its role, the snapshot, the timestamp, the assignment

python -m tests.bench.verify [--quick] [--json]

The verifier is the agent's own, with its journal on disk; documents come over HTTP from this machine. Times are those
of the processor, of one core, without the server's. Peer: python-tuf alone, files in memory, nothing kept on disk.
Goals: an update costs at most 5.3 kB at 100 models (announcement included), nothing is fetched when nothing changed,
and a decision takes 25 ms of one core, 100 ms with 1000 models.
"""

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from nacl.public import PrivateKey
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import MetaFile, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from agent.update.journal import Journal
from agent.update.trust import Trust
from shared.clock import SystemClock
from shared.identifiers import release_path
from shared.messages import Announcement
from tests.bench.document import Result, arguments, tell
from tests.simulators.release_repository import Release, ReleaseRepository, tiny_model

SIZES = (1, 100, 1000)
DECISION_MS = {1: 25.0, 100: 25.0, 1000: 100.0}  # of one core
UPDATE_BYTES = 5300.0
MODEL = "digits"


def main() -> int:
    chosen = arguments("trust metadata")
    logging.disable(logging.INFO)
    rounds = 3 if chosen.quick else 9
    results: list[Result] = []
    for size in SIZES:
        with tempfile.TemporaryDirectory(prefix="flotilla-verify-") as folder, Fleet(size) as fleet:
            results += list(_measured(fleet, Path(folder), rounds))
    return tell("verify", results, as_json=chosen.json)


class Fleet:
    """A repository of so many models, one of which is on our device."""

    def __init__(self, size: int) -> None:
        self.size, self.box, self.repository = size, PrivateKey.generate(), ReleaseRepository()
        for number in range(size - 1):
            path = release_path(f"m-{number:04}", "1.0.0")
            custom = {"custom": {"counter": 1, "minimum_counter": 0}}
            entry = TargetFile(3000, {"sha256": f"{number:064x}"}, path, custom)
            self.repository.roles[f"model-m-{number:04}"] = {path: entry}
        self.release = self.repository.publish(MODEL, "1.0.0", tiny_model())

    def __enter__(self) -> Self:
        self.repository.__enter__()
        return self

    def __exit__(self, *gone: object) -> None:
        self.repository.__exit__(*gone)

    def announce(self, release: Release) -> Announcement:
        return self.repository.announce("cam-1", bytes(self.box.public_key), release)

    def next_release(self, version: str) -> Release:
        """Signed as a manager does it: only the role that changed, snapshot and timestamp."""
        made = self.repository.publish(MODEL, version, tiny_model(), listed=False)
        role, path = f"model-{MODEL}", release_path(MODEL, version)
        custom = {"custom": {"counter": made.manifest.counter, "minimum_counter": 0}}
        self.repository.roles[role][path] = TargetFile(len(made.data), {"sha256": made.digest}, path, custom)
        ends = self.repository._in(365)
        self.repository._put(role, Targets(expires=ends, targets=dict(self.repository.roles[role])),
                             self.repository.release_signer)  # fmt: skip
        names = ["targets", *self.repository.roles]
        meta = {f"{name}.json": MetaFile(self.repository.versions[name]) for name in names}
        snapshot = Snapshot(expires=self.repository._in(7), meta=meta)
        named = self.repository._put("snapshot", snapshot, self.repository.snapshot_signer)
        self.repository._put("timestamp", Timestamp(expires=self.repository._in(1), snapshot_meta=named),
                             self.repository.timestamp_signer)  # fmt: skip
        return made

    def device(self, journal: Journal) -> Trust:
        repository, clock = self.repository, SystemClock()
        return Trust(
            journal,
            root=repository.root,
            device="cam-1",
            manager_url=repository.url,
            box_key=bytes(self.box),
            clock=clock,
        )

    def fetched(self, work: Callable[[], object]) -> tuple[float, int]:
        """Milliseconds of this thread's processor time, and bytes that came by HTTP."""
        self.repository.requests.clear()
        began = time.thread_time()
        work()
        spent = 1000 * (time.thread_time() - began)
        asked = self.repository.requests.items()
        return spent, sum(number * len(self.repository.files.get(path, b"")) for path, number in asked)


def _measured(fleet: Fleet, folder: Path, rounds: int) -> Iterator[Result]:
    name = f"{fleet.size} model{'s' if fleet.size > 1 else ''}"
    first: list[tuple[float, int]] = []
    for number in range(rounds):
        journal = Journal(folder / f"{number}.sqlite")
        trust, order = fleet.device(journal), fleet.announce(fleet.release)
        first.append(fleet.fetched(lambda trust=trust, order=order: trust._verify(order, None)))  # type: ignore[misc]
        journal.close()
    journal = Journal(folder / "kept.sqlite")
    trust = fleet.device(journal)
    trust._verify(fleet.announce(fleet.release), None)
    again: list[tuple[float, int]] = []
    following: list[tuple[float, int]] = []
    for number in range(rounds):
        order = fleet.announce(fleet.release)
        again.append(fleet.fetched(lambda order=order: trust._verify(order, None)))  # type: ignore[misc]
        order = fleet.announce(fleet.next_release(f"2.{number}.0"))
        following.append(fleet.fetched(lambda order=order: trust._verify(order, None)))  # type: ignore[misc]
    journal.close()
    alone = statistics.median(_tuf_alone(fleet) for _ in range(rounds))
    told = len(order.to_bytes())
    yield Result(f"{name}: first", _ms(first), "ms", DECISION_MS[fleet.size], {"python-tuf alone": round(alone, 2)})
    yield Result(f"{name}: first, fetched", first[0][1], "bytes")
    yield Result(f"{name}: again", _ms(again), "ms", DECISION_MS[fleet.size])
    yield Result(f"{name}: again, fetched", max(one[1] for one in again), "bytes", 0.0)
    yield Result(f"{name}: next", _ms(following), "ms", DECISION_MS[fleet.size])
    goal = UPDATE_BYTES if fleet.size <= 100 else None
    yield Result(f"{name}: next, fetched and announced", following[0][1] + told, "bytes", goal)


def _ms(taken: list[tuple[float, int]]) -> float:
    return round(statistics.median(one[0] for one in taken), 2)


class _InMemory(FetcherInterface):
    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._files.get(url.removeprefix("http://x"))
        if data is None:
            raise DownloadHTTPError("not there", 404)
        return iter((data,))


def _tuf_alone(fleet: Fleet) -> float:
    """Milliseconds for root to the model's role, by the library alone."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        began = time.thread_time()
        updater = Updater(
            folder, "http://x/metadata/", fetcher=_InMemory(fleet.repository.files),
            config=UpdaterConfig(prefix_targets_with_hash=False), bootstrap=fleet.repository.root,
        )  # fmt: skip
        updater.refresh()
        assert updater.get_targetinfo(release_path(MODEL, "1.0.0")) is not None
        return 1000 * (time.thread_time() - began)


if __name__ == "__main__":
    sys.exit(main())
