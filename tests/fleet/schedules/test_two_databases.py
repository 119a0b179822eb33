"""What databases do differently: locks, JSON, times, and the migration to these tables."""

import asyncio
from datetime import timedelta

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import create_async_engine

from fleet.access.roles import system
from fleet.releases.folder_depot import FolderDepot
from fleet.rollouts import plan
from fleet.rollouts.errors import WithdrawnError
from fleet.schedules import aliases, making
from fleet.schedules.driver import ScheduleDriver
from fleet.schedules.sweep import Sweep
from fleet.store import schedules, tables
from tests.fleet.schedules.conftest import WINDOWS, Later


async def fleet(world: Later) -> None:
    for number in range(4):
        await world.device(f"cam-{number}", features=WINDOWS)
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        await world.release(version)


async def test_several_managers_make_one_rollout_of_a_moved_alias(either_world: Later, either: str) -> None:
    world = either_world
    await fleet(world)
    now = world.clock.now()
    async with world.database.write() as tx:
        moved = await aliases.move(tx, "digits", "stable", "2.0.0", world.settings, by="ana", now=now)
    await asyncio.gather(*(ScheduleDriver(world).advance() for _ in range(4)))
    async with world.database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(tables.Rollout)) == 1
        row = await schedules.get(tx, moved.schedule or "")
        assert row is not None
        assert row.state == "running"
        assert await making.version_of(tx, "digits", "stable") == "2.0.0"
    engine = create_async_engine(either)

    def difference(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), tables.Base.metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(difference) == []
    await engine.dispose()


async def test_a_release_is_retired_or_rolled_out_and_never_both(either_world: Later) -> None:
    world = either_world
    await fleet(world)
    world.depot = FolderDepot(world.settings.data_dir / "depot")
    world.clock.at += timedelta(days=60)
    now = world.clock.now()
    request = plan.Request(model="digits", version="2.0.0")

    async def start() -> bool:
        try:
            async with world.database.write() as tx:
                made = await plan.make(tx, request, world.settings, now)
                await asyncio.sleep(0.05)  # the other one is in the middle, too
                await plan.start(tx, made, by="ana", now=now)
        except WithdrawnError:
            return False
        return True

    started, _ = await asyncio.gather(start(), Sweep(world).sweep(system("cleanup")))
    async with world.database.read() as tx:
        assert (await tx.get_one(tables.Release, ("digits", "2.0.0"))).state == ("released" if started else "retired")
