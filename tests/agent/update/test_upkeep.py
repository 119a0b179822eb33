"""What serves when records, slots, loads and workers go wrong outside of any update."""

import shutil
from pathlib import Path

import pytest

from agent.serving.observations import WorkerDied
from agent.update import crash_loop
from agent.update.journal import Journal
from agent.update.lifecycle import Draft
from agent.update.slot_disk import SlotDisk
from shared.messages import Phase
from tests.simulators.release_repository import Release, ReleaseRepository
from tests.simulators.updating_device import Device


@pytest.fixture
def releases(repository: ReleaseRepository, models: list[bytes]) -> list[Release]:
    return [repository.publish("digits", f"1.{number}.0", models[number]) for number in range(3)]


async def installed(device: Device, *releases: Release) -> None:
    async with device.on():
        for release in releases:
            assert (await device.install(release)).phase is Phase.COMMITTED
    device.reports.clear()


def slots(device: Device) -> dict[str, tuple[str, str | None]]:
    return {slot.slot: (slot.state, slot.version) for slot in device.driver.slots()}


def reasons(reports: list[Draft]) -> list[tuple[Phase, str | None, str | None]]:
    return [(draft.phase, draft.version, draft.reason) for draft in reports]


def record_of(device: Device) -> Path:
    return device.folder / "models/digits/slots.json"


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    path.chmod(0o400)


def crash(device: Device, version: str, times: int) -> None:
    device.driver.observe([WorkerDied("digits", version, "SIGSEGV")] * times)


@pytest.mark.parametrize("content", [b"{", b"", None, b'{"model": "digits", "a": 7}'])
async def test_a_damaged_record_is_made_anew_from_the_slots(
    device: Device, releases: list[Release], content: bytes | None
) -> None:
    await installed(device, *releases[:2])
    if content is None:
        record_of(device).unlink()
    else:
        record_of(device).write_bytes(content)
    async with device.on():
        assert device.serves("1.1.0")
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("good", "1.1.0")}
        assert reasons(device.reports) == [(Phase.FAILED, "1.1.0", "E_SLOT_RECORD")]
        device.reports.clear()
        assert (await device.install(releases[2])).phase is Phase.COMMITTED
    async with device.on():
        assert device.serves("1.2.0")


async def test_a_record_made_anew_does_not_take_a_trial_for_good(device: Device, releases: list[Release]) -> None:
    async with device.on():
        await device.install(releases[0])
        await device.assign(releases[1])
        await device.until(lambda: "told:probation" in device.marks)
    record_of(device).write_text("{")
    device.reports.clear()
    async with device.on():
        assert reasons([device.reports.pop(0)]) == [(Phase.FAILED, "1.0.0", "E_SLOT_RECORD")]
        last = await device.end()
        assert (last.phase, last.version, last.reason) == (Phase.ROLLED_BACK, "1.1.0", "E_SLOT_RECORD")
        assert device.serves("1.0.0")
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("empty", None)}
        assert device.leftovers() == []


async def test_a_record_made_anew_does_not_go_below_the_floor(
    device: Device, repository: ReleaseRepository, releases: list[Release], models: list[bytes]
) -> None:
    strict = repository.publish("digits", "2.0.0", models[3], minimum_counter=4)
    await installed(device, releases[0], strict)
    record_of(device).write_text("{")
    damage(device.folder / "models/digits/b/model.onnx")
    async with device.on():
        assert device.serves(None)
        (standing,) = device.driver.standing()
        assert standing.trouble is not None
        assert (standing.trouble.safe_mode, standing.minimum_counter) == (True, 4)


async def test_with_both_slots_damaged_the_device_waits_in_safe_mode_and_takes_a_new_release(
    device: Device, releases: list[Release]
) -> None:
    await installed(device, *releases[:2])
    for slot in "ab":
        damage(device.folder / f"models/digits/{slot}/model.onnx")
    async with device.on():
        assert device.serves(None)
        assert "safe mode" in device.serving.reasons["digits"]
        assert "E_SLOT_DAMAGED" in device.serving.reasons["digits"]
        assert reasons(device.reports) == [(Phase.FAILED, None, "E_SAFE_MODE")]
        assert device.driver.troubles()["digits"].startswith("E_SAFE_MODE")
        device.reports.clear()
    async with device.on():  # it is still so after a start, and said again
        assert reasons(device.reports) == [(Phase.FAILED, None, "E_SAFE_MODE")]
        device.reports.clear()
        assert (await device.install(releases[2])).phase is Phase.COMMITTED
        assert device.serves("1.2.0")
        assert device.driver.troubles() == {}
        assert device.serving.reasons == {}


