"""Joining requests along their first axis, so that the model runs once for several of them.

Possible where the first axis of every input and output is free. Requests go together when all else about their
inputs is equal, up to a number of rows. Python 3.10 syntax: also runs under the worker's interpreter.

I/O: none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Group:
    """Requests that run together: their places in the list they came from, and the rows of each."""

    def __init__(self, members: list[int], inputs: list[Arrays]) -> None:
        self.members = members
        self.rows = [rows_of(entry) for entry in inputs]
        self._inputs = inputs

    def run(self, model: Callable[[Arrays], Arrays]) -> Optional[list[Arrays]]:
        """The results of each member. None when the joined run failed, or did not answer row for row."""
        joined = {name: np.concatenate([entry[name] for entry in self._inputs]) for name in self._inputs[0]}
        try:
            results = model(joined)
        except Exception:  # noqa: BLE001 - whoever is at fault is found by running each by itself
            return None
        if any(array.ndim == 0 or len(array) != sum(self.rows) for array in results.values()):
            return None
        if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in results.values()):
            return None  # one member's NaN may have spread
        ends = np.cumsum(self.rows).tolist()
        return [
            {name: array[end - rows : end] for name, array in results.items()}
            for rows, end in zip(self.rows, ends, strict=False)
        ]


class Batching:
    """How requests of one model are joined."""

    def __init__(self, most_rows: int, delay_seconds: float) -> None:
        self.most_rows = most_rows
        self.delay_seconds = delay_seconds

    def groups(self, asked: Sequence[Arrays]) -> Iterator[Group]:
        """Every request once, in groups of at most `most_rows` rows; larger ones by themselves."""
        open_groups: dict[object, tuple[list[int], int]] = {}
        closed: list[list[int]] = []
        for index, inputs in enumerate(asked):
            kind, rows = _kind(inputs), rows_of(inputs)
            members, filled = open_groups.get(kind, ([], 0))
            if members and (kind is None or filled + rows > self.most_rows):
                closed.append(members)
                members, filled = [], 0
            open_groups[kind] = ([*members, index], filled + rows)
        for members in [*closed, *[members for members, _ in open_groups.values()]]:
            yield Group(members, [asked[index] for index in members])


def of(job: Mapping[str, Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> Optional[Batching]:
    """What the job asks for, where the model allows it."""
    most = int(job.get("max_batch_rows", 1))
    if most <= 1 or not possible([spec.shape for spec in (*inputs, *outputs)]):
        return None
    return Batching(most, int(job.get("batch_delay_microseconds", 0)) / 1e6)


def possible(shapes: Sequence[Sequence[int]]) -> bool:
    """Whether the first axis of all of them is free."""
    return bool(shapes) and all(len(shape) > 0 and shape[0] == -1 for shape in shapes)


def rows_of(inputs: Arrays) -> int:
    first = next(iter(inputs.values()), None)
    return len(first) if first is not None and first.ndim else 1


def _kind(inputs: Arrays) -> object:
    """Equal for requests that may go together; None where a request's inputs do not even agree with each other."""
    if len({len(array) for array in inputs.values()}) != 1 or rows_of(inputs) == 0:
        return None
    return tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items()))
