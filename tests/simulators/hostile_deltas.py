"""Small deltas of every method, and ways to damage them: bytes, the head, whole blocks, what is told about them.

    pair = pairs()[0]
    offer, description, chunks = sealed(pair)       as a manager would serve it
    broken(pair, seed)                              a Hostile: one damaged delta, the same for the same seed
    taken(hostile)                                  what a device makes of it, or the error that refuses it

A `resealed` one is what a publisher who lies, or errs, would sign: names and tags fit the damaged content, so that
the damage reaches the parser behind them.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import zstandard

from fleet.releases.delta import encoding, offering, snapping
from shared import chunking
from shared.delta import coding, layout
from shared.delta import offer as offers
from shared.delta.offer import Description, Offer
from shared.delta.rebuild import rebuild
from shared.identifiers import sha256
from shared.manifest import Artifact, Chunk
from tests.shared.test_delta import model, tensor

LEVELS: Final = ("bytes", "head", "block", "description", "sealed", "resealed")
_KEY: Final = b"k" * chunking.KEY_BYTES
_ODD: Final = (0, 1, -1, 2, 127, 255, 256, 65_535, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 40, 1 << 63, 1 << 64,
               -(1 << 31), 10**30, 0.5, 1e300, "", "x", None, True, [], [0], {}, [[[[]]]])  # fmt: skip
_SIDE: Final = 128  # rows and columns


@dataclass(frozen=True, slots=True)
class Pair:
    """An old file, a new one, and the stream between them."""

    old: bytes
    new: bytes
    stream: bytes


@dataclass(frozen=True, slots=True)
class Hostile:
    """What a device gets: an offer, the description's bytes, sealed chunks by name."""

    pair: Pair
    level: str
    offer: Offer
    description: bytes
    chunks: Mapping[str, bytes]


@cache
def pairs() -> tuple[Pair, ...]:
    """Every method and every part of a prediction is in one of them (a test looks)."""
    return tuple(_pairs())


