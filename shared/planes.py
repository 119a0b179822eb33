"""Floats cut into what compresses and what does not: the exponents, and the rest as it lies.

    fp32   s eeeeeeee mmmmmmm | mmmmmmmmmmmmmmmm        fp16, bf16   the upper half alone
           upper half           low, as it is
      rotated by one:  eeeeeeee | mmmmmmms
                       top        mid, as it is

A trained network's mantissas and signs are noise, so a general coder only finds what `top` holds, and pays for the
rest (ADR 33). What is kept as it is: low, mid, then the bytes outside of whole floats.

I/O: none.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Bytes = bytes | bytearray | memoryview
_WIDTHS: Final = (4, 2)
_SAMPLE_BYTES: Final = 64 * 1024
_LEAST_BYTES: Final = 4096
_HALF, _BYTE, _WORD = np.dtype("<u2"), np.dtype("u1"), np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Form:
    """Where floats of `width` bytes lie in a piece: behind `lead` others, `count` of them."""

    width: int
    lead: int
    count: int

    @classmethod
    def of(cls, width: int, lead: int, size_bytes: int) -> Self:
        """Of a piece of `size_bytes`.

        Raises:
            ValueError: no such form.
        """
        if width not in _WIDTHS or not 0 <= lead < width or size_bytes < lead:
            raise ValueError(f"floats of {width} bytes behind {lead} in {size_bytes}")
        return cls(width, lead, (size_bytes - lead) // width)

    @property
    def end(self) -> int:
        """Behind the last float."""
        return self.lead + self.width * self.count


def guess(plain: Bytes) -> Form | None:
    """The form in which the exponents of a sample take the fewest bits; None for a short piece."""
    size = len(plain)
    if size < _LEAST_BYTES:
        return None
    start = max(0, (size - _SAMPLE_BYTES) // 2) // 4 * 4
    sample = np.frombuffer(plain, _BYTE, min(_SAMPLE_BYTES, size - start), start)
    forms = [Form.of(width, lead, size) for width in _WIDTHS for lead in range(width)]
    return min(forms, key=lambda form: _bits(sample, form))


def _bits(sample: NDArray[np.uint8], form: Form) -> float:
    """Estimated, of one byte of the piece."""
    of_sample = Form.of(form.width, form.lead, len(sample))
    counts = np.bincount(_rotated(_upper(sample, of_sample)) >> 8, minlength=256)
    share = counts[counts > 0] / of_sample.count
    return 8.0 - (8.0 + float(np.sum(share * np.log2(share)))) / form.width


def _upper(piece: NDArray[np.uint8], form: Form) -> NDArray[np.uint16]:
    halves = piece[form.lead : form.end].view(_HALF)
    return halves[1::2] if form.width == 4 else halves


def _rotated(upper: NDArray[np.uint16]) -> NDArray[np.uint16]:
    found: NDArray[np.uint16] = np.bitwise_or(upper << 1, upper >> 15)
    return found


def split(plain: Bytes, form: Form) -> tuple[bytes, bytes]:
    """What is kept as it is, and the exponents."""
    piece = np.frombuffer(plain, _BYTE)
    rotated = _rotated(_upper(piece, form))
    low = piece[form.lead : form.end].view(_HALF)[::2].tobytes() if form.width == 4 else b""
    outside = piece[: form.lead].tobytes() + piece[form.end :].tobytes()
    return low + rotated.astype(_BYTE).tobytes() + outside, (rotated >> 8).astype(_BYTE).tobytes()


class Joiner:
    """Puts pieces together again, in memory that is used again. For one thread."""

    def __init__(self) -> None:
        self._piece = np.empty(0, _BYTE)
        self._halves = np.empty((2, 0), _HALF)

    def join(self, kept: Bytes, top: Bytes, form: Form) -> memoryview:
        """The piece out of what `split` made. It is there until the next call.

        Raises:
            ValueError: the parts do not have the lengths that the form says.
        """
        size, low_bytes = len(kept) + len(top), (form.width - 2) * form.count
        if Form.of(form.width, form.lead, size) != form or len(top) != form.count:
            raise ValueError("planes of other lengths than their piece")
        parts = np.frombuffer(kept, _BYTE)
        outside = parts[low_bytes + form.count :]
        piece = self._room(size, -form.lead % form.width)
        piece[: form.lead], piece[form.end :] = outside[: form.lead], outside[form.lead :]
        floats = piece[form.lead : form.end]
        upper = self._upper(np.frombuffer(top, _BYTE), parts[low_bytes : low_bytes + form.count])
        if form.width == 4:
            words = floats.view(_WORD)
            words[:] = upper
            np.left_shift(words, 16, out=words)
            np.bitwise_or(words, parts[:low_bytes].view(_HALF), out=words)
        else:
            floats.view(_HALF)[:] = upper
        return piece.data

    def _room(self, size: int, pad: int) -> NDArray[np.uint8]:
        """For a piece behind `pad` bytes, so that its floats lie where processors like them."""
        if len(self._piece) < size + pad:
            self._piece = np.empty(size + _WIDTHS[0], _BYTE)
            self._halves = np.empty((2, size // 2), _HALF)
        return self._piece[pad : pad + size]

    def _upper(self, top: NDArray[np.uint8], mid: NDArray[np.uint8]) -> NDArray[np.uint16]:
        upper: NDArray[np.uint16] = self._halves[0, : len(top)]
        other: NDArray[np.uint16] = self._halves[1, : len(top)]
        upper[:] = top
        np.left_shift(upper, 8, out=upper)
        other[:] = mid
        np.bitwise_or(upper, other, out=upper)
        np.left_shift(upper, 15, out=other)
        np.right_shift(upper, 1, out=upper)
        np.bitwise_or(upper, other, out=upper)
        return upper
