import contextlib
import os

import numpy as np
import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from shared import chunking
from shared.chunking import DamagedChunkError, WrongKeyError
from shared.identifiers import sha256

KEY = chunking.artifact_key(bytes(32), "model")


def sealed(plain: bytes, index: int = 0, count: int = 1) -> bytes:
    return chunking.seal(plain, key=KEY, artifact="model", index=index, count=count)


def opened(chunk: bytes, plain_bytes: int, index: int = 0, count: int = 1, artifact: str = "model") -> bytes:
    return chunking.unseal(chunk, key=KEY, artifact=artifact, index=index, count=count, plain_bytes=plain_bytes)


@given(
    size=st.integers(0, 10_000),
    target=st.integers(1, 3000),
    borders=st.lists(st.integers(0, 10_000), unique=True).map(sorted),
)
def test_pieces_cover_everything_once_and_none_is_too_long(size: int, target: int, borders: list[int]) -> None:
    pieces = list(chunking.cut(size, borders, target))
    assert [start for start, _ in pieces] == [0, *(end for _, end in pieces)][: len(pieces)]
    assert all(0 < end - start <= target for start, end in pieces)
    assert (pieces[-1][1] if pieces else 0) == size


def test_cuts_prefer_the_ends_of_tensors() -> None:
    assert list(chunking.cut(250, [90, 180], 100)) == [(0, 90), (90, 180), (180, 250)]
    assert list(chunking.cut(250, [10], 100)) == [(0, 100), (100, 200), (200, 250)]


@given(plain=st.binary(min_size=1, max_size=5000))
def test_what_was_sealed_opens_again(plain: bytes) -> None:
    chunk = sealed(plain, 3, 7)
    assert opened(chunk, len(plain), 3, 7) == plain
    assert len(chunk) <= len(plain) + chunking.OVERHEAD_BYTES


def test_compressible_content_shrinks_and_random_content_hardly_grows() -> None:
    assert len(sealed(bytes(100_000))) < 1000
    assert len(sealed(os.urandom(100_000))) <= 100_000 + 17


def floats(kind: str, count: int = 200_000) -> bytes:
    return np.random.default_rng(1).normal(0, 0.02, count).astype(kind).tobytes()


@pytest.mark.parametrize(("kind", "most"), [("<f4", 0.835), ("<f2", 0.87)])
@pytest.mark.parametrize("lead", [0, 3])
def test_weights_shrink_to_their_noise_and_their_exponents(kind: str, most: float, lead: int) -> None:
    plain = os.urandom(lead) + floats(kind)
    chunk = sealed(plain)
    assert len(chunk) < most * len(plain)
    assert opened(chunk, len(plain)) == plain


@pytest.mark.parametrize("width", [2, 4])
def test_planes_open_as_the_protocol_says(width: int) -> None:
    words = [0x3F80ABCD, 0xC0207FFF, 0x00010203] if width == 4 else [0x3C01, 0xC000, 0x8123]
    upper = [word >> 8 * (width - 2) for word in words]
    rotated = [(half << 1 | half >> 15) & 0xFFFF for half in upper]
    low = b"".join((word & 0xFFFF).to_bytes(2, "little") for word in words) if width == 4 else b""
    mid, top = bytes(half & 0xFF for half in rotated), bytes(half >> 8 for half in rotated)
    body = bytes((2, width, 1, 0)) + low + mid + b"<>" + zstandard.compress(top)
    chunk = AESGCM(KEY).encrypt(bytes(12), body, b"flotilla/chunk/1|model|0|1")
    plain = b"<" + b"".join(word.to_bytes(width, "little") for word in words) + b">"
    assert opened(chunk, len(plain)) == plain


def test_a_chunk_of_weights_that_holds_something_else_than_promised_is_found() -> None:
    plain = floats("<f4", 5000)
    for promised in (0, 1, 4096, len(plain) - 1, len(plain) + 1, len(plain) + 4, 2 * len(plain)):
        with pytest.raises(DamagedChunkError):
            opened(sealed(plain), promised)


@given(body=st.binary(max_size=60), promised=st.integers(0, 80))
def test_whatever_planes_somebody_seals_are_a_piece_of_that_length_or_damaged(body: bytes, promised: int) -> None:
    chunk = AESGCM(KEY).encrypt(bytes(12), b"\x02" + body, b"flotilla/chunk/1|model|0|1")
    with contextlib.suppress(DamagedChunkError):
        assert len(opened(chunk, promised)) == promised


def test_chunks_of_earlier_publishers_still_open() -> None:
    plain = floats("<f4", 5000)
    packed = b"\x01" + zstandard.ZstdCompressor(level=6).compress(plain)
    chunk = AESGCM(KEY).encrypt(bytes(12), packed, b"flotilla/chunk/1|model|0|1")
    assert opened(chunk, len(plain)) == plain


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found(place: int, bit: int) -> None:
    chunk = bytearray(sealed(b"weights" * 50))
    name = sha256(chunk)
    chunk[place % len(chunk)] ^= 1 << bit
    with pytest.raises(DamagedChunkError):
        chunking.check(bytes(chunk), name)
    with pytest.raises(WrongKeyError):
        opened(bytes(chunk), 350)


@given(pieces=st.lists(st.one_of(st.binary(min_size=1, max_size=5000), st.just(b"same" * 999)), min_size=1))
def test_an_opener_opens_one_chunk_after_the_other_in_the_same_memory(pieces: list[bytes]) -> None:
    opener = chunking.Opener(key=KEY, artifact="model", count=len(pieces))
    for index, plain in enumerate(pieces):
        chunk = sealed(plain, index, len(pieces))
        assert opener.open(memoryview(chunk), index=index, plain_bytes=len(plain)) == plain
        with pytest.raises(WrongKeyError):
            opener.open(chunk, index=index + 1, plain_bytes=len(plain))


@given(data=st.binary(max_size=40))
def test_bytes_that_nobody_sealed_do_not_open(data: bytes) -> None:
    with pytest.raises(WrongKeyError):
        opened(data, 5)


def test_a_chunk_opens_only_in_its_own_place() -> None:
    chunk = sealed(b"x" * 10, 1, 3)
    for index, count, artifact in ((0, 3, "model"), (1, 4, "model"), (1, 3, "golden")):
        with pytest.raises(WrongKeyError):
            opened(chunk, 10, index, count, artifact)


def test_a_length_other_than_promised_is_found() -> None:
    for promised in (9, 11, 0):
        with pytest.raises(DamagedChunkError):
            opened(sealed(b"x" * 10), promised)
        with pytest.raises(DamagedChunkError):
            opened(sealed(bytes(5000)), promised)


def test_a_bomb_is_not_unpacked_beyond_what_was_promised() -> None:
    bomb = sealed(bytes(50_000_000))
    assert len(bomb) < 20_000
    with pytest.raises(DamagedChunkError, match="holds 101 bytes"):
        opened(bomb, 100)


def test_artifacts_have_keys_of_their_own() -> None:
    assert chunking.artifact_key(bytes(32), "model") != chunking.artifact_key(bytes(32), "golden")
    assert chunking.artifact_key(bytes(32), "model") != chunking.artifact_key(b"\1" * 32, "model")