def _pairs() -> Iterator[Pair]:
    chance = np.random.default_rng(7)
    base = (0.05 * chance.normal(size=(_SIDE, _SIDE))).astype(np.float32)
    noise = (1e-5 * chance.normal(size=base.shape)).astype(np.float32)
    rows = (1 + 0.01 * chance.normal(size=(_SIDE, 1))).astype(np.float32)
    other = chance.normal(size=base.shape).astype(np.float32)
    large = np.tile(base, (3, 2))
    loud = np.exp2(chance.integers(-8, 9, (len(large), 1)) + chance.integers(-4, 5, (1, len(large[0]))))
    thin = (chance.normal(size=(_SIDE, 3)) @ chance.normal(size=(3, _SIDE)) * 0.001).astype(np.float32)
    decayed = base.copy()
    for _ in range(30):
        decayed = (decayed * np.float32(1 - 3e-7)).astype(np.float32)
    whole = np.clip(np.rint(base * 500), -120, 120).astype(np.int8)
    wide = whole.astype(np.int64)
    half = (base.view(np.uint32) >> 16).astype(np.uint16)
    moved = base * rows + noise
    kept = np.where(np.abs(base) < 0.03, np.float32(0), base)
    yield _made([(1, base, moved), (1, kept, kept), (1, base[:4, :10], base[:4, :10] + noise[:4, :10])])
    yield _made([(1, base, base + thin + noise / 10), (1, noise, other)])
    yield _made([(1, base, base * rows.T + noise), (7, wide, np.where(noise > 2e-5, wide + 1, wide))])
    yield _made([(3, whole, np.clip(np.rint(whole * 0.9 + 3), -120, 120)), (2, whole + 120, (whole + 120) // 2)])
    yield _made([(1, base, np.where(noise > 0, np.float32(0), base)), (1, base + 1, np.where(base < 0, 0, base + 1))])
    yield _made([(1, base, kept), (16, half, half + (noise > 0)), (1, base, (base * 1.01 + noise) * 1)])
    yield _made([(1, base, decayed), (1, large, large + np.tile(noise, (3, 2)) * loud)])
    yield _made([(1, base, moved.astype(np.float16)), (6, wide, wide * 3 + (noise > 0))])
    old, new = (model([tensor("w", 1, each.shape, each.tobytes())]) for each in (base, moved))
    snap = snapping.snap(old, new, snapping.plan(old, new), 0.25)
    yield Pair(old, snap.data, encoding.encode(old, snap.data, grids=snap.grids).data)
    text = chance.bytes(3000)
    longer = text[:1000] + b"other" + text[900:]
    yield Pair(text, longer, encoding.encode(text, longer).data)


def _made(tensors: list[tuple[int, Any, Any]]) -> Pair:
    types = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 16: np.uint16}
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    for number, (kind, old, new) in enumerate(tensors):
        after = 10 if new.dtype == np.float16 else kind
        sides[0].append(tensor(f"t{number}", kind, old.shape, old.astype(types[kind]).tobytes()))
        fitting = new if after == 10 else new.astype(types[kind])
        sides[1].append(tensor(f"t{number}", after, new.shape, fitting.tobytes()))
    old, new = model(sides[0]), model(sides[1], b"2")
    return Pair(old, new, encoding.encode(old, new).data)


def head(stream: bytes) -> layout.Head:
    """Of an undamaged stream."""
    text = json.loads(coding.unpack_text(stream[12 : 12 + _length(stream, 8)], layout.MAX_HEAD_BYTES))
    place = iter((stream[:8], stream[8:12], stream[12 : 12 + _length(stream, 8)]))
    return layout.parse(lambda _: next(place), base_bytes=text["base_bytes"], result_bytes=text["result_bytes"])


def sealed(pair: Pair) -> Hostile:
    """Undamaged."""
    made = offering.sealed(pair.stream, pair.old, pair.new, content_key=_KEY)
    return Hostile(pair, "", made[0], made[1][made[0].description], made[1])


def broken(pair: Pair, seed: int) -> Hostile:
    """One damaged delta of `pair`."""
    chance = random.Random(seed)
    level = LEVELS[seed % len(LEVELS)]
    match level:
        case "bytes":
            return _signed(pair, level, mutated(pair.stream, chance))
        case "head":
            return _signed(pair, level, _other_head(pair.stream, chance))
        case "block":
            return _signed(pair, level, _other_blocks(pair.stream, chance))
        case _:
            return _described(pair, level, chance)


def _signed(pair: Pair, level: str, stream: bytes) -> Hostile:
    """As if a publisher had signed the damaged stream: only the parser and the digest of the file stand between."""
    made = sealed(Pair(pair.old, pair.new, stream))
    return Hostile(pair, level, made.offer, made.description, made.chunks)


def _described(pair: Pair, level: str, chance: random.Random) -> Hostile:
    good = sealed(pair)
    if level == "sealed":
        chunks = {name: mutated(data, chance) for name, data in good.chunks.items() if name != good.offer.description}
        return Hostile(pair, level, good.offer, good.description, chunks)
    if level == "description" and chance.random() < 0.5:
        return Hostile(pair, level, good.offer, mutated(good.description, chance), good.chunks)
    text = json.loads(good.description)
    for _ in range(chance.choice((1, 1, 2))):
        _other_value(text, chance)
    described = json.dumps(text).encode()
    if level == "description":
        return Hostile(pair, level, good.offer, described, good.chunks)
    named = good.offer.model_copy(update={"description": sha256(described), "description_bytes": len(described)})
    return Hostile(pair, level, named, described, good.chunks)


def taken(hostile: Hostile) -> bytes | None:
    """The file that a device comes to, digest compared; None where only the digest refuses it.

    Raises:
        RefusedError: before the end.
    """
    pair, offer = hostile.pair, hostile.offer
    wanted = Artifact(
        digest=sha256(pair.new),
        size_bytes=len(pair.new),
        chunks=(Chunk(id=sha256(b""), size_bytes=1, plain_bytes=1),),
    )
    found = Description.parse(hostile.description, offer, wanted)
    key, count = chunking.artifact_key(_KEY, offers.artifact(found.base)), len(found.stream.chunks)

    def pieces() -> Iterator[bytes]:
        for index, chunk in enumerate(found.stream.chunks):
            data = hostile.chunks.get(chunk.id, b"")
            chunking.check(data, chunk.id)
            yield chunking.unseal(data, key=key, artifact=offers.artifact(found.base), index=index, count=count,
                                  plain_bytes=chunk.plain_bytes)  # fmt: skip

    made = b"".join(rebuild(memoryview(pair.old), pieces(), result_bytes=found.result_bytes))
    return made if hashlib.sha256(made).hexdigest() == wanted.digest else None


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bits turned, bytes replaced, the end cut off, a beginning repeated."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(out)) if chance.random() < 0.5 else chance.randrange(min(len(out), 400))
        match chance.randrange(4):
            case 0:
                out[place] ^= 1 << chance.randrange(8)
            case 1:
                out[place : place + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(9))
            case 2:
                del out[place:]
            case _:
                out[place:place] = out[: chance.randrange(64)]
        out = out or bytearray(b"\0")
    return bytes(out)


def _length(stream: bytes, place: int) -> int:
    return int.from_bytes(stream[place : place + 4], "little")


def _framed(block: bytes) -> bytes:
    return len(block).to_bytes(4, "little") + block


def _other_head(stream: bytes, chance: random.Random) -> bytes:
    """A few numbers of the head are others; it is packed as it should be."""
    size = _length(stream, 8)
    text = json.loads(coding.unpack_text(stream[12 : 12 + size], layout.MAX_HEAD_BYTES))
    for _ in range(chance.choice((1, 1, 2, 4))):
        _other_value(text, chance)
    packed = coding.pack_bytes(json.dumps(text).encode(), level=3)
    return stream[:8] + _framed(packed) + stream[12 + size :]


def _other_value(text: Any, chance: random.Random) -> None:
    """One value somewhere in `text` becomes another one: near by, odd, of another type, missing, or there twice."""
    while True:
        names: list[Any] = list(text) if isinstance(text, dict) else list(range(len(text)))
        if not names:
            return
        name = chance.choice(names)
        if isinstance(text[name], dict | list) and text[name] and chance.random() < 0.95:
            text = text[name]
            continue
        break
    value, way = text[name], chance.randrange(5)
    if way == 0:
        del text[name]
    elif way == 1 and isinstance(text, list):
        text.insert(name, value)
    elif way == 2 or not isinstance(value, int):
        text[name] = chance.choice(_ODD)
    else:
        text[name] = value + chance.choice((-4096, -8, -2, -1, 1, 2, 8, 4096)) if way == 3 else chance.randrange(1100)


def _other_blocks(stream: bytes, chance: random.Random) -> bytes:
    """Blocks damaged inside, with a length that fits; or left out, swapped, repeated, or a bomb."""
    start = 12 + _length(stream, 8)
    place, blocks = start, []
    while place < len(stream):
        size = _length(stream, place)
        blocks.append(stream[place + 4 : place + 4 + size])
        place += 4 + size
    ways: tuple[Callable[[int], Any], ...] = (
        lambda n: blocks.__setitem__(n, mutated(blocks[n] or b"\0", chance)),
        lambda n: blocks.__setitem__(n, mutated(blocks[n] or b"\0", chance)),
        lambda n: blocks.pop(n),
        lambda n: blocks.insert(n, chance.choice(blocks)),
        lambda n: blocks.__setitem__(n, b""),
        lambda n: blocks.__setitem__(n, chance.choice(_bombs())),
        lambda n: blocks.append(b"\0" * chance.randrange(9)),
    )
    chance.choice(ways)(chance.randrange(len(blocks)))
    return stream[:start] + b"".join(map(_framed, blocks))


@cache
def _bombs() -> tuple[bytes, ...]:
    """Little that claims to be much."""
    zeros = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(3, window_log=27, source_size=0)
    ).compress(bytes(1 << 20))
    many = coding.pack_integers(np.ones(1 << 22, np.int32))
    return zeros, wide, b"\x01" + zeros, many, b"\x03" + many
