"""Uploads that were given up go after a day; what a release, a delta or a publish under way needs stays."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from fleet.releases import documents, leftovers
from fleet.releases.folder_depot import FolderDepot
from shared.delta.offer import Description, Offer
from shared.errors import RefusedError
from shared.identifiers import release_path, sha256
from shared.manifest import Artifact, Chunk
from tests.simulators.release_repository import Release, ReleaseRepository, tiny_model

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Bench:
    """A depot with one release, a delta to it, and one chunk that nothing names; all two days old."""

    def __init__(self, folder: Path) -> None:
        self.depot = FolderDepot(folder)
        self.release: Release = ReleaseRepository().publish("digits", "1.0.0", tiny_model())
        model = self.release.manifest.artifacts["model"]
        piece = b"a sealed piece of a delta"
        stream = Artifact(
            digest=sha256(b"stream"),
            size_bytes=6,
            chunks=(Chunk(id=sha256(piece), size_bytes=len(piece), plain_bytes=6),),
        )
        self.description = Description(
            base=sha256(b"old"), base_bytes=3, result=model.digest, result_bytes=model.size_bytes, stream=stream
        ).to_bytes()
        offer = Offer(
            base=sha256(b"old"),
            description=sha256(self.description),
            description_bytes=len(self.description),
            sealed_bytes=len(piece),
        )
        entry = documents.release_target(self.release.manifest, self.release.data, [offer])
        role = Targets(version=1, expires=NOW, targets={release_path("digits", "1.0.0"): entry})
        self.roles = {"model-digits": Metadata(role).to_bytes()}
        self.needed = {**self.release.chunks, sha256(piece): piece, sha256(self.description): self.description}
        self.abandoned = sha256(b"given up")
        for name, chunk in {**self.needed, self.abandoned: b"given up"}.items():
            self.depot.put(name, chunk)
            self.age(name, timedelta(days=2))

    def age(self, name: str, age: timedelta) -> None:
        then = (NOW - age).timestamp()
        os.utime(self.depot.path(name), (then, then))

    def clear(self, *, live: bool = True) -> int:
        return leftovers.clear(self.depot, [self.release.data] if live else [], self.roles, NOW)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_only_what_nothing_names_is_deleted(bench: Bench) -> None:
    assert bench.clear() == 1
    assert bench.depot.missing([*bench.needed, bench.abandoned]) == [bench.abandoned]
    assert bench.clear() == 0


def test_an_upload_of_less_than_a_day_stays(bench: Bench) -> None:
    bench.age(bench.abandoned, timedelta(hours=23))
    assert bench.clear() == 0


def test_what_a_publish_just_asked_for_stays_although_it_was_listed_as_old(bench: Bench) -> None:
    asks, depot = bench.depot.missing, bench.depot
    older = depot.older

    def older_then_a_publish_begins(before: datetime) -> list[str]:
        found = list(older(before))
        assert asks([bench.abandoned]) == []
        return found

    depot.older = older_then_a_publish_begins  # type: ignore[method-assign]
    assert bench.clear() == 0
    assert depot.get(bench.abandoned) == b"given up"


def test_the_delta_of_a_retired_release_goes(bench: Bench) -> None:
    assert bench.clear(live=False) == len(bench.needed) + 1


def test_nothing_is_deleted_when_a_description_is_damaged(bench: Bench) -> None:
    path = bench.depot.path(sha256(bench.description))
    path.write_bytes(b"x" * len(bench.description))
    bench.age(path.name, timedelta(days=2))
    with pytest.raises(RefusedError):
        bench.clear()
    assert bench.depot.get(bench.abandoned) == b"given up"
