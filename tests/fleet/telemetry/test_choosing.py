"""Baselines shown, pinned and learned anew, and what the driver makes of it."""

from datetime import timedelta

import pytest

from fleet.telemetry import choosing
from fleet.telemetry.choosing import BaselinePinnedError, BaselineSamplesError, BaselineUnknownError, Subject
from tests.fleet.telemetry.test_hours import feed
from tests.fleet.telemetry.world import World

FLEET = Subject("fleet", "digits", "1.0.0")
CAM = Subject("device:cam-1", "digits", "1.0.0")


async def relearn(world: World, subject: Subject, days: int = 7) -> None:
    world.clock.at += timedelta(seconds=1)
    async with world.database.write() as tx:
        settings = world.settings.drift_detection
        await choosing.relearn(tx, subject, settings, days=days, by="ana", now=world.clock.at)


async def pin(world: World, subject: Subject, *, pinned: bool) -> None:
    async with world.database.write() as tx:
        settings = world.settings.drift_detection
        await choosing.pin(tx, subject, settings, pinned=pinned, by="ana", now=world.clock.at)


async def shown(world: World, subject: Subject) -> dict[str, object]:
    async with world.database.read() as tx:
        return await choosing.show(tx, subject, world.settings.drift_detection)


async def test_what_is_there_now_becomes_ordinary(days: World) -> None:
    await feed(days, {"cam-1": 0.6}, 24)
    assert len(await days.alerts()) == 1
    assert (await shown(days, CAM))["source"] == "release"
    await relearn(days, CAM)
    await feed(days, {"cam-1": 0.6}, 6, looks=6)
    assert await days.alerts() == []
    found = await shown(days, CAM)
    assert (found["source"], found["learned_from"], found["chosen_by"]) == ("learned", "device:cam-1", "ana")
    row = await days.state("device:cam-1")
    assert row is not None
    assert abs(row.body["psi_corrected"]) < 0.05
    await feed(days, {"cam-1": 0.5}, 12)
    assert len(await days.alerts()) == 1  # what was ordinary once is drift now


async def test_a_choice_for_the_fleet_holds_for_its_devices(days: World) -> None:
    await days.device("cam-2")
    await feed(days, {"cam-1": 0.6, "cam-2": 0.6}, 24)
    await relearn(days, FLEET)
    assert (await shown(days, CAM))["learned_from"] == "fleet"
    await feed(days, {"cam-1": 0.6, "cam-2": 0.6}, 6, looks=6)
    assert await days.alerts() == []


async def test_pinned_is_pinned(days: World) -> None:
    await feed(days, {"cam-1": 0.5}, 72)
    await pin(days, CAM, pinned=True)
    found = await shown(days, CAM)
    assert found["pinned"] is True
    assert len(found["ordinary_days"]) == 3  # type: ignore[arg-type]
    with pytest.raises(BaselinePinnedError):
        await relearn(days, CAM)
    await feed(days, {"cam-1": 0.5}, 48)
    assert len((await shown(days, CAM))["ordinary_days"]) == 3  # type: ignore[arg-type]
    await pin(days, CAM, pinned=False)
    await relearn(days, CAM, days=1)
    assert (await shown(days, CAM))["source"] == "learned"


async def test_what_cannot_be_learned_is_said(days: World) -> None:
    with pytest.raises(BaselineSamplesError, match="0 samples in the last 7 days"):
        await relearn(days, CAM)
    with pytest.raises(BaselineUnknownError, match="no device in site:moon"):
        await relearn(days, Subject("site:moon", "digits", "1.0.0"))
    with pytest.raises(BaselineUnknownError, match="no baseline of digits@9"):
        await pin(days, Subject("fleet", "digits", "9"), pinned=True)
