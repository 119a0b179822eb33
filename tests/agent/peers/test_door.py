"""What another device of the site gets at the door, and what everybody else gets."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.errors import IdentityError
from agent.peers.client import PeerBusyError, PeerClient
from agent.peers.door import Door
from agent.peers.passport import Passport
from agent.settings import PeerSettings
from agent.update.reasons import SourceUnavailableError
from fleet.peers.authority import LIFE, Authority
from shared import chunking
from shared.identifiers import sha256
from shared.manifest import Chunk
from shared.peers import Peer, site_name
from tests.simulators import sharing_site

AUTHORITY = Authority(b"a" * 32)
DATA = bytes(range(256)) * 40
CHUNK = Chunk(id=sha256(DATA), size_bytes=len(DATA), plain_bytes=1)


def passport(
    folder: Path, device: str, site: str = "hall", *, authority: Authority = AUTHORITY, now: datetime | None = None
) -> Passport:
    made = Passport(folder / device, seed=device.encode().ljust(32, b"."))
    key, moment = bytes.fromhex(made.public_key), now or datetime.now(UTC)
    signed = authority.passport(device=device, site=site_name(site), key=key, now=moment)
    made.keep(signed, authority.certificate)
    return made


@dataclass
class Served:
    """A door, and what happened at it."""

    door: Door
    busy: str | None = None
    reads: int = 0

    @property
    def peer(self) -> Peer:
        host, port = self.door.address or ("", 0)
        return Peer(device="cam-1", address=host, port=port)


@asynccontextmanager
async def open_door(folder: Path, settings: PeerSettings | None = None) -> AsyncIterator[Served]:
    def chunk(name: str) -> bytes:
        served.reads += 1
        if name != CHUNK.id:
            raise chunking.DamagedChunkError("not here")
        return DATA

    async def hindered() -> str | None:
        return served.busy

    def manifest(digest: str) -> bytes | None:
        return b"{}" if digest == sha256(b"{}") else None

    door = Door(
        settings or sharing_site.settings(),
        passport(folder, "cam-1"),
        chunk=chunk,
        manifest=manifest,
        hindered=hindered,
    )
    served = Served(door)
    await door.open()
    try:
        yield served
    finally:
        await door.close()


async def counted(_received: int, *, of_chunk: bool) -> None:
    assert of_chunk in {True, False}


@asynccontextmanager
async def client(mine: Passport) -> AsyncIterator[PeerClient]:
    made = PeerClient(mine, arrived=counted)
    try:
        yield made
    finally:
        await made.close()


async def test_a_device_of_the_site_gets_chunks_and_manifests_and_is_told_what_is_not_here(tmp_path: Path) -> None:
    async with open_door(tmp_path) as served, client(passport(tmp_path, "cam-2")) as guest:
        assert await guest.chunk(served.peer, CHUNK) == DATA
        assert await guest.manifest(served.peer, sha256(b"{}")) == b"{}"
        with pytest.raises(SourceUnavailableError, match="404"):
            await guest.chunk(served.peer, Chunk(id="0" * 64, size_bytes=1, plain_bytes=1))
        with pytest.raises(SourceUnavailableError, match="more than 10 bytes"):
            await guest.chunk(served.peer, CHUNK.model_copy(update={"size_bytes": 10}))
    assert served.door.sent_bytes >= len(DATA)


@pytest.mark.parametrize("who", ["another site", "another fleet", "a time that is over", "no certificate"])
async def test_strangers_get_nothing(tmp_path: Path, who: str) -> None:
    long_ago = datetime.now(UTC) - LIFE - timedelta(days=1)
    async with open_door(tmp_path) as served, AsyncExitStack() as stack:
        match who:
            case "another site":
                mine = passport(tmp_path, "cam-2", "yard")
            case "another fleet":
                mine = passport(tmp_path, "cam-2", authority=Authority(b"b" * 32))
            case "a time that is over":
                mine = passport(tmp_path, "cam-2", now=long_ago)
            case _:
                mine = passport(tmp_path, "cam-2")
        context = mine.client()
        if who == "no certificate":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the guest does not care
        host, port = served.door.address or ("", 0)
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        stack.callback(writer.close)
        writer.write(f"GET /chunks/{CHUNK.id} HTTP/1.1\r\n\r\n".encode())
        async with asyncio.timeout(10):
            with suppress(ssl.SSLError, ConnectionError):
                assert await reader.read() == b""
    assert served.reads == 0


async def test_a_peer_that_is_not_who_it_should_be_is_not_asked(tmp_path: Path) -> None:
    async with open_door(tmp_path) as served, client(passport(tmp_path, "cam-2")) as guest:
        other = served.peer.model_copy(update={"device": "cam-3"})
        with pytest.raises(SourceUnavailableError, match="cam-3"):
            await guest.chunk(other, CHUNK)
        with pytest.raises(SourceUnavailableError, match="a moment ago"):
            await guest.chunk(other, CHUNK)
    assert served.reads == 0


async def test_a_busy_device_serves_nothing_and_says_so(tmp_path: Path) -> None:
    async with open_door(tmp_path) as served, client(passport(tmp_path, "cam-2")) as guest:
        served.busy = "85 C at GPU, limit 85 C"
        with pytest.raises(PeerBusyError):
            await guest.chunk(served.peer, CHUNK)
    assert served.reads == 0


async def test_more_connections_than_allowed_are_told_to_come_later(tmp_path: Path) -> None:
    mine = passport(tmp_path, "cam-2")
    async with open_door(tmp_path, sharing_site.settings(max_connections=1)) as served, AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(client(mine)) for _ in range(2)]
        assert await first.chunk(served.peer, CHUNK) == DATA  # and keeps its connection
        with pytest.raises(PeerBusyError):
            await second.chunk(served.peer, CHUNK)


async def test_what_is_served_keeps_to_its_rate(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    settings = sharing_site.settings(max_bytes_per_second=2 * len(DATA))
    async with open_door(tmp_path, settings) as served, client(passport(tmp_path, "cam-2")) as guest:
        began = loop.time()
        await asyncio.gather(*(guest.chunk(served.peer, CHUNK) for _ in range(3)))
        assert loop.time() - began >= 1.4


@pytest.mark.parametrize(
    "said",
    [
        b"GET /chunks/../../identity/keys.json HTTP/1.1\r\n\r\n",
        b"GET /chunks/" + b"A" * 64 + b" HTTP/1.1\r\n\r\n",
        b"POST /chunks/" + CHUNK.id.encode() + b" HTTP/1.1\r\n\r\n",
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
    ],
)
async def test_anything_else_ends_the_connection(tmp_path: Path, said: bytes) -> None:
    async with open_door(tmp_path) as served:
        host, port = served.door.address or ("", 0)
        context = passport(tmp_path, "cam-2").client()
        name = f"cam-1.{site_name('hall')}.peers.flotilla"
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
        writer.write(said)
        async with asyncio.timeout(10):
            try:
                answer = await reader.read()
            except ConnectionError:
                answer = b""
        writer.close()
        assert answer[:12] in {b"", b"HTTP/1.1 400"}
    assert served.reads == 0


async def test_a_newer_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    async with open_door(tmp_path) as served:
        before, renewed = served.door.address, passport(tmp_path, "cam-1")
        assert renewed.public_key == served.door._passport.public_key
        key = bytes.fromhex(renewed.public_key)
        fresh = AUTHORITY.passport(device="cam-1", site=site_name("yard"), key=key, now=datetime.now(UTC))
        served.door._passport.keep(fresh, AUTHORITY.certificate)
        await served.door.open()
        assert before is not None
        async with client(passport(tmp_path, "cam-2", "yard")) as guest:
            assert await guest.chunk(served.peer, CHUNK) == DATA


def test_a_passport_survives_a_restart_and_is_renewed_at_half_its_time(tmp_path: Path) -> None:
    first = Passport(tmp_path, seed=b"s" * 32)
    assert first.wanted
    assert first.domain is None
    key = bytes.fromhex(first.public_key)
    signed = AUTHORITY.passport(device="cam-1", site=site_name("hall"), key=key, now=datetime.now(UTC))
    first.keep(signed, AUTHORITY.certificate)
    again = Passport(tmp_path, seed=b"s" * 32)
    assert again.domain == f"{site_name('hall')}.peers.flotilla"
    assert not again.wanted
    assert Passport(tmp_path, seed=b"s" * 32, now=lambda: datetime.now(UTC) + LIFE * 0.6).wanted
    assert (tmp_path / "identity" / "peer.pem").stat().st_mode & 0o077 == 0
    assert Passport(tmp_path, seed=b"t" * 32).domain is None  # of another key


def test_a_certificate_for_another_key_or_none_at_all_is_not_kept(tmp_path: Path) -> None:
    mine = Passport(tmp_path, seed=b"s" * 32)
    other = AUTHORITY.passport(device="cam-1", site="s", key=b"\x01" * 32, now=datetime.now(UTC))
    for pem in (other, "no certificate"):
        with pytest.raises(IdentityError):
            mine.keep(pem, AUTHORITY.certificate)
    (tmp_path / "identity").mkdir(exist_ok=True)
    (tmp_path / "identity" / "peer.pem").write_text("damaged")
    assert Passport(tmp_path, seed=b"s" * 32).wanted


def test_the_same_pepper_makes_the_same_authority() -> None:
    assert Authority(b"a" * 32).certificate == AUTHORITY.certificate
    assert Authority(b"b" * 32).certificate != AUTHORITY.certificate


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "8.8.8.8", "224.0.0.1", "fleet.local"])
def test_a_device_serves_only_at_an_address_of_its_site(address: str) -> None:
    with pytest.raises(ValueError, match=r"local network|does not appear to be"):
        sharing_site.settings(address=address)
