"""A manifest that asks for more than any release needs is refused before anything is done with it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from shared.chunking import CHUNK_BYTES, OVERHEAD_BYTES
from shared.errors import BadInputError
from shared.manifest import MAX_CHUNKS, MAX_MANIFEST_BYTES, MAX_NAMES, Manifest
from tests.simulators.release_repository import ReleaseRepository, tiny_model


@pytest.fixture(scope="module")
def good() -> bytes:
    return ReleaseRepository().publish("digits", "1.0.0", tiny_model()).data


def chunk_of(size: int, plain: int) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        found["artifacts"]["baseline"]["chunks"][0] |= {"size_bytes": size, "plain_bytes": plain}
        found["artifacts"]["baseline"]["size_bytes"] = plain

    return change


def many_chunks(found: Any) -> None:
    chunk = found["artifacts"]["baseline"]["chunks"][0] | {"plain_bytes": 1}
    found["artifacts"]["baseline"] |= {"chunks": [chunk] * (MAX_CHUNKS + 1), "size_bytes": MAX_CHUNKS + 1}


def many_names(found: Any) -> None:
    found["runtime"]["hardware"] = ["x"] * (MAX_NAMES + 1)


def test_the_largest_chunk_is_allowed(good: bytes) -> None:
    found = json.loads(good)
    chunk_of(CHUNK_BYTES + OVERHEAD_BYTES, CHUNK_BYTES)(found)
    assert Manifest.parse(json.dumps(found).encode()).artifacts["baseline"].size_bytes == CHUNK_BYTES


@pytest.mark.parametrize(
    "change",
    [
        chunk_of(10, CHUNK_BYTES + 1),
        chunk_of(10, 2**62),
        chunk_of(CHUNK_BYTES + OVERHEAD_BYTES + 1, 10),
        chunk_of(10, 0),
        chunk_of(-1, 10),
        many_chunks,
        many_names,
    ],
)
def test_sizes_and_counts_beyond_the_limits_are_refused(good: bytes, change: Callable[[Any], None]) -> None:
    found = json.loads(good)
    change(found)
    with pytest.raises(BadInputError):
        Manifest.parse(json.dumps(found).encode())


def test_a_manifest_that_is_too_long_or_too_deep_is_refused() -> None:
    for data in (b" " * (MAX_MANIFEST_BYTES + 1), b"[" * 100_000, b'{"type":' * 50_000):
        with pytest.raises(BadInputError):
            Manifest.parse(data)
