"""Counts over bins in few bits (ADR 23): the total, the two outer bins, then how it splits, again and again.

    total - the one before | first and last bin | left half - its share | left quarter - its share | ...

Bins of a baseline hold about equal shares, so a half differs from its share by about the root of what is split: that
alone says how many bits a difference needs, and any other distribution costs a few bits more. Each number is a Golomb
code whose order the numbers before it decide: two steps of the same size, beyond them each twice the one before.

I/O: none.
"""

from collections.abc import Sequence
from typing import Final

from shared.compact_wire import unzigzag, zigzag

_LONGEST: Final = 72  # bits of one number
_RARE: Final = 7  # an outer bin holds about one value in 2^7 or fewer
_ENDS: Final = 2
_EVEN: Final = 2


class Writer:
    """Numbers, one after the other."""

    def __init__(self) -> None:
        self._bits: list[str] = []

    def number(self, value: int, order: int = 0) -> None:
        """A number from 0 up; near 2^`order` it is cheapest."""
        steps = min(value >> order, _EVEN)
        if steps < _EVEN:
            self._bits.append("0" * steps + f"{(value & (1 << order) - 1) | 1 << order:b}")
            return
        shown = f"{value - (_EVEN << order) + (1 << order):b}"
        self._bits.append("0" * (_EVEN + len(shown) - order - 1) + shown)

    def counts(self, counts: Sequence[int], before: int) -> int:
        """A column of counts; `before` is what its total is expected to be, and its total comes back."""
        total = sum(counts)
        self.number(zigzag(total - before))
        inner = counts
        if len(counts) > _ENDS:
            for end in (counts[0], counts[-1]):
                self.number(end, _rare(total))
            inner = counts[1:-1]
        self._split(inner, sum(inner))
        return total

    def _split(self, counts: Sequence[int], total: int) -> None:
        if len(counts) < 2 or total == 0:
            return
        half = len(counts) // 2
        left = sum(counts[:half])
        self.number(zigzag(left - total * half // len(counts)), _order(total))
        self._split(counts[:half], left)
        self._split(counts[half:], total - left)

    def bytes(self) -> bytes:
        """All of it, zeros at the end up to a whole byte."""
        bits = "".join(self._bits)
        size = -(-len(bits) // 8)
        return int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big") if size else b""


class Reader:
    """Inverse of `Writer`.

    Raises:
        ValueError: not of this form.
    """

    def __init__(self, data: bytes) -> None:
        self._bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
        self._place = 0

    def number(self, order: int = 0) -> int:
        """The next one."""
        first = self._bits.find("1", self._place, self._place + _LONGEST)
        zeros = first - self._place
        end = first + order + 1 + max(0, zeros - _EVEN)
        if first < 0 or end > len(self._bits):
            raise ValueError("cut off within a number")
        value = int(self._bits[first:end], 2) - (1 << order) + (min(zeros, _EVEN) << order)
        self._place = end
        return value

    def counts(self, size: int, before: int) -> tuple[list[int], int]:
        """A column of `size` counts, and its total."""
        total = before + unzigzag(self.number())
        if total < 0:
            raise ValueError("a total below zero")
        if size <= _ENDS:
            return self._split(size, total), total
        first, last = self.number(_rare(total)), self.number(_rare(total))
        return [first, *self._split(size - _ENDS, total - first - last), last], total

    def _split(self, size: int, total: int) -> list[int]:
        if total < 0:
            raise ValueError("a part that is more than the whole")
        if size < 2 or total == 0:
            return [total] if size == 1 else [0] * size
        half = size // 2
        left = total * half // size + unzigzag(self.number(_order(total)))
        if left < 0:
            raise ValueError("a count below zero")
        return self._split(half, left) + self._split(size - half, total - left)


def _order(total: int) -> int:
    return max(0, total.bit_length() // 2 - 1)


def _rare(total: int) -> int:
    return max(0, total.bit_length() - _RARE)
