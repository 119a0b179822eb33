"""Shell of `window`: sorts observations into windows, cuts them, hands them to the outbox.

A window ends when its time is over (`pace`), and at once when its release or phase changes: none mixes two.
A long one is kept in the outbox as a draft meanwhile, so that a power cut costs at most one short window.

I/O: disk, tasks.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import ValidationError

from agent.errors import OutboxError
from agent.serving.observations import Sample, WorkerDied
from agent.telemetry import host, host_mean
from agent.telemetry.outbox import Kind
from agent.telemetry.window import Subject, Window
from shared.identifiers import sha256
from shared.sketches import Baseline, FeatureBaseline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.serving.observations import Observation
    from agent.telemetry.outbox import Outbox
    from agent.telemetry.pace import Pace
    from agent.telemetry.window import Stamp
    from shared.clock import Clock
    from shared.messages import HostMetrics, SlotState, TelemetryWindow

logger = logging.getLogger(__name__)

PROBATION: Final = "probation"
#: Errors of requests that say nothing of the model or the machine.
_CLIENTS_FAULT: Final = "bad-request"

Key = tuple[str, str]  # model, version


@dataclass(slots=True)
class _Open:
    """A window that is being filled. Times are monotonic seconds."""

    window: Window
    since: float  # when this version was first measured in this phase
    aim: timedelta
    due: float
    kept: float  # when it was last written as a draft
    calm: bool = True
    looks: list[HostMetrics] = field(default_factory=list)  # at the machine


class Telemetry:
    """Counts what the endpoint observes. All calls come from the event loop."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        state_dir: Path,
        boot: str,
        pace: Pace,
        slots: Callable[[], Iterable[SlotState]],
        serving: Callable[[], Mapping[str, str]],
        stored: Callable[[], None],
        clock: Clock,
        measure: Callable[[Path], HostMetrics] = host.measure,
    ) -> None:
        self._outbox, self._state_dir, self._boot, self._pace, self._clock = outbox, state_dir, boot, pace, clock
        self._slots, self._serving, self._stored, self._measure = slots, serving, stored, measure
        self._open: dict[Key, _Open] = {}
        self._looked = float("-inf")

    def observe(self, observations: Sequence[Observation]) -> None:
        """Count them. What is about a release that is in no slot any more is dropped."""
        subjects: dict[Key, _Open | None] = {}
        for observation in observations:
            key = observation.model, observation.version
            if key not in subjects:
                subjects[key] = self._window(*key)
            found = subjects[key]
            if found is not None:
                found.window.add(observation)
                if found.calm and _trouble(observation):
                    found.calm = False
                    found.due = min(found.due, self._clock.monotonic() + self._pace.every.total_seconds())

    def boundary(self) -> None:
        """A slot changed: end the windows whose release or phase is over. Call it at every change."""
        phases = {(slot.model, slot.version): _phase(slot) for slot in self._slots()}
        for key, found in list(self._open.items()):
            if phases.get(key) != found.window.subject.phase:
                self._finish(key)

    async def run(self) -> None:
        """End windows when their time is over, until cancelled. A machine at rest is told of too."""
        every = self._pace.every.total_seconds()
        while True:
            next_due = min((found.due for found in self._open.values()), default=float("inf"))
            await asyncio.sleep(min(every, max(every / 20, next_due - self._clock.monotonic())))
            self._look()

    def cut(self) -> None:
        """End every window now, and begin the next for what serves."""
        self._turn(list(self._open))

    def _look(self) -> None:
        now, every = self._clock.monotonic(), self._pace.every.total_seconds()
        if now - self._looked >= every:
            self._look_at_host(now)
        self._turn([key for key, found in self._open.items() if found.due <= now])
        for key, found in self._open.items():
            if now - found.kept >= every and not found.window.empty:
                self._keep(key, found)

    def _look_at_host(self, now: float) -> None:
        """One look for all windows: its processor load is that since the look before."""
        self._looked, look = now, self._measure(self._state_dir)
        for found in self._open.values():
            found.looks.append(look)

    def _turn(self, keys: Sequence[Key]) -> None:
        ended = {key: self._finish(key) for key in keys}
        for key in self._serving().items():
            self._window(*key, before=ended.get(key))

    def _window(self, model: str, version: str, before: _Open | None = None) -> _Open | None:
        """The open window of the release, or a new one (after `before`) if it is in a slot."""
        if (found := self._open.get((model, version))) is not None:
            return found
        slot = next((slot for slot in self._slots() if (slot.model, slot.version) == (model, version)), None)
        if slot is None:
            return None
        return self._begin(self._state_dir / "models" / model / slot.slot, model, version, _phase(slot), before)

    def _begin(
        self, folder: Path, model: str, version: str, phase: Literal["probation", "serving"], before: _Open | None
    ) -> _Open | None:
        try:
            digest = sha256((folder / "manifest.json").read_bytes())
        except OSError as error:
            logger.warning("release not found, not measured release=%s@%s error=%s", model, version, error)
            return None
        start, now = self._clock.now(), self._clock.monotonic()
        window = Window(Subject(model, version, digest, phase), start, _features(folder, version))
        if before is None or before.window.subject != window.subject:
            since, aim = now, self._pace.every
        else:
            since, age = before.since, timedelta(seconds=now - before.since)
            aim = self._pace.aim(before.aim, age=age, calm=before.calm and phase != PROBATION)
        due = now + self._pace.length(start, aim).total_seconds()
        self._open[model, version] = found = _Open(window, since, aim, due, kept=now)
        return found

    def _finish(self, key: Key) -> _Open:
        found = self._open.pop(key)
        if found.window.empty and self._serving().get(key[0]) != key[1]:
            return found  # a stand-by that nobody asked says nothing
        try:
            self._outbox.put(Kind.TELEMETRY, self._closing(found), instead_of=_name(key))
        except OutboxError as error:
            logger.warning("window lost release=%s@%s error=%s", *key, error)
        else:
            self._stored()
        return found

    def _keep(self, key: Key, found: _Open) -> None:
        found.kept = self._clock.monotonic()
        try:
            self._outbox.keep(_name(key), self._closing(found))
        except OutboxError as error:
            logger.warning("window not kept release=%s@%s error=%s", *key, error)

    def _closing(self, found: _Open) -> Callable[[Stamp], TelemetryWindow]:
        looks, end = found.looks or [self._measure(self._state_dir)], self._clock.now()
        metrics = host_mean.mean(looks)
        return lambda stamp: found.window.close(stamp, boot=self._boot, end=end, host=metrics)


def _name(key: Key) -> str:
    return "@".join(key)


def _trouble(observation: Observation) -> bool:
    match observation:
        case Sample():
            return observation.error not in (None, _CLIENTS_FAULT)
        case WorkerDied():
            return True
        case _:
            return False


def _phase(slot: SlotState) -> Literal["probation", "serving"]:
    return "probation" if slot.state == PROBATION else "serving"


def _features(folder: Path, version: str) -> dict[str, FeatureBaseline]:
    try:
        baseline = Baseline.model_validate_json((folder / "baseline.json").read_bytes())
    except (OSError, ValidationError) as error:
        logger.warning("no usable baseline, features not counted version=%s error=%s", version, error)
        return {}
    return {feature.name: feature for feature in baseline.features}
