"""One contract for every place where chunks may be kept: a folder, memory, a bucket of an S3-compatible server."""

import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.releases.bucket_depot import BucketDepot
from fleet.releases.depot import MAX_CHUNK_BYTES, Depot
from fleet.releases.errors import StoreError, StoreSetupError
from fleet.releases.folder_depot import FolderDepot
from shared.chunking import DamagedChunkError
from shared.errors import BadInputError
from shared.identifiers import sha256

CHUNK = bytes(range(256)) * 40
NAME = sha256(CHUNK)
SOON = timedelta(minutes=1)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Callable[[], Depot]]:
    """Makes depots at an S3-compatible server on loopback."""
    server_of = pytest.importorskip("moto.server", reason="the S3-compatible server is not installed")
    boto3 = pytest.importorskip("boto3")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            url = f"http://{host}:{port}"
            boto3.client("s3", endpoint_url=url).create_bucket(Bucket="releases")
            yield lambda: BucketDepot(f"s3://releases/{uuid.uuid4()}", client_kwargs={"endpoint_url": url})
        finally:
            server.stop()


@pytest.fixture(params=["folder", "memory", "s3"])
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    match request.param:
        case "folder":
            return FolderDepot(tmp_path)
        case "memory":
            return BucketDepot(f"memory://{uuid.uuid4()}")
        case _:
            return request.getfixturevalue("bucket")()  # type: ignore[no-any-return]


def test_a_chunk_is_kept_once_under_its_digest_until_it_is_removed(depot: Depot) -> None:
    assert depot.missing([NAME]) == [NAME]
    assert depot.get(NAME) is None
    assert depot.put(NAME, CHUNK) is True
    assert depot.put(NAME, CHUNK) is False
    assert depot.get(NAME) == CHUNK
    other = sha256(b"other")
    assert depot.missing([other, NAME]) == [other]
    assert depot.remove(NAME) is True
    assert depot.remove(NAME) is False
    assert depot.missing([NAME]) == [NAME]


def test_what_is_not_the_chunk_is_refused(depot: Depot) -> None:
    with pytest.raises(DamagedChunkError):
        depot.put(NAME, CHUNK + b"x")
    too_long = bytes(MAX_CHUNK_BYTES + 1)
    for name, chunk in ((sha256(too_long), too_long), (sha256(b""), b""), ("../" * 21 + "x", CHUNK)):
        with pytest.raises(BadInputError):
            depot.put(name, chunk)
    for ask in (depot.get, depot.where, depot.remove):
        with pytest.raises(BadInputError):
            ask("../../etc/passwd")
    assert depot.older(datetime.now(UTC) + SOON) == []


def test_only_what_is_old_is_listed_and_removed_for_its_age(depot: Depot) -> None:
    depot.put(NAME, CHUNK)
    now = datetime.now(UTC)
    assert depot.older(now - SOON) == []
    assert depot.older(now + SOON) == [NAME]
    assert depot.remove(NAME, before=now - SOON) is False
    assert depot.get(NAME) == CHUNK
    assert depot.remove(NAME, before=now + SOON) is True
    assert depot.older(now + SOON) == []


@pytest.mark.parametrize("how", ["asked for", "uploaded"])
def test_a_chunk_that_is_offered_again_counts_as_new(tmp_path: Path, how: str) -> None:
    depot = FolderDepot(tmp_path)
    depot.put(NAME, CHUNK)
    os.utime(depot.path(NAME), (1, 1))
    if how == "asked for":
        assert depot.missing([NAME]) == []
    else:
        assert depot.put(NAME, CHUNK) is False
    assert depot.remove(NAME, before=datetime.now(UTC) - SOON) is False


def test_an_object_that_is_offered_again_is_written_again_when_it_is_old() -> None:
    bucket = str(uuid.uuid4())
    depot = BucketDepot(f"memory://{bucket}")
    depot.put(NAME, CHUNK)
    (entry,) = (file for path, file in depot._files.store.items() if bucket in path and path.endswith(NAME))
    entry.created = datetime.now(UTC) - timedelta(hours=13)
    assert depot.missing([NAME]) == []
    assert depot.older(datetime.now(UTC) - SOON) == []
    assert depot.get(NAME) == CHUNK


def test_a_place_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreSetupError, match=r"releases\.store"):
        BucketDepot("nowhere-at-all://x")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="chunks at file"):
        BucketDepot(f"file://{tmp_path}/file").put(NAME, CHUNK)
