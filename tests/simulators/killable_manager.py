"""A manager in a process of its own that is killed at a chosen instant, and started again; devices stay outside.

The parent writes `SECONDS` of virtual time; the child looks at its rollouts once, as the real driver does, writes a
line for each assignment that it publishes, then `done N`: how many things it did so far. With KILL_AT it ends by
SIGKILL after so many.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.rollouts import changing
from fleet.rollouts.states import Rollout
from fleet.store import tables
from tests.simulators.virtual_device import Order, VirtualDevice
from tests.simulators.virtual_manager import StoredManager, at


@dataclass
class KillableManager(StoredManager):
    """The parent's half: stores what devices say, and restarts the child as often as it dies."""

    kill_at: int = 0  # 0: never
    deaths: int = 0
    checkpoints: int = 0
    child: Any = None
    devices: Any = None

    async def open(
        self, rollouts: Sequence[tuple[Rollout, Mapping[str, int]]], devices: Sequence[VirtualDevice]
    ) -> None:
        await super().open(rollouts, devices)
        self.devices = {device.id: device for device in devices}
        await self._start(self.kill_at)

    async def enrol(self, device: VirtualDevice) -> None:
        await super().enrol(device)
        self.devices[device.id] = device

    async def change(self, rollout: str, decide: changing.Change, now: float) -> None:
        self.clock.seconds = now
        async with self.database.write() as tx:
            await changing.change(tx, rollout, decide, at(now))

    async def advance(self, now: float) -> None:
        self.clock.seconds = now
        while not await self._looked(now):
            self.deaths += 1
            await self.child.wait()
            await self._start(0)
            await self._remind()

    async def _looked(self, now: float) -> bool:
        """One look of the child; False when it died on the way."""
        self.child.stdin.write(f"{now!r}\n".encode())
        while line := await self.child.stdout.readline():
            word, *rest = line.decode().split(" ", 1)
            if word == "done":
                self.checkpoints = int(rest[0])
                return True
            self.told(word, Order(**json.loads(rest[0])))
        return False

    async def _remind(self) -> None:
        """A device says which assignment it knows when the manager is back, and is told the newer one."""
        async with self.database.read() as tx:
            rows = [await tx.get_one(tables.Device, name) for name in sorted(self.devices)]
        for row in rows:
            if row.assigned and row.assignment > self.devices[row.id].seen:
                said = json.loads(row.assigned)
                self.told(row.id, Order(**said))

    async def _start(self, kill_at: int) -> None:
        self.child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, self.url, str(kill_at),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def close(self) -> None:
        self.child.stdin.close()
        await self.child.wait()
        await super().close()


def _killing(at_count: int) -> tuple[list[int], Callable[[str], None]]:
    done = [0]

    def checkpoint(_name: str) -> None:
        done[0] += 1
        if done[0] == at_count:
            os.kill(os.getpid(), signal.SIGKILL)

    return done, checkpoint


async def _child(url: str, kill_at: int) -> None:
    def told(device: str, order: Order) -> None:
        print(device, json.dumps(vars(order)), flush=True)

    done, checkpoint = _killing(kill_at)
    manager = StoredManager(told, url, checkpoint=checkpoint)
    await manager.database.open()
    while line := await asyncio.to_thread(sys.stdin.readline):
        await manager.advance(float(line))
        print(f"done {done[0]}", flush=True)
    await manager.database.close()


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1], int(sys.argv[2])))
