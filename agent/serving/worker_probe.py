"""Probes answered requests in batches, when nobody waits: sixteen cost little more than one.

Inputs are copied, unless they are large: those are probed where they lie, at once, and the front leaves that place
in the arena alone until their trace comes. To probe a picture takes longer than to answer it, where the model is small:
after each a rest is kept, in which only the answers of others are probed, so that probing takes a fiftieth of the time
at most. A camera is slower than that. Python 3.10 syntax: also runs under the worker's interpreter.

I/O: clock.
"""

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Optional

import numpy as np

from agent.serving import worker_wire
from shared import probes

Arrays = Mapping[str, np.ndarray]

MAX_KEPT = 16
_REST = 50  # times as long as probing a large input took
_JOINED_VALUES = 16 * 1024  # of one request; more are not copied, they are probed where they lie


class _Answered(NamedTuple):
    number: int
    inputs: Arrays
    results: Arrays
    small: bool


class Prober:
    """Requests whose features are still to be computed. Switched off, it tells only that they were answered."""

    def __init__(self, on: bool = True, along: Optional[probes.Projection] = None) -> None:
        self.on = on
        self.along = along  # of the release's embedding
        self._kept: list[_Answered] = []
        self._holding = False
        self._rests_until = 0.0  # from large inputs

    @property
    def empty(self) -> bool:
        return not self._kept

    @property
    def full(self) -> bool:
        """Whether to flush at once: many are kept, or one is not a copy."""
        return self._holding or len(self._kept) >= MAX_KEPT

    def add(self, number: int, inputs: Arrays, results: Arrays) -> bool:
        """A request that is answered; empty arrays when it failed. Whether its inputs are still looked at."""
        if not self.on:
            inputs = results = {}
        small = _size(inputs) <= _JOINED_VALUES
        if not small and self._rests:
            inputs, small = {}, True
        kept = {name: array.copy() for name, array in inputs.items()} if small else inputs
        self._kept.append(_Answered(number, kept, results, small))
        self._holding = self._holding or not small
        return not small

    def own(self, inputs: Arrays) -> Arrays:
        """Copies of what will be looked at, for inputs that are somebody else's after the answer."""
        if not self.on or (self._rests and _size(inputs) > _JOINED_VALUES):
            return {}
        return {name: probes.sparse(array).copy() for name, array in inputs.items()}

    @property
    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    def clear(self) -> None:
        self._kept = []
        self._holding = False

    def flush(self) -> Iterator[worker_wire.Trace]:
        """Number and packed features of each."""
        kept, large = self._kept, self._holding
        began = time.monotonic()
        self.clear()
        groups: dict[object, list[_Answered]] = {}
        for entry in kept:
            groups.setdefault(_likeness(entry), []).append(entry)
        for group in groups.values():
            yield from _probe_group(group, self.along)
        if large:
            ended = time.monotonic()
            self._rests_until = ended + _REST * (ended - began)


def _size(inputs: Arrays) -> int:
    size = 0
    for array in inputs.values():
        size += array.size
    return size


def _probe_group(group: list[_Answered], along: Optional[probes.Projection]) -> Iterator[worker_wire.Trace]:
    first = group[0]
    if len(group) == 1:
        names, values = _features(_thinned(first.inputs), _thinned(first.results), along)
        each = [values]
    else:
        names, values = _features(
            _joined([entry.inputs for entry in group]), _joined([entry.results for entry in group]), along
        )
        rows = len(next(iter((*first.inputs.values(), *first.results.values()))))
        split = values.reshape(len(names), len(group), rows)[:, :, :: _step(rows)]
        each = list(np.ascontiguousarray(split.transpose(1, 0, 2))) if names else [values] * len(group)
    head = worker_wire.pack_features_head(names, each[0].shape[1]) if names else b""
    for entry, own in zip(group, each, strict=False):
        yield worker_wire.Trace(entry.number, head + own.tobytes())


def _likeness(entry: _Answered) -> object:
    """Equal for requests of the same shapes that can be laid end to end; what is large stays alone."""
    arrays = [*entry.inputs.values(), *entry.results.values()]
    shapes = tuple([array.shape for array in arrays])
    joins = entry.small and bool(arrays) and all(shape[:1] == shapes[0][:1] != () for shape in shapes)
    return (tuple(entry.inputs), shapes) if joins else entry.number


def _features(inputs: Arrays, results: Arrays, along: Optional[probes.Projection]) -> tuple[list[str], np.ndarray]:
    """Names, and values as [name, row] float64."""
    nothing: tuple[list[str], np.ndarray] = ([], np.zeros((0, 0)))
    if not results:
        return nothing
    try:
        found = probes.probe(inputs, results, along)
        return (list(found), np.stack(list(found.values()))) if found else nothing
    except Exception:  # noqa: BLE001 - numbers about an answer are not worth the answers after it
        return nothing


def _joined(entries: list[Arrays]) -> Arrays:
    return {name: np.concatenate([entry[name] for entry in entries]) for name in entries[0]}


def _thinned(arrays: Arrays) -> Arrays:
    """At most MAX_ROWS rows of each, evenly spread."""
    step = _step(max((len(array) for array in arrays.values() if array.ndim), default=0))
    return {name: array if step == 1 or not array.ndim else array[::step] for name, array in arrays.items()}


def _step(rows: int) -> int:
    return -(-rows // worker_wire.MAX_ROWS) or 1
