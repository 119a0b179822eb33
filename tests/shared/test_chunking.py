import os

import pytest
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


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_is_found(place: int, bit: int) -> None:
    chunk = bytearray(sealed(b"weights" * 50))
    name = sha256(chunk)
    chunk[place % len(chunk)] ^= 1 << bit
    with pytest.raises(DamagedChunkError):
        chunking.check(bytes(chunk), name)
    with pytest.raises(WrongKeyError):
        opened(bytes(chunk), 350)


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
