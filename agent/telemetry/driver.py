"""Shell of `window`: sorts observations into windows, cuts them, hands them to the outbox.

A window ends when its time is over, and at once when its release or phase changes: none mixes two.

I/O: disk, tasks.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from agent.errors import OutboxError
from agent.telemetry import host
from agent.telemetry.outbox import Kind
from agent.telemetry.window import Subject, Window
from shared.identifiers import sha256
from shared.sketches import Baseline, FeatureBaseline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    from agent.serving.observations import Observation
    from agent.telemetry.outbox import Outbox
    from shared.clock import Clock
    from shared.messages import SlotState

logger = logging.getLogger(__name__)

PROBATION = "probation"


class Telemetry:
    """Counts what the endpoint observes. All calls come from the event loop."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        state_dir: Path,
        boot: str,
        every: timedelta,
        slots: Callable[[], Iterable[SlotState]],
        serving: Callable[[], Mapping[str, str]],
        stored: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._outbox, self._state_dir, self._boot, self._every, self._clock = outbox, state_dir, boot, every, clock
        self._slots, self._serving, self._stored = slots, serving, stored
        self._open: dict[tuple[str, str], Window] = {}

    def observe(self, observations: Sequence[Observation]) -> None:
        """Count them. What is about a release that is in no slot any more is dropped."""
        subjects: dict[tuple[str, str], Window | None] = {}
        for observation in observations:
            key = observation.model, observation.version
            if key not in subjects:
                subjects[key] = self._window(*key)
            window = subjects[key]
            if window is not None:
                window.add(observation)

    def boundary(self) -> None:
        """A slot changed: end the windows whose release or phase is over. Call it at every change."""
        phases = {(slot.model, slot.version): _phase(slot) for slot in self._slots()}
        for key, window in list(self._open.items()):
            if phases.get(key) != window.subject.phase:
                self._finish(key)

    async def run(self) -> None:
        """End all windows every so often, until cancelled. A machine at rest is told of too."""
        while True:
            await asyncio.sleep(self._every.total_seconds())
            self.cut()

    def cut(self) -> None:
        """End every window now, and begin the next for what serves."""
        for key in list(self._open):
            self._finish(key)
        for model, version in self._serving().items():
            self._window(model, version)

    def _window(self, model: str, version: str) -> Window | None:
        """The open window of the release, or a new one if it is in a slot."""
        if (window := self._open.get((model, version))) is not None:
            return window
        slot = next((slot for slot in self._slots() if (slot.model, slot.version) == (model, version)), None)
        if slot is None:
            return None
        return self._begin(self._state_dir / "models" / model / slot.slot, model, version, _phase(slot))

    def _begin(self, folder: Path, model: str, version: str, phase: Literal["probation", "serving"]) -> Window | None:
        try:
            digest = sha256((folder / "manifest.json").read_bytes())
        except OSError as error:
            logger.warning("release not found, not measured release=%s@%s error=%s", model, version, error)
            return None
        window = Window(Subject(model, version, digest, phase), self._clock.now(), _features(folder, version))
        self._open[model, version] = window
        return window

    def _finish(self, key: tuple[str, str]) -> None:
        window = self._open.pop(key)
        if window.empty and self._serving().get(key[0]) != key[1]:
            return  # a stand-by that nobody asked says nothing
        metrics = host.measure(self._state_dir)
        end = self._clock.now()
        try:
            self._outbox.put(Kind.TELEMETRY, lambda stamp: window.close(stamp, boot=self._boot, end=end, host=metrics))
        except OutboxError as error:
            logger.warning("window lost release=%s@%s error=%s", *key, error)
        else:
            self._stored()


def _phase(slot: SlotState) -> Literal["probation", "serving"]:
    return "probation" if slot.state == PROBATION else "serving"


def _features(folder: Path, version: str) -> dict[str, FeatureBaseline]:
    try:
        baseline = Baseline.model_validate_json((folder / "baseline.json").read_bytes())
    except (OSError, ValidationError) as error:
        logger.warning("no usable baseline, features not counted version=%s error=%s", version, error)
        return {}
    return {feature.name: feature for feature in baseline.features}
