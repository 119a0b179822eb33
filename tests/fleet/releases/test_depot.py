"""Chunks: written once, checked, served in ranges, never outside of the folder."""

import threading
import uuid

import httpx2
import pytest

from fleet.releases.bucket_depot import BucketDepot
from fleet.releases.depot import MAX_CHUNK_BYTES
from fleet.releases.folder_depot import FolderDepot
from fleet.settings import FleetSettings, ReleaseSettings
from shared.chunking import DamagedChunkError
from shared.errors import BadInputError
from shared.identifiers import sha256

CHUNK = bytes(range(256)) * 40
NAME = sha256(CHUNK)


def ask(workshop, method, path, token="releaser", **arguments):
    headers = {"Authorization": f"Bearer {token}", **arguments.pop("headers", {})}
    return httpx2.request(method, workshop.url + path, headers=headers, trust_env=False, **arguments)


def test_a_chunk_is_kept_once_under_its_digest(tmp_path):
    depot = FolderDepot(tmp_path)
    assert depot.missing([NAME]) == [NAME]
    assert depot.put(NAME, CHUNK) is True
    assert depot.put(NAME, CHUNK) is False
    assert depot.path(NAME).read_bytes() == CHUNK == depot.get(NAME)
    assert depot.missing([NAME]) == []
    assert [path.name for path in depot.path(NAME).parent.iterdir()] == [NAME]


def test_what_is_not_the_chunk_is_refused_and_leaves_nothing(tmp_path):
    depot = FolderDepot(tmp_path)
    with pytest.raises(DamagedChunkError):
        depot.put(NAME, CHUNK + b"x")
    too_long = bytes(MAX_CHUNK_BYTES + 1)
    for name, chunk in ((sha256(too_long), too_long), (sha256(b""), b"")):
        with pytest.raises(BadInputError):
            depot.put(name, chunk)
    assert depot.get(NAME) is None


@pytest.mark.parametrize(
    "name", ["", "..", "../" * 20 + "etc/passwd", NAME.upper(), NAME + "\n", NAME[:-1], "/" + NAME]
)
def test_a_name_that_is_no_digest_leads_nowhere(tmp_path, name):
    with pytest.raises(BadInputError):
        FolderDepot(tmp_path).path(name)


def test_many_writers_of_one_chunk_leave_one_whole_file(tmp_path):
    depot = FolderDepot(tmp_path)
    start = threading.Barrier(8)

    def write():
        start.wait(10)
        depot.put(NAME, CHUNK)

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(10)
    assert [path.name for path in depot.path(NAME).parent.iterdir()] == [NAME]
    assert depot.get(NAME) == CHUNK


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_uploaded_chunks_are_served_to_anybody_in_ranges_for_ever(workshop, kind):
    if kind == "bucket":
        workshop.manager.depot = BucketDepot(f"memory://{uuid.uuid4()}")
    assert ask(workshop, "POST", "/api/v1/chunks/missing", json={"ids": [NAME]}).json() == {"missing": [NAME]}
    assert ask(workshop, "PUT", f"/api/v1/chunks/{NAME}", content=CHUNK).status_code == 201
    assert ask(workshop, "PUT", f"/api/v1/chunks/{NAME}", content=CHUNK).status_code == 200
    assert ask(workshop, "POST", "/api/v1/chunks/missing", json={"ids": [NAME]}).json() == {"missing": []}

    url = f"{workshop.url}/chunks/{NAME}"
    whole = httpx2.get(url, trust_env=False)
    assert whole.content == CHUNK
    assert "immutable" in whole.headers["cache-control"]
    assert whole.headers["etag"] == f'"{NAME}"'
    part = httpx2.get(url, headers={"Range": "bytes=100-199"}, trust_env=False)
    assert (part.status_code, part.content) == (206, CHUNK[100:200])
    rest = httpx2.get(url, headers={"Range": "bytes=10000-", "If-Range": f'"{NAME}"'}, trust_env=False)
    assert (rest.status_code, rest.content) == (206, CHUNK[10000:])
    assert httpx2.get(url, headers={"Range": "bytes=99999-"}, trust_env=False).status_code == 416
    assert httpx2.get(url, headers={"If-None-Match": f'"{NAME}"'}, trust_env=False).status_code == 304


def test_who_follows_redirects_is_sent_to_where_chunks_are_public(workshop):
    ask(workshop, "PUT", f"/api/v1/chunks/{NAME}", content=CHUNK)
    settings = FleetSettings(releases=ReleaseSettings(public_url="https://cdn.example/fleet/"))
    workshop.manager.settings = settings
    url = f"{workshop.url}/chunks/{NAME}"
    sent = httpx2.get(url, headers={"Flotilla-Elsewhere": "1"}, trust_env=False)
    assert (sent.status_code, sent.headers["location"]) == (
        307,
        f"https://cdn.example/fleet/chunks/{NAME[:2]}/{NAME}",
    )
    assert sent.headers["cache-control"] == "no-store"
    assert httpx2.get(url, trust_env=False).content == CHUNK


def test_bad_uploads_are_refused(workshop):
    wrong = ask(workshop, "PUT", f"/api/v1/chunks/{NAME}", content=b"other")
    assert (wrong.status_code, wrong.json()["code"]) == (409, "E_CHUNK_DAMAGED")
    huge = ask(workshop, "PUT", f"/api/v1/chunks/{NAME}", content=bytes(MAX_CHUNK_BYTES + 1))
    assert (huge.status_code, huge.json()["code"]) == (413, "E_TOO_LARGE")
    assert ask(workshop, "PUT", "/api/v1/chunks/..%2f..%2fx", content=b"x").status_code in (404, 422)
    assert ask(workshop, "PUT", f"/api/v1/chunks/{NAME[:-1]}z", content=b"x").status_code == 422
    assert ask(workshop, "PUT", f"/api/v1/chunks/{NAME}", content=CHUNK, token="viewer").status_code == 403
    assert httpx2.get(f"{workshop.url}/chunks/{NAME}", trust_env=False).status_code == 404


@pytest.mark.parametrize(
    "path", ["/chunks/..%2f..%2fkeys%2fdirector.key", "/chunks/%2e%2e", "/manifests/zz", f"/manifests/{NAME}"]
)
def test_strange_downloads_find_nothing(founded, path):
    assert httpx2.get(founded.url + path, trust_env=False).status_code in (404, 422)
