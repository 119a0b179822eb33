"""Days of small fleets by chance: whatever devices, networks and people do, the promises of a rollout hold.

`python -m tests.bench.histories` plays ten thousand of them, and kills the manager at every instant.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.simulators.killable_manager import KillableManager
from tests.simulators.rollout_histories import History
from tests.simulators.virtual_manager import StoredManager, Tell

SEEDS: Final = 500
#: Batches beside a canary in a window; both are taken back.
SHORT: Final = 242


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
async def test_every_promise_holds_at_every_step_of_every_day(first: int) -> None:
    for seed in range(first, first + 50):
        history = await History(seed).play()
        assert history.ends or not history.rollouts


@pytest.mark.parametrize("seed", [SHORT, 13])
async def test_the_same_seed_is_the_same_day_also_over_the_real_store(seed: int) -> None:
    in_memory = await History(seed).play()

    def stored(told: Tell) -> StoredManager:
        return StoredManager(told, "sqlite+aiosqlite:///:memory:")

    over_the_store = await History(seed, stored).play()
    assert over_the_store.log == in_memory.log
    assert over_the_store.ends == in_memory.ends


@pytest.mark.parametrize("kill_at", [2, 7])
async def test_a_manager_that_is_killed_ends_its_rollouts_as_if_undisturbed(tmp_path: Path, kill_at: int) -> None:
    undisturbed = await History(SHORT).play()
    made: list[KillableManager] = []

    def killable(told: Tell) -> KillableManager:
        made.append(KillableManager(told, f"sqlite+aiosqlite:///{tmp_path / 'fleet.sqlite'}", kill_at=kill_at))
        return made[0]

    killed = await History(SHORT, killable).play()
    assert made[0].deaths == 1
    assert killed.log == undisturbed.log
    assert killed.ends == undisturbed.ends
