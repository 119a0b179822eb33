"""Deltas between files of every kind: what comes out is the new file, byte for byte, or a `DeltaError`."""

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from fleet.releases.delta import snapping
from fleet.releases.delta.encoding import Delta, encode
from shared.delta.errors import DeltaError
from shared.delta.rebuild import rebuild
from shared.delta.split import skeleton, split

DTYPES = {
    1: np.float32,
    10: np.float16,
    16: np.uint16,
    3: np.int8,
    2: np.uint8,
    6: np.int32,
    7: np.int64,
    11: np.float64,
}


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, body: bytes, *, wide: bool = False) -> bytes:
    """A length-delimited field; `wide` spells its length with more bytes than it needs, as some writers do."""
    length = varint(len(body))
    if wide:
        length = length[:-1] + bytes([length[-1] | 128, 0x80, 0x00])
    return varint(number << 3 | 2) + length + body


def tensor(name: str, dtype: int, shape: tuple[int, ...], data: bytes, *, wide: bool = False) -> bytes:
    """TensorProto; its fields in an unusual order where `wide`."""
    dims = b"".join(varint(8) + varint(size) for size in shape)
    parts = [dims, varint(16) + varint(dtype), field(8, name.encode()), field(9, data, wide=wide)]
    return b"".join(reversed(parts) if wide else parts)


def model(tensors: list[bytes], words: bytes = b"") -> bytes:
    graph = field(2, b"graph") + b"".join(field(5, each) for each in tensors)
    return varint(8) + varint(10) + field(2, b"maker" + words) + field(7, graph)


def rebuilt(old: bytes, delta: bytes, new: bytes, step: int = 1 << 20) -> bytes:
    pieces = (delta[start : start + step] for start in range(0, len(delta), step))
    return b"".join(rebuild(memoryview(old), pieces, result_bytes=len(new)))


def pair(seed: int) -> tuple[bytes, bytes]:
    """An old and a new file: tensors kept, changed, moved, dropped, added, renamed, of another type or shape."""
    draw = random.Random(seed)
    chance = np.random.default_rng(seed)
    sides: tuple[list[bytes], list[bytes]] = ([], [])
    for number in range(draw.randrange(6)):
        dtype = draw.choice(list(DTYPES))
        shape = draw.choice([(), (0,), (1,), (7,), (33, 5), (64, 64), (3, 1, 50), (1, 400), (300, 9)])
        name = draw.choice(["w", "w", f"t{number}", ""])
        how = draw.choice(["same", "noise", "rows", "prune", "drop", "bits", "half", "grow"])
        old = _numbers(chance, dtype, shape)
        new = _changed(chance, old, how)
        wide = draw.random() < 0.5
        sides[0].append(tensor(name, dtype, shape, old.tobytes(), wide=wide))
        kind = 10 if new.dtype == np.float16 else dtype
        if how != "drop":
            renamed = name + ("x" if how == "rows" else "")
            sides[1].append(tensor(renamed, kind, new.shape, new.tobytes(), wide=not wide))
    draw.shuffle(sides[1])
    return model(sides[0]), model(sides[1], b"2" * draw.randrange(3))


