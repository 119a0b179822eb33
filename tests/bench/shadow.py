"""What clients notice of a candidate in the shadow: p50 and p99 with it and without it, in turn.

python -m tests.bench.shadow [--quick] [--json]

One endpoint serves a small model at 200 requests a second at fixed times, whether or not answers came. A candidate of
the same cost looks on for a while, then for as long nobody does, again and again; each time with it is compared with
the time without it just before, so that the machine's other doings are the same for both. Once with every request
sampled (share 1.0), once with one in ten; and once with a candidate a thousand times dearer, which would take every
processor if it were let.
"""

import tempfile
import time
from pathlib import Path
from typing import Final

from agent.serving.supervisor import ModelFile
from shared.messages import ShadowFigures
from shared.shadow import Terms, plus
from tests.bench import load, models
from tests.bench.device import Device
from tests.bench.document import Result, median, options, tell
from tests.bench.swap import Window, asking, during

WINDOW_SECONDS: Final = 2.0
SETTLE_SECONDS: Final = 0.5  # after the candidate came or went
GOAL: Final = 1.25  # p99 with it against without it; what a swap may cost (tests.bench.swap)
DEAR: Final = 60_000  # hidden units: 4.4 million weights


def main() -> int:
    asked = options(str(__doc__).splitlines()[0]).parse_args()
    rounds = 4 if asked.quick else 14
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-") as name:
        folder = Path(name)
        serves, same = models.digits(folder, "1", seed=1), models.digits(folder, "2", seed=2)
        dear = models.digits(folder, "3", hidden=DEAR, seed=3)
        results: list[Result] = []
        with Device(folder / "device") as device:
            device.load(serves)
            with asking(device.tcp, folder) as client:
                time.sleep(SETTLE_SECONDS)
                turns = [
                    Turns("every request", same, 1.0),
                    Turns("one request in ten", same, 0.1),
                    Turns("every request, a dear candidate", dear, 1.0),
                ]
                for _ in range(rounds):  # all kinds in turn: the machine changes with time
                    for each in turns:
                        each.once(device)
                seen = client.stop()
        for each in turns:
            results += each.results(seen)
        results.append(Result(f"failed requests of {len(seen.statuses)}", seen.failed, "", 0))
    return tell("shadow", results, as_json=asked.json)


class Turns:
    """Windows with a candidate, each with the one without it just before."""

    def __init__(self, what: str, candidate: ModelFile, share: float) -> None:
        self._what, self._candidate = what, candidate
        self._terms = Terms(share=share)
        self._pairs: list[tuple[Window, Window]] = []
        self._figures = ShadowFigures()

    def once(self, device: Device) -> None:
        without = _window("without")
        device.shadow(self._candidate, self._terms)
        time.sleep(SETTLE_SECONDS)
        self._pairs.append((without, _window("with")))
        self._figures = plus(self._figures, device.end_shadow())
        time.sleep(SETTLE_SECONDS)

    def results(self, seen: load.Load) -> list[Result]:
        rows = []
        for percent in (50, 99):
            without = [during(seen, pair[0], percent) * 1e3 for pair in self._pairs]
            with_it = [during(seen, pair[1], percent) * 1e3 for pair in self._pairs]
            ratios = [now / before for now, before in zip(with_it, without, strict=True)]
            spread = {"without": median(without), "with": median(with_it), "least": min(ratios), "most": max(ratios)}
            peers = {name: round(value, 3) for name, value in spread.items()}
            goal = GOAL if percent == 99 else None
            rows.append(Result(f"{self._what}: p{percent} with / without", median(ratios), "x", goal, peers))
        found = self._figures
        looked = found.requests + found.dropped + found.skipped
        peers: dict[str, float] = {"skipped": found.skipped, "dropped": found.dropped}
        share = 100 * found.requests / looked if looked else 0.0
        rows.append(Result(f"  compared, of {looked} sampled", share, "%", peer=peers))
        return rows


def _window(kind: str) -> Window:
    begin = time.monotonic()
    time.sleep(WINDOW_SECONDS)
    return Window(kind, begin, time.monotonic())


if __name__ == "__main__":
    raise SystemExit(main())
