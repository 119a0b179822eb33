"""One line of the device table.

I/O: none.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fleet.dashboard import drawing, facts
from fleet.dashboard.conditions import KEY, Condition, active


@dataclass(frozen=True, slots=True)
class Chip:
    """One slot of a device as it is drawn. `tone` is can, serving, or nothing."""

    text: str
    tone: str
    title: str


@dataclass(frozen=True, slots=True)
class Meter:
    """A bar of 0 to 100 with its words; `tone` is ok, warn, crit or nothing."""

    width: int
    text: str
    tone: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the device table. None where the device reported nothing."""

    id: str
    under: str
    condition: Condition
    models: tuple[tuple[str, tuple[Chip, ...]], ...]
    latency: str | None
    spark: str
    tone: str
    cpu: Meter | None
    gpu: Meter | None
    temperature: str | None
    drift: Meter | None
    seen: str
    find: str
    psi: float | None


def row(device: facts.Device, how: Condition, window: facts.Window | None, found: facts.Fleet) -> Row:
    reported = window if how.state != "off" else None
    many = [one for one in found.windows.get(device.id, ()) if one.p95_ms is not None]
    new = {(rollout.model, rollout.version) for rollout in active(found.rollouts)}
    fresh_version = any(item in new for item in device.serving.items())
    drift = _worst_drift(device, found.drift)
    return Row(
        id=device.id,
        under=", ".join(filter(None, (device.name if device.name != device.id else "", device.site, device.hardware))),
        condition=how,
        models=_models(device, new),
        latency=drawing.milliseconds(reported.p95_ms) if reported else None,
        spark=drawing.spark([one.p95_ms for one in many[-28:] if one.p95_ms is not None]) if reported else "",
        tone="c" if fresh_version else {"crit": "x", "warn": "w"}.get(how.state, ""),
        cpu=_load(reported.cpu_ratio) if reported else None,
        gpu=_load(reported.gpu_ratio) if reported else None,
        temperature=_celsius(reported),
        drift=_drift_meter(drift, found.limits) if how.state != "off" else None,
        seen=drawing.seen((found.now - device.seen_at).total_seconds()) if device.seen_at else "never",
        find=_find(device, how),
        psi=drift.psi if drift else None,
    )


def _celsius(window: facts.Window | None) -> str | None:
    known = window is not None and window.temperature_celsius is not None
    return f"{window.temperature_celsius:.0f} °C" if known and window else None


def _load(ratio: float | None) -> Meter | None:
    if ratio is None:
        return None
    return Meter(round(min(1.0, ratio) * 100), drawing.percent(ratio), "warn" if ratio > 0.9 else "")


def _find(device: facts.Device, how: Condition) -> str:
    """What the filter above the table searches: plain words and `key:value`."""
    words = [device.id, device.name, device.site, device.hardware, how.word, f"state:{KEY[how.state]}"]
    words += [f"site:{device.site.replace(' ', '-')}", f"hardware:{device.hardware}"]
    words += [f"model:{model}@{version}" for model, version in device.serving.items()]
    words += [f"{key}:{value}" for key, value in device.labels.items()]
    return " ".join(words).lower()


def _models(device: facts.Device, new: set[tuple[str, str]]) -> tuple[tuple[str, tuple[Chip, ...]], ...]:
    """Each model on the device with its two slots, A first."""
    names = sorted({slot.model for slot in device.slots if slot.model} | set(device.serving))
    found = []
    for name in names:
        held = {slot.slot: slot for slot in device.slots if slot.model == name}
        chips = tuple(_chip(letter, held.get(letter), device.serving.get(name), new) for letter in ("a", "b"))
        found.append((name, chips))
    return tuple(found)


def _chip(letter: str, slot: facts.Slot | None, serving: str | None, new: set[tuple[str, str]]) -> Chip:
    if slot is None or not slot.version:
        return Chip(drawing.NONE, "", f"slot {letter.upper()}: empty")
    serves = slot.version == serving
    words = f"slot {letter.upper()}: {slot.version}, {slot.state}{', serving' if serves else ''}"
    tone = "can" if (slot.model, slot.version) in new else "serving" if serves else ""
    return Chip(slot.version, tone, words)


def _worst_drift(device: facts.Device, drift: Iterable[facts.Drift]) -> facts.Drift | None:
    mine = [one for one in drift if one.scope == f"device:{device.id}" and device.serving.get(one.model) == one.version]
    return max(mine, key=lambda one: (one.psi is not None, one.psi or 0.0), default=None)


def _drift_meter(drift: facts.Drift | None, limits: facts.Limits) -> Meter | None:
    if drift is None:
        return None
    if drift.psi is None or drift.state == "collecting":
        return Meter(0, "collecting", "", f"{drift.samples} samples of {drift.feature} so far")
    tone = {"drifted": "crit", "warning": "warn"}.get(drift.state, "ok")
    title = f"{drift.feature}: PSI {drift.psi:.2f}, limit {limits.psi:.2f}, {drift.samples} samples"
    return Meter(
        round(min(1.0, max(0.0, drift.psi) / (2 * limits.psi)) * 100), f"{max(0.0, drift.psi):.2f}", tone, title
    )
