"""Devices to waves: the same device lands in the same wave whenever it is asked, mixed by hardware class.

I/O: none.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from fleet.rollouts.errors import WavesError
from fleet.rollouts.states import Wave

MAX_WAVES: Final = 1000
_FORM: Final = re.compile(r"^\s*([0-9]{1,6})(?:\.([0-9]{1,3}))?\s*(%?)\s*$")


def order(seed: str, devices: Mapping[str, str]) -> tuple[str, ...]:
    """All devices in the order of the rollout. `devices`: id -> hardware class.

    Pseudo-random by (seed, device), and stratified: any prefix holds about the same share of every class.
    """
    classes: dict[str, list[str]] = {}
    for device in sorted(devices, key=lambda device: _rank(seed, device)):
        classes.setdefault(devices[device], []).append(device)
    placed = [
        ((position + 0.5) / len(members), _rank(seed, device), device)
        for members in classes.values()
        for position, device in enumerate(members)
    ]
    return tuple(device for _, _, device in sorted(placed))


def _rank(seed: str, device: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{device}".encode()).digest()


def canary(spec: Sequence[str], devices: int) -> tuple[Wave, ...]:
    """Waves from cumulative targets such as `1`, `25%`, `100%`; those that would add no device are left out.

    Raises:
        WavesError: not growing, not to the end, or not of this form.
    """
    reached, waves = 0, list[Wave]()
    for text in _checked(spec):
        upto = min(devices, _target(text, devices))
        if upto < reached:
            raise WavesError(f"wave {text!r} reaches fewer devices than the one before it")
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
