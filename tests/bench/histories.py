"""Ten thousand days of small fleets by chance, and the manager killed at everything that it does.

promises      the checks of `tests.simulators.rollout_histories` after every event; any that fails is a violation
same day      the same seed over memory and over the real driver with the real store: log and ends are compared
kills         the manager, a process of its own, gets SIGKILL after its n-th deed, for every n
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.bench.document import Result, options, tell
from tests.simulators.killable_manager import KillableManager
from tests.simulators.rollout_histories import History
from tests.simulators.virtual_manager import StoredManager, Tell

KILLED = (127, 242)


def main() -> int:
    parser = options(__doc__ or "")
    parser.add_argument("--seeds", type=int, help="days over memory")
    asked = parser.parse_args()
    days = asked.seeds or (500 if asked.quick else 10_000)
    results = [*_days(days), *_same(2 if asked.quick else 12), *_kills(asked.quick)]
    return tell("histories", results, as_json=asked.json)


def _days(number: int) -> Iterator[Result]:
    started = time.perf_counter()
    with ProcessPoolExecutor(max_workers=2) as pool:
        found = list(pool.map(_batch, range(0, number, 100), chunksize=1))
    wrong = [text for texts, _ in found for text in texts]
    for text in wrong[:20]:
        print(text, file=sys.stderr)
    yield Result("days of a fleet", len(found) * 100, "days")
    yield Result("looks of the engine in them", sum(steps for _, steps in found), "looks")
    yield Result("violated promises", len(wrong), "days", goal=0)
    yield Result("time", time.perf_counter() - started, "s")


def _batch(first: int) -> tuple[list[str], int]:
    wrong: list[str] = []
    steps = 0
    for seed in range(first, first + 100):
        history = History(seed)
        try:
            asyncio.run(history.play())
        except Exception as error:  # noqa: BLE001  # whatever breaks a day is told with its seed
            wrong.append(f"{seed}: {type(error).__name__}: {error}")
        steps += history.steps
    return wrong, steps


def _same(number: int) -> Iterator[Result]:
    differs = 0
    for seed in range(number):
        memory = asyncio.run(History(seed).play())
        stored = asyncio.run(History(seed, _stored).play())
        differs += (memory.log, memory.ends) != (stored.log, stored.ends)
    yield Result(f"of {number} days that differ over the real store", differs, "days", goal=0)


def _stored(told: Tell) -> StoredManager:
    return StoredManager(told, "sqlite+aiosqlite:///:memory:")


def _kills(quick: bool) -> Iterator[Result]:
    killed = differs = 0
    for seed in KILLED:
        undisturbed = asyncio.run(History(seed).play())
        for kill_at in range(1, 1000, 5 if quick else 1):
            history, deaths = _killed(seed, kill_at)
            if not deaths:
                break
            killed += 1
            # Of what is told at one instant, a manager that comes back may tell the rest in another order.
            differs += (sorted(history.log), history.ends) != (sorted(undisturbed.log), undisturbed.ends)
    yield Result("managers killed, one at each deed", killed, "kills")
    yield Result("of them with another ending", differs, "kills", goal=0)


def _killed(seed: int, kill_at: int) -> tuple[History, int]:
    with tempfile.TemporaryDirectory() as folder:
        made: list[KillableManager] = []

        def killable(told: Tell) -> KillableManager:
            url = f"sqlite+aiosqlite:///{Path(folder) / 'fleet.sqlite'}"
            made.append(KillableManager(told, url, kill_at=kill_at))
            return made[0]

        return asyncio.run(History(seed, killable).play()), made[0].deaths


if __name__ == "__main__":
    sys.exit(main())
