"""Devices to waves: the same device lands in the same wave whenever it is asked, mixed by hardware class.

I/O: none.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from fleet.rollouts.errors import WavesError
from fleet.rollouts.states import Wave

MAX_WAVES: Final = 1000
_FORM: Final = re.compile(r"^\s*([0-9]{1,6})(?:\.([0-9]{1,3}))?\s*(%?)\s*$")


#: So many of each hardware class are in a canary, where they exist; never more than half of a class of several.
LEAST_OF_EACH: Final = 3


def first_of(members: int) -> int:
    """How many devices of a class of so many belong into the canary."""
    return min(LEAST_OF_EACH, max(1, members // 2))


def least(devices: Mapping[str, str]) -> int:
    """Size of the smallest canary that speaks for every hardware class. `devices`: id -> hardware class."""
    return sum(first_of(members) for members in Counter(devices.values()).values())


def order(seed: str, devices: Mapping[str, str], *, classes_first: bool = False) -> tuple[str, ...]:
    """All devices in the order of the rollout. `devices`: id -> hardware class.

    Pseudo-random by (seed, device), and stratified: any prefix holds about the same share of every class. With
    `classes_first`, `first_of` devices of each class come before the others.
    """
    classes: dict[str, list[str]] = {}
    for device in sorted(devices, key=lambda device: _rank(seed, device)):
        classes.setdefault(devices[device], []).append(device)
    placed = [
        (
            not (classes_first and position < first_of(len(members))),
            (position + 0.5) / len(members),
            _rank(seed, device),
            device,
        )
        for members in classes.values()
        for position, device in enumerate(members)
    ]
    return tuple(device for *_, device in sorted(placed))


def _rank(seed: str, device: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{device}".encode()).digest()


def late(seed: str, waves: Sequence[Wave], released: int, device: str) -> int:
    """Index of the wave for a device that joins while the waves up to `released` are out: one that is not, by its
    hash and their sizes; the last when all are. No wave grows once its gate let it go, but the last."""
    ahead = range(released + 1, len(waves))
    if not ahead:
        return len(waves) - 1
    place = int.from_bytes(_rank(seed, device)[:8]) % sum(waves[index].size for index in ahead)
    for index in ahead:
        place -= waves[index].size
        if place < 0:
            return index
    raise AssertionError


def canary(spec: Sequence[str], devices: int, *, least: int = 0) -> tuple[Wave, ...]:
    """Waves from cumulative targets such as `1`, `25%`, `100%`; those that would add no device are left out. A first
    target in percent reaches at least `least` devices, a count is taken as it is.

    Raises:
        WavesError: not growing, not to the end, or not of this form.
    """
    targets = [min(devices, _target(text, devices)) for text in _checked(spec)]
    for text, upto, before in zip(spec[1:], targets[1:], targets, strict=False):
        if upto < before:
            raise WavesError(f"wave {text!r} reaches fewer devices than the one before it")
    if "%" in spec[0]:
        targets = [max(upto, min(devices, least)) for upto in targets]
    reached, waves = 0, list[Wave]()
    for text, upto in zip(spec, targets, strict=True):
        if upto > reached:
            waves.append(Wave(name="", target=_words(text), size=upto - reached))
        reached = upto
    if reached < devices:
        raise WavesError(f"the waves reach {reached} of {devices} devices")
    return tuple(Wave(_name(index, waves), wave.target, wave.size) for index, wave in enumerate(waves))


def rolling(batch: int, devices: int) -> tuple[Wave, ...]:
    """Batches of at most `batch` devices.

    Raises:
        WavesError: not positive, or too many batches.
    """
    if batch < 1 or math.ceil(devices / batch) > MAX_WAVES:
        raise WavesError(f"a batch of {batch}", remedy=f"choose a batch size that makes 1 to {MAX_WAVES} batches")
    sizes = [min(batch, devices - start) for start in range(0, devices, batch)]
    return tuple(Wave(f"Batch {number}", _devices(size), size) for number, size in enumerate(sizes, start=1))


def assign(ordered: Sequence[str], waves: Sequence[Wave]) -> dict[str, int]:
    """Device -> index of its wave."""
    found: dict[str, int] = {}
    remaining = iter(ordered)
    for index, wave in enumerate(waves):
        for _ in range(wave.size):
            found[next(remaining)] = index
    return found


def _checked(spec: Sequence[str]) -> Sequence[str]:
    if not 1 <= len(spec) <= MAX_WAVES:
        raise WavesError(f"{len(spec)} waves; there must be 1 to {MAX_WAVES}")
    return spec


def _target(text: str, devices: int) -> int:
    found = _FORM.match(text)
    if not found or (found[2] and not found[3]):
        raise WavesError(f"{text[:40]!r} is neither a count nor a percentage")
    number = float(f"{found[1]}.{found[2] or 0}")
    if number <= 0 or (found[3] and number > 100):
        raise WavesError(f"{text[:40]!r} is outside what is possible")
    return math.ceil(round(devices * number / 100, 9)) if found[3] else int(number)


def _words(text: str) -> str:
    bare = text.strip().replace(" ", "")
    return f"{bare[:-1]} %" if bare.endswith("%") else _devices(int(bare))


def _devices(number: int) -> str:
    return f"{number} device" if number == 1 else f"{number} devices"


def _name(index: int, waves: Sequence[Wave]) -> str:
    if len(waves) == 1 or index == len(waves) - 1:
        return "Fleet"
    if index == 0:
        return "Canary"
    if waves[index].target == "50 %":
        return "Half"
    return "Early" if index == 1 else f"Wave {index + 1}"