def _numbers(chance: np.random.Generator, dtype: int, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(DTYPES[dtype])
    if kind.kind == "f":
        found = np.array(chance.normal(size=shape) * 10.0 ** chance.integers(-8, 4)).astype(kind)
        if found.size > 8:
            found.reshape(-1)[:5] = [np.nan, np.inf, -np.inf, -0.0, np.finfo(kind).tiny / 2]
        return found
    return chance.integers(0, 2 ** (8 * kind.itemsize - 1) - 1, shape).astype(kind)


def _changed(chance: np.random.Generator, old: np.ndarray, how: str) -> np.ndarray:
    if how == "bits":
        return np.frombuffer(chance.bytes(old.nbytes), old.dtype).reshape(old.shape)
    if how == "half" and old.dtype == np.float32:
        with np.errstate(all="ignore"):
            return old.astype(np.float16)
    if how == "grow":
        return np.resize(old, (*old.shape, 2))
    if old.dtype.kind != "f":
        return old + (chance.random(old.shape) < 0.1).astype(old.dtype) if how == "noise" else old
    with np.errstate(all="ignore"):
        if how == "noise":
            return (old * (1 + 1e-4 * chance.normal(size=old.shape))).astype(old.dtype)
        if how == "rows" and old.ndim > 1:
            return (old * (1 + 0.1 * chance.normal(size=(len(old),) + (1,) * (old.ndim - 1)))).astype(old.dtype)
        if how == "prune":
            return np.where(chance.random(old.shape) < 0.5, old.dtype.type(0), old)
    return old


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_any_two_files_come_back_byte_for_byte(start: int) -> None:
    for seed in range(start, start + 20):
        old, new = pair(seed)
        delta = encode(old, new)
        assert rebuilt(old, delta.data, new) == new, seed
        assert sum(row.plain_bytes for row in delta.rows) == len(new)


@given(some.binary(max_size=3000), some.binary(max_size=3000))
@settings(max_examples=30, deadline=None)
def test_files_that_are_no_models_come_back_too(old: bytes, new: bytes) -> None:
    assert rebuilt(old, encode(old, new).data, new, step=7) == new


def test_all_that_is_not_tensor_is_skeleton() -> None:
    data = model([tensor("w", 1, (20, 2), b"\1" * 160), tensor("b", 1, (3,), b"\2" * 12)])
    (found,) = split(data)
    assert (found.name, found.rows, found.count) == ("w", 20, 40)
    assert len(skeleton(data, (found,))) == len(data) - 160


CHANCE = np.random.default_rng(5)
BASE = CHANCE.normal(size=(256, 96)).astype(np.float32) * 0.05
SCALE = (1 + 0.01 * CHANCE.normal(size=(256, 1))).astype(np.float32)
THIN = (CHANCE.normal(size=(256, 4)) @ CHANCE.normal(size=(4, 96)) * 0.001).astype(np.float32)
NOISE = (1e-5 * CHANCE.normal(size=BASE.shape)).astype(np.float32)
QUANTISED = np.clip(np.rint(BASE * 500), -127, 127).astype(np.int8)


@pytest.mark.parametrize(
    ("old", "new", "method", "part"),
    [
        (BASE, BASE, "same", 0.02),
        (BASE, BASE + NOISE, "residual", 0.6),
        (BASE, (BASE * SCALE), "residual: row scale", 0.1),
        (BASE, BASE + THIN, "residual: rank 4", 0.3),
        (BASE, np.where(np.abs(BASE) < 0.03, np.float32(0), BASE), "residual: pruned", 0.02),
        (BASE, np.where(NOISE > 0, np.float32(0), BASE), "residual: sparse", 0.06),
        (BASE, BASE.astype(np.float16), "residual: cast", 0.02),
        (QUANTISED, np.clip(QUANTISED + (NOISE > 2e-5), -127, 127).astype(np.int8), "residual", 0.1),
        (BASE, CHANCE.normal(size=BASE.shape).astype(np.float32), "full", 0.95),
    ],
)
def test_each_way_in_which_weights_change_has_its_method(
    old: np.ndarray, new: np.ndarray, method: str, part: float
) -> None:
    types = {np.dtype(np.float32): 1, np.dtype(np.float16): 10, np.dtype(np.int8): 3}
    files = [model([tensor("w", types[each.dtype], each.shape, each.tobytes())]) for each in (old, new)]
    delta = encode(*files)
    assert rebuilt(files[0], delta.data, files[1]) == files[1]
    assert delta.rows[0].method.startswith(method)
    assert len(delta.data) < part * new.nbytes + 200


def snapped(factor: float) -> tuple[bytes, bytes, Delta]:
    """Old, new on a grid, and the delta between them."""
    old, new = (model([tensor("w", 1, each.shape, each.tobytes())]) for each in (BASE, BASE * SCALE + NOISE))
    made = snapping.snap(old, new, snapping.plan(old, new), factor)
    return old, made.data, encode(old, made.data, grids=made.grids)


def test_a_snapped_file_comes_back_from_whole_steps_and_lies_near_the_trained_one() -> None:
    sizes = []
    for factor in (0.25, 0.0625):
        old, new, delta = snapped(factor)
        assert rebuilt(old, delta.data, new) == new
        assert delta.rows[0].method == "grid: row scale"
        (found,) = split(new)
        values = np.frombuffer(new[found.start : found.end], np.float32).reshape(BASE.shape)
        assert np.abs(values - (BASE * SCALE + NOISE)).max() < factor * 1.5e-5
        sizes.append(len(delta.data))
    assert sizes[0] < sizes[1] < 0.3 * BASE.nbytes


def test_a_grid_that_does_not_lead_to_the_file_is_not_used() -> None:
    old, new, delta = snapped(0.25)
    planned = snapping.plan(old, new)
    wrong = snapping.snap(old, new, planned, 0.3).grids
    moved = model([tensor("w", 1, BASE.shape, (BASE * SCALE + 2 * NOISE).tobytes())])
    again = encode(old, moved, grids=wrong)
    assert again.rows[0].method.startswith("residual")
    assert rebuilt(old, again.data, moved) == moved
    assert len(delta.data) < len(again.data)


def test_a_delta_for_another_file_or_with_more_behind_it_is_refused() -> None:
    old, new, delta = snapped(0.25)
    for base, data, size in (
        (old + b"0", delta.data, len(new)),
        (old, delta.data, len(new) + 1),
        (old, delta.data + b"0", len(new)),
    ):
        with pytest.raises(DeltaError):
            list(rebuild(memoryview(base), iter((data,)), result_bytes=size))


def test_the_reader_holds_no_more_than_a_few_tiles_whatever_the_size_of_the_file() -> None:
    old = np.random.default_rng(1).normal(size=(6 << 20,)).astype(np.float32)
    new = (old * np.float32(1.001)).astype(np.float32)
    files = [model([tensor("w", 1, each.shape, each.tobytes())]) for each in (old, new)]
    delta = encode(*files)
    tracemalloc.start()
    size = sum(len(piece) for piece in rebuild(memoryview(files[0]), iter((delta.data,)), result_bytes=len(files[1])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == len(files[1])
    assert peak < len(delta.data) + (64 << 20)
