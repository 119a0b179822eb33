"""Bit patterns as integers in the order of the values they stand for, and as values.

The difference of two such integers counts the representable numbers between two values: small for a small change,
whatever the sign and the exponent.

I/O: none.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.delta.split import Kind

Array = npt.NDArray[Any]

#: The signed integers that hold the bits of a kind.
BITS: Final[dict[Kind, npt.DTypeLike]] = {
    Kind.BYTES: np.int8, Kind.FP32: np.int32, Kind.FP16: np.int16, Kind.BF16: np.int16,
    Kind.INT8: np.int8, Kind.UINT8: np.int8, Kind.INT32: np.int32,
}  # fmt: skip
FLOATS: Final = frozenset({Kind.FP32, Kind.FP16, Kind.BF16})
_MANTISSA: Final = {Kind.FP32: 23, Kind.FP16: 10, Kind.BF16: 7}
_EXPONENT: Final = {Kind.FP32: 0xFF, Kind.FP16: 0x1F, Kind.BF16: 0xFF}


def bits(data: bytes | memoryview, kind: Kind) -> Array:
    """The elements in `data`, not copied."""
    return np.frombuffer(data, BITS[kind])


def ordered(pattern: Array, kind: Kind) -> Array:
    """Bit patterns of floats as integers that grow with the value; its own inverse. Integers stay as they are."""
    if kind not in FLOATS:
        return pattern
    if pattern.dtype == np.int32:
        mask: Array = (pattern >> 31) & np.int32(0x7FFF_FFFF)
    else:
        mask = (pattern >> 15) & np.int16(0x7FFF)
    found: Array = pattern ^ mask
    return found


def exponents(pattern: Array, kind: Kind) -> Array:
    """The exponent field of each float."""
    shift = _MANTISSA[kind]
    found: Array = (pattern >> shift) & pattern.dtype.type(_EXPONENT[kind])
    return found


def unlimited(pattern: Array, kind: Kind) -> Array:
    """Which of the floats are infinite or not numbers."""
    return np.equal(exponents(pattern, kind), _EXPONENT[kind])


def values(pattern: Array, kind: Kind) -> Array:
    """As float64, exactly."""
    match kind:
        case Kind.FP32:
            return pattern.view(np.float32).astype(np.float64)
        case Kind.FP16:
            return pattern.view(np.float16).astype(np.float64)
        case Kind.BF16:
            return (pattern.astype(np.int32) << 16).view(np.float32).astype(np.float64)
        case Kind.UINT8:
            return pattern.view(np.uint8).astype(np.float64)
        case _:
            return pattern.astype(np.float64)


def patterns(value: Array, kind: Kind) -> Array:
    """float64 values rounded to the nearest of the kind, ties to even: the same bits on every machine."""
    with np.errstate(all="ignore"):
        match kind:
            case Kind.FP32:
                return value.astype(np.float32).view(np.int32)
            case Kind.FP16:
                return value.astype(np.float16).view(np.int16)
            case Kind.BF16:
                wide = value.astype(np.float32).view(np.int32)
                return np.asarray((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16, np.int16)
            case Kind.UINT8:
                return _whole(value, 0, 255).astype(np.uint8).view(np.int8)
            case Kind.INT32:
                return _whole(value, -(2.0**31), 2.0**31 - 1).astype(np.int32)
            case _:
                return _whole(value, -128, 127).astype(np.int8)


def _whole(value: Array, least: float, most: float) -> Array:
    found: Array = np.clip(np.nan_to_num(np.rint(value)), least, most)
    return found
