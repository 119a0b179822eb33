"""Which memory may be shared, by whom: names, users, sizes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.serving import clients
from agent.serving.regions import MAX_REGIONS, RegionRefusedError, Registry
from agent.serving.worker_regions import Regions
from agent.serving.worker_tensors import BadRequestError
from agent.serving.worker_wire import NOBODY, News, pack_news, unpack_request

ME = os.getuid()


def place(key: object = "/frame", offset: object = 0, byte_size: object = 4096) -> bytes:
    return json.dumps({"key": key, "offset": offset, "byte_size": byte_size}).encode()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "frame").write_bytes(bytes(8192))
    made = Registry(tmp_path)
    yield made
    made.drop(ME, None)


def test_a_region_is_registered_told_and_dropped_once(registry: Registry) -> None:
    region = registry.register(ME, "r", place(offset=4096))
    assert (region.size, region.offset, region.writable) == (4096, 4096, True)
    assert json.loads(registry.status(ME, None)) == [{"name": "r", "key": "/frame", "offset": 4096, "byte_size": 4096}]
    with pytest.raises(RegionRefusedError, match="already in manager"):
        registry.register(ME, "r", place())
    assert registry.drop(ME, "r") == [region]
    assert registry.drop(ME, "r") == []
    with pytest.raises(RegionRefusedError, match="Unable to find system shared memory region: 'r'"):
        registry.status(ME, "r")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "a region is"),
        (b"[]", "a region is"),
        (b"[" * 100_000, "a region is"),
        (b'{"key": "/frame"}', "a region is"),
        (place(key="../frame"), "not a name that shm_open takes"),
        (place(key="/a/b"), "not a name that shm_open takes"),
        (place(key=".."), "not a name that shm_open takes"),
        (place(key=""), "not a name that shm_open takes"),
        (place(key="/frame\0"), "not a name that shm_open takes"),
        (place(key=7), "not a name that shm_open takes"),
        (place(key="triton_python_backend_shm_region_1"), "reserved"),
        (place(key="/absent"), "Unable to open shared memory region: '/absent'"),
        (place(offset=-1), "not a place in memory"),
        (place(offset=True), "not a place in memory"),
        (place(byte_size=0), "not a place in memory"),
        (place(byte_size=1.5), "not a place in memory"),
        (place(offset=2**63, byte_size=2**63), "not a place in memory"),
        (place(offset=4097), "it has 8192 bytes, offset and byte_size reach to 8193"),
        (place(byte_size=5 * 1024**3), "at most 64 shared memory regions"),
        (place(key="/link"), "Unable to open"),
        (place(key="/folder"), "Unable to open|it is not memory"),
        (place(key="/pipe"), "it is not memory"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_a_reason(
    registry: Registry, tmp_path: Path, body: bytes, text: str
) -> None:
    (tmp_path / "link").symlink_to("frame")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RegionRefusedError, match=text):
        registry.register(ME, "r", body)
    assert len(registry) == 0
    assert len(os.listdir("/proc/self/fd")) == before


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
        lambda value: json.dumps({"key": value, "byte_size": value}).encode()
    )
)
def test_any_bytes_are_refused_or_registered(body: bytes) -> None:
    with pytest.raises(RegionRefusedError):
        Registry(Path("/nonexistent")).register(ME, "r", body)


def test_the_memory_of_other_users_is_not_taken_nor_seen(registry: Registry) -> None:
    with pytest.raises(RegionRefusedError, match="belongs to another user"):
        registry.register(ME + 1, "r", place())
    with pytest.raises(RegionRefusedError, match="whose user can be found out"):
        registry.register(NOBODY, "r", place())
    registry.register(ME, "r", place())
    assert json.loads(registry.status(ME + 1, None)) == []
    assert registry.drop(ME + 1, None) == []
    assert registry.named_in(ME + 1, b'{"shared_memory_region":"r"}') == []
    assert len(registry.named_in(ME, b'{"shared_memory_region":"r"}')) == 1


def test_regions_of_one_user_are_bounded(registry: Registry) -> None:
    for number in range(MAX_REGIONS):
        registry.register(ME, f"r{number}", place())
    with pytest.raises(RegionRefusedError, match="unregister those that are no longer used"):
        registry.register(ME, "one more", place())


@pytest.fixture
def known(tmp_path: Path) -> Iterator[tuple[Regions, Path]]:
    path = tmp_path / "memory"
    path.write_bytes(bytes(range(256)) * 64)
    regions = Regions()
    regions.hear(News(1, "ré", 5000, 1000, True), os.open(path, os.O_RDWR))
    yield regions, path
    regions.clear()


def asked(name: object = "ré", size: object = 16, offset: object = 0) -> dict[str, object]:
    return {"shared_memory_region": name, "shared_memory_byte_size": size, "shared_memory_offset": offset}


def test_news_arrive_as_they_were_sent() -> None:
    news = News(7, "ré", 5000, 1000, True)
    assert unpack_request(pack_news(news)) == news


def test_a_part_of_a_region_is_the_clients_memory(known: tuple[Regions, Path]) -> None:
    regions, path = known
    part = regions.part(1, asked(offset=8), True)
    assert bytes(part) == path.read_bytes()[5008:5024]
    part[:4] = b"here"
    assert path.read_bytes()[5008:5012] == b"here"


@pytest.mark.parametrize(
    ("user", "parameters", "text"),
    [
        (2, asked(), "Unable to find shared memory region: 'ré'"),
        (1, asked("x"), "Unable to find shared memory region: 'x'"),
        (1, asked(["ré"]), "Unable to find shared memory region"),
        (1, asked(size=1001), "Invalid offset \\+ byte size for shared memory region: 'ré'"),
        (1, asked(offset=2**64), "Invalid offset \\+ byte size"),
        (1, asked(size=-1), "not a number of bytes"),
        (1, asked(offset=True), "not a number of bytes"),
        (1, asked(size="16"), "not a number of bytes"),
    ],
)
def test_a_part_that_is_not_there_is_refused(
    known: tuple[Regions, Path], user: int, parameters: dict[str, object], text: str
) -> None:
    with pytest.raises(BadRequestError, match=text):
        known[0].part(user, parameters, False)


def test_a_region_that_was_cut_short_is_not_touched(known: tuple[Regions, Path]) -> None:
    regions, path = known
    os.truncate(path, 5999)
    with pytest.raises(BadRequestError, match="made shorter by its client"):
        regions.part(1, asked(), False)


def test_what_may_only_be_read_takes_no_output(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(64))
    regions = Regions()
    regions.hear(News(1, "r", 0, 64, False), os.open(path, os.O_RDONLY))
    assert len(regions.part(1, asked("r"), False)) == 16
    with pytest.raises(BadRequestError, match="may only be read"):
        regions.part(1, asked("r"), True)


def test_regions_give_their_files_back(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(64))
    before = len(os.listdir("/proc/self/fd"))
    regions = Regions()
    for _ in range(50):
        regions.hear(News(1, "r", 0, 64, True), os.open(path, os.O_RDWR))
    regions.hear(News(1, "too long", 0, 1 << 62, True), os.open(path, os.O_RDWR))
    regions.hear(News(1, "r", gone=True), -1)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_the_user_at_the_other_end_is_found(
    family: socket.AddressFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
    address = hosts.get(family, str(tmp_path / "s"))
    with socket.socket(family) as listener:
        try:
            listener.bind(address)
        except OSError:
            pytest.skip("this machine has no IPv6 on loopback")
        listener.listen()
        with socket.socket(family) as client:
            client.connect(listener.getsockname())
            served, _ = listener.accept()
            with served:
                assert clients.user_of(served) == ME
                if family == socket.AF_UNIX:
                    return
                ends = client.getsockname()[:2], listener.getsockname()[:2]
                assert clients.tcp_user(*ends) == ME
                assert clients.tcp_user(ends[0], ("0.0.0.0", ends[1][1])) == ME
                monkeypatch.setattr(clients, "_asked", no_netlink)
                assert clients.tcp_user(*ends) == ME
                assert clients.tcp_user(ends[0], (ends[1][0], 1)) == NOBODY


def no_netlink(*_: object) -> int:
    raise PermissionError(1, "not allowed")


def test_whoever_is_not_at_the_other_end_is_nobody() -> None:
    assert clients.tcp_user(("127.0.0.1", 1), ("127.0.0.1", 2)) == NOBODY
    assert clients.tcp_user(("203.0.113.9", 80), ("203.0.113.9", 81)) == NOBODY
    assert clients.tcp_user(("no address", 80), ("127.0.0.1", 81)) == NOBODY


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_another_user_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        code = (
            "import encodings.idna, os, socket, sys; os.setuid(12345); "
            f"s = socket.create_connection(('127.0.0.1', {port})); sys.stdin.read()"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as other:
            served, _ = listener.accept()
            with served:
                assert clients.user_of(served) == 12345
            assert other.stdin is not None
            other.stdin.close()
