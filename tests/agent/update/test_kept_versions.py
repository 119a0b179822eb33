"""Versions beyond the two slots: kept as many as wanted, brought back without download, given up when room is short."""

from pathlib import Path

import pytest

from agent.update.slot_disk import SlotDisk
from shared.messages import Phase
from tests.simulators.release_repository import Release, ReleaseRepository
from tests.simulators.updating_device import Device

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")


def releases(repository: ReleaseRepository, models: list[bytes]) -> list[Release]:
    return [
        repository.publish("digits", version, model, minimum_counter=0)
        for version, model in zip(VERSIONS, models, strict=True)
    ]


def kept(device: Device) -> list[Path]:
    return list(device.folder.glob("models/digits/kept/*"))


async def test_an_older_version_comes_back_without_a_byte(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    made = releases(repository, models)
    async with device.on():
        for release in made[:3]:
            assert (await device.install(release, keep_versions=3)).phase is Phase.COMMITTED
        assert [path.name for path in kept(device)] == [made[0].digest]
        repository.faults.status["/chunks/"] = 500
        end = await device.install(made[0], keep_versions=3)
        assert end.phase is Phase.COMMITTED
        assert end.fetched_bytes == end.total_bytes
        assert device.serves("1.0.0")
        assert [path.name for path in kept(device)] == [made[1].digest]
    async with device.on():
        assert device.serves("1.0.0")


@pytest.mark.parametrize(("keep", "beside"), [(None, 0), (4, 2)])
async def test_as_many_are_kept_as_the_manager_says(
    device: Device, repository: ReleaseRepository, models: list[bytes], keep: int | None, beside: int
) -> None:
    custom = {} if keep is None else {"keep_versions": keep}
    async with device.on():
        for release in releases(repository, models):
            await device.install(release, **custom)
        assert len(kept(device)) == beside


async def test_a_kept_version_that_is_damaged_is_fetched_anew(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    made = releases(repository, models)
    async with device.on():
        for release in made[:3]:
            await device.install(release, keep_versions=3)
        (folder,) = kept(device)
        (folder / "model.onnx").chmod(0o600)
        (folder / "model.onnx").write_bytes(b"something else")
        assert (await device.install(made[0], keep_versions=3)).phase is Phase.COMMITTED


async def test_power_that_goes_while_it_comes_back_costs_nothing(tmp_path: Path) -> None:
    disk = SlotDisk(tmp_path)
    assert not disk.take_out("digits", "a", "0" * 64)
    folder = tmp_path / "models" / "digits" / "kept" / ("0" * 64)
    folder.mkdir(parents=True)
    assert disk.keeps("digits", "0" * 64)
    assert not disk.take_out("digits", "a", "0" * 64)  # nothing in it
    assert not disk.keeps("digits", "0" * 64)


def test_kept_versions_give_way_when_room_is_short(tmp_path: Path) -> None:
    disk = SlotDisk(tmp_path)
    for number in range(3):
        folder = tmp_path / "models" / "digits" / "a"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(bytes(1000))
        disk.put_away("digits", "a", str(number) * 64, limit=2)
        assert not folder.exists()
    assert [disk.keeps("digits", str(number) * 64) for number in range(3)] == [False, True, True]
    assert disk.kept_bytes("digits") == 2000
    disk.make_room("digits", 1)
    assert disk.kept_bytes("digits") == 2000
    disk.make_room("digits", 10**18)
    assert disk.kept_bytes("digits") == 0
