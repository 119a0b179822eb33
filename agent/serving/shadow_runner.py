"""A candidate in the shadow, as the daemon sees it: its worker is kept alive like any other, its counts are kept here.

I/O: network.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.serving.channel import ChannelClosedError, pair
from agent.serving.engines import Engines, Setup
from agent.serving.forking import Forks
from agent.serving.gate import Gate
from agent.serving.loading import ModelFile
from agent.serving.observations import Observation, WorkerDied
from agent.serving.runner import Runner
from agent.settings import ServingSettings
from shared.messages import ShadowFigures
from shared.shadow import Terms, plus

#: The kernel ends a candidate like this when one request took too much of the processor.
_OUT_OF_TIME = "SIGPROF"


class ShadowRunner(Runner):
    """`figures` and `deaths` grow while it runs."""

    def __init__(
        self,
        file: ModelFile,
        settings: ServingSettings,
        terms: Terms,
        *,
        forks: Forks,
        gate: Gate,
        engines: Engines,
        changed: Callable[[], None],
    ) -> None:
        super().__init__(
            file,
            settings,
            forks=forks,
            gate=gate,
            engines=engines,
            build_seconds=None,
            observe=self._died,
            gentle=True,
        )
        self.figures = ShadowFigures()
        self.deaths: list[str] = []  # how its worker ended, each time: a signal, `exit 3`, `hang`
        self._terms = terms
        self._paused = False
        self._changed = changed

    def heard(self, counts: Mapping[str, Any]) -> None:
        """What the front counted since it told the last time."""
        self.figures = plus(self.figures, ShadowFigures.model_validate(counts))
        self._changed()

    async def pause(self, *, on: bool) -> None:
        """Sample nothing while the device has no time for it, or again. Repeating it is harmless."""
        if on != self._paused:
            self._paused = on
            with contextlib.suppress(ChannelClosedError):  # the next front is told
                await self._gate.order("pause-shadow", model=self.file.model, on=on)

    async def introduce(self) -> None:
        """Have the front lend it what was answered, once the worker is ready. Harmless to repeat.

        Raises:
            ChannelClosedError: front or worker died; whoever replaces it comes here again.
        """
        async with self._attaching:
            if self._retired or self._channel is None or self._attached == self._gate.generation:
                return
            fronts, workers = pair()
            with fronts, workers:
                await self._channel.send({"attach": True}, [workers.fileno(), self._gate.arena])
                await self._gate.order(
                    "shadow",
                    [fronts.fileno()],
                    model=self.file.model,
                    version=self.file.version,
                    share=self._terms.share,
                    hold_seconds=self._terms.hold_seconds,
                    paused=self._paused,
                )
            self._attached = self._gate.generation

    def _job(self, setup: Setup) -> dict[str, Any]:
        shadow = {
            "absolute": self._terms.absolute,
            "relative": self._terms.relative,
            "most_seconds": self._settings.request_timeout_seconds,
        }
        return super()._job(setup) | {"shadow": shadow, "gentle": True, "realtime": False, "wakeful": False}

    def _died(self, found: Sequence[Observation]) -> None:
        ends = [each.exit for each in found if isinstance(each, WorkerDied)]
        self.deaths += ["hang" if how == _OUT_OF_TIME else how for how in ends]
        self._changed()
