"""Probes answered requests in batches, when nobody waits: sixteen cost little more than one.

What is kept here still lies in the arena; the front leaves it alone until its trace comes. Python 3.10 syntax:
also runs under the worker's interpreter.

I/O: none.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from agent.serving import worker_wire
from shared import probes

Arrays = Mapping[str, np.ndarray]
Answered = tuple[int, Arrays, Arrays]

MAX_KEPT = 16
_MAX_VALUES = 256 * 1024  # beyond this, copying several together costs more than probing each


class Prober:
    """Requests whose features are still to be computed."""

    def __init__(self) -> None:
        self._kept: list[Answered] = []

    @property
    def empty(self) -> bool:
        return not self._kept

    @property
    def full(self) -> bool:
        return len(self._kept) >= MAX_KEPT

    def add(self, number: int, inputs: Arrays, results: Arrays) -> None:
        """A request that was answered; empty arrays when it failed."""
        self._kept.append((number, inputs, results))

    def clear(self) -> None:
        self._kept = []

    def flush(self) -> Iterator[tuple[int, bytes]]:
        """Number and packed features of each."""
        kept, self._kept = self._kept, []
        groups: dict[object, list[Answered]] = {}
        for entry in kept:
            groups.setdefault(_likeness(entry), []).append(entry)
        for group in groups.values():
            yield from _probe_group(group)


def _likeness(entry: Answered) -> object:
    """Equal for requests that can be laid end to end; what is large stays alone."""
    number, inputs, results = entry
    arrays = [*inputs.items(), *results.items()]
    lengths = {len(array) if array.ndim else -1 for _, array in arrays}
    if len(lengths) != 1 or -1 in lengths or sum(array.size for _, array in arrays) > _MAX_VALUES // MAX_KEPT:
        return number
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in arrays)


def _probe_group(group: list[Answered]) -> Iterator[tuple[int, bytes]]:
    if len(group) == 1:
        number, inputs, results = group[0]
        yield number, worker_wire.pack_features(_features(_thinned(inputs), _thinned(results)))
        return
    found = _features(_joined([entry[1] for entry in group]), _joined([entry[2] for entry in group]))
    at = 0
    for number, inputs, _ in group:
        rows = len(next(iter(inputs.values())))
        step = _step(rows)
        part = {name: np.ascontiguousarray(values[at : at + rows : step]) for name, values in found.items()}
        yield number, worker_wire.pack_features(part)
        at += rows


def _features(inputs: Arrays, results: Arrays) -> Arrays:
    if not results:
        return {}
    try:
        return probes.probe(inputs, results)
    except Exception:  # noqa: BLE001 - numbers about an answer are not worth the answers after it
        return {}


def _joined(entries: list[Arrays]) -> Arrays:
    return {name: np.concatenate([entry[name] for entry in entries]) for name in entries[0]}


def _thinned(arrays: Arrays) -> Arrays:
    """At most MAX_ROWS rows of each, evenly spread."""
    step = _step(max((len(array) for array in arrays.values() if array.ndim), default=0))
    return {name: array if step == 1 or not array.ndim else array[::step] for name, array in arrays.items()}


def _step(rows: int) -> int:
    return -(-rows // worker_wire.MAX_ROWS) or 1