async def test_a_last_good_version_that_does_not_load_is_tried_again_while_the_other_one_serves(
    device: Device, releases: list[Release]
) -> None:
    await installed(device, *releases[:2])
    device.refuses = {"1.1.0"}
    async with device.on():
        assert device.serves("1.0.0")
        assert device.driver.troubles()["digits"].startswith("E_LOAD")
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("good", "1.1.0")}
        device.refuses.clear()
        await device.until(lambda: "mended" in device.marks)
        assert device.serves("1.1.0")
        assert set(device.serving.loaded) == {("digits", "1.1.0")}
        assert device.driver.troubles() == {}


async def test_versions_that_do_not_load_are_tried_again_from_safe_mode(
    device: Device, releases: list[Release]
) -> None:
    await installed(device, *releases[:2])
    device.refuses = {"1.0.0", "1.1.0"}
    async with device.on():
        assert device.serves(None)
        assert reasons(device.reports) == [(Phase.FAILED, "1.1.0", "E_SAFE_MODE")]
        device.reports.clear()
        await device.assign(releases[1])
        refused = await device.end()
        assert (refused.phase, refused.reason) == (Phase.REFUSED, "E_SAFE_MODE")
        device.refuses.clear()
        await device.until(lambda: "mended" in device.marks)
        assert device.serves("1.1.0")
        assert device.serving.reasons == {}


async def test_a_crash_loop_ends_in_the_other_good_version_once(device: Device, releases: list[Release]) -> None:
    await installed(device, *releases[:2])
    async with device.on():
        crash(device, "1.1.0", crash_loop.DEATHS - 1)
        assert device.serves("1.1.0")
        crash(device, "1.1.0", 1)
        await device.until(lambda: "back:recorded" in device.marks)
        await device.until(lambda: set(device.serving.loaded) == {("digits", "1.0.0")})
        assert device.serves("1.0.0")
        assert reasons(device.reports) == [(Phase.ROLLED_BACK, "1.1.0", "E_CRASH_LOOP")]
        assert device.reports[0].rollout == "ro-test"
        device.reports.clear()
        crash(device, "1.0.0", crash_loop.DEATHS)
        await device.until(lambda: bool(device.reports))
        assert reasons(device.reports) == [(Phase.FAILED, "1.0.0", "E_CRASH_LOOP")]
        assert device.serves("1.0.0")
        assert device.driver.troubles()["digits"].startswith("E_CRASH_LOOP")
        device.reports.clear()
        await device.assign(releases[1])
        assert (await device.end()).reason == "E_KNOWN_BAD"
    async with device.on():
        assert device.serves("1.0.0")


async def test_a_cut_after_a_crash_loop_was_judged_ends_in_the_other_version(
    device: Device, releases: list[Release]
) -> None:
    await installed(device, *releases[:2])
    journal = Journal(device.folder / "update.sqlite")
    manifest = SlotDisk(device.folder).read("digits").b.manifest
    journal.mark_bad(manifest or "", "E_CRASH_LOOP", "its worker died")  # as far as "fall-back:decided"
    journal.close()
    async with device.on():
        assert device.serves("1.0.0")
        assert SlotDisk(device.folder).read("digits").last_good == "a"


async def test_deaths_of_a_trial_are_probations_business(device: Device, releases: list[Release]) -> None:
    async with device.on():
        await device.install(releases[0])
        await device.assign(releases[1])
        await device.until(lambda: "told:probation" in device.marks)
        crash(device, "1.1.0", crash_loop.DEATHS)
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.ROLLED_BACK, "E_PROBATION_CRASH")
        assert device.serves("1.0.0")


async def test_slots_without_a_word_of_a_commit_do_not_serve(device: Device, releases: list[Release]) -> None:
    await installed(device, releases[0])
    shutil.copytree(device.folder / "models/digits", device.folder / "models/letters")
    (device.folder / "models/letters/slots.json").unlink()
    async with device.on():
        assert device.serving.routes == {"digits": "1.0.0"}
        assert [slot.state for slot in device.driver.slots() if slot.model == "letters"] == ["empty", "empty"]
