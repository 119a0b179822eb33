"""A release out of a folder is installed as if it came by network, and refused for the same reasons."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.errors import InstallFailedError
from agent.update import installing, reasons
from agent.update.bundle import BundleFolder
from agent.update.journal import Journal
from agent.update.trust import Trust
from shared.bundle import BundleDeviceError, BundleError, BundleExpiredError, chunk_path
from shared.clock import SystemClock
from shared.errors import FlotillaError
from shared.messages import Phase
from shared.signing import NaClSigner
from tests.simulators.bundles import make_bundle
from tests.simulators.release_repository import ReleaseRepository
from tests.simulators.updating_device import SETTINGS, Device


@pytest.fixture
def cut_off(repository: ReleaseRepository) -> ReleaseRepository:
    """No request of the device is answered."""
    repository.faults.status = {"/": 503}
    return repository


def public(device: Device) -> bytes:
    return bytes(device.box.public_key)


async def install(device: Device, folder: Path) -> dict[str, object]:
    """The daemon's part, with good traffic as soon as the release serves."""
    work = asyncio.ensure_future(installing.install(device.driver, device.journal, device="cam-1", folder=folder))
    served: str | None = None
    while not work.done():
        await asyncio.sleep(0.02)
        version = device.serving.routes.get("digits")
        if version != served and version is not None:
            device.traffic(SETTINGS.probation_requests, correct=True)
            served = version
    return work.result()


def outcomes(document: dict[str, object]) -> list[str]:
    releases = document["releases"]
    assert isinstance(releases, list)
    return [one["outcome"] for one in releases]


async def test_two_releases_arrive_in_order_without_any_network(
    device: Device, cut_off: ReleaseRepository, models: list[bytes], tmp_path: Path
) -> None:
    releases = [cut_off.publish("digits", f"1.{n}.0", models[n]) for n in range(2)]
    folder = make_bundle(tmp_path / "usb", cut_off, releases, box_key=public(device))
    async with device.on():
        found = await install(device, folder)
        assert outcomes(found) == ["committed", "committed"]
        assert device.serves("1.1.0")
        installing.judge(found)
        again = await install(device, folder)
        assert outcomes(again) == ["seen-before", "seen-before"]
        total = sum(release.manifest.sealed_bytes for release in releases)
        assert device.driver.sources.received == {"bundle": total}
    assert [path for path in cut_off.requests if path.startswith(("/chunks", "/manifests", "/metadata"))] == []


async def test_without_the_daemon_it_is_prepared_and_the_next_start_installs_it(
    device: Device, cut_off: ReleaseRepository, models: list[bytes], tmp_path: Path
) -> None:
    release = cut_off.publish("digits", "1.0.0", models[0])
    folder = make_bundle(tmp_path / "usb", cut_off, [release], box_key=public(device))
    journal = Journal(device.folder / "update.sqlite")
    trust = Trust(
        journal,
        root=cut_off.root,
        device="cam-1",
        manager_url=cut_off.url,
        box_key=bytes(device.box),
        clock=SystemClock(),
    )
    found = await installing.prepare(device.folder, trust, journal, folder=folder)
    assert outcomes(found) == ["prepared"]
    with pytest.raises(reasons.UpdateBusyError):
        await installing.prepare(device.folder, trust, journal, folder=folder)
    journal.close()
    async with device.on():
        await device.until(lambda: device.serves("1.0.0"))
        device.traffic(SETTINGS.probation_requests, correct=True)
        assert (await device.end()).phase is Phase.COMMITTED


async def test_a_release_that_does_not_pass_its_self_test_is_told_as_failed(
    device: Device, cut_off: ReleaseRepository, models: list[bytes], tmp_path: Path
) -> None:
    release = cut_off.publish("digits", "1.0.0", models[0], hardware=("orin-*",))
    folder = make_bundle(tmp_path / "usb", cut_off, [release], box_key=public(device))
    async with device.on():
        found = await install(device, folder)
    assert outcomes(found) == ["refused"]
    with pytest.raises(InstallFailedError, match="E_HARDWARE"):
        installing.judge(found)


async def refused(device: Device, folder: Path) -> FlotillaError:
    async with device.on():
        with pytest.raises(FlotillaError) as caught:
            await install(device, folder)
        assert device.journal.seen == 0
        assert device.journal.update("current") is None
        assert device.driver.slots() == ()
    return caught.value


@pytest.mark.parametrize("victim", ["chunk", "manifest", "bundle.json", "bundle.sig", "metadata", "assignment"])
@pytest.mark.parametrize("how", ["missing", "flipped", "longer", "link"])
async def test_a_file_that_is_missing_or_damaged_is_named_and_nothing_changes(
    device: Device, cut_off: ReleaseRepository, models: list[bytes], tmp_path: Path, victim: str, how: str
) -> None:
    release = cut_off.publish("digits", "1.0.0", models[0])
    folder = make_bundle(tmp_path / "usb", cut_off, [release], box_key=public(device))
    path = {
        "chunk": folder / chunk_path(list(release.chunks)[-1]),
        "manifest": folder / "manifests" / release.digest,
        "metadata": folder / "metadata" / "timestamp.json",
        "assignment": next((folder / "assignments" / "cam-1").iterdir()),
    }.get(victim, folder / victim)
    data = path.read_bytes()
    path.unlink()
    if how == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif how != "missing":
        path.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:] if how == "flipped" else data + b"x" * 6_000_000)
    error = await refused(device, folder)
    if isinstance(error, BundleError):
        assert path.name in error.detail
    else:  # flipped bytes of a signed document: its signature, or what it says, is wrong
        assert how in {"flipped", "longer"}
        assert error.code in {"E_SIGNATURE", "E_TRUST", "E_BAD_INPUT"}


async def test_a_bundle_for_another_device_is_refused(
    device: Device, cut_off: ReleaseRepository, models: list[bytes], tmp_path: Path
) -> None:
    release = cut_off.publish("digits", "1.0.0", models[0])
    folder = make_bundle(tmp_path / "usb", cut_off, [release], box_key=public(device), device="cam-2")
    error = await refused(device, folder)
    assert isinstance(error, BundleDeviceError)
    assert "cam-2" in error.detail


async def test_an_expired_bundle_is_refused(
    device: Device, cut_off: ReleaseRepository, models: list[bytes], tmp_path: Path
) -> None:
    release = cut_off.publish("digits", "1.0.0", models[0])
    made = datetime.now(UTC) - timedelta(days=31)
    folder = make_bundle(tmp_path / "usb", cut_off, [release], box_key=public(device), made=made)
    assert isinstance(await refused(device, folder), BundleExpiredError)


async def test_a_bundle_of_last_week_outlives_its_timestamp(tmp_path: Path, models: list[bytes]) -> None:
    made = datetime.now(UTC) - timedelta(days=20)
    with ReleaseRepository(now=made) as repository:
        repository.faults.status = {"/": 503}
        device = Device(tmp_path / "state", repository)
        release = repository.publish("digits", "1.0.0", models[0])
        folder = make_bundle(tmp_path / "usb", repository, [release], box_key=public(device), made=made)
        async with device.on():
            assert outcomes(await install(device, folder)) == ["committed"]
            known = device.journal.verified_at
    assert known is not None
    assert known <= datetime.now(UTC) - timedelta(days=19)  # not moved ahead by a bundle that lives for long


async def test_a_description_that_the_director_did_not_sign_is_refused(
    device: Device, cut_off: ReleaseRepository, models: list[bytes], tmp_path: Path
) -> None:
    release = cut_off.publish("digits", "1.0.0", models[0])
    folder = make_bundle(
        tmp_path / "usb", cut_off, [release], box_key=public(device), days=3000, signer=NaClSigner.generate()
    )
    error = await refused(device, folder)
    assert isinstance(error, reasons.ForgedError)


async def test_what_people_signed_must_still_be_valid(tmp_path: Path, models: list[bytes]) -> None:
    made = datetime.now(UTC) - timedelta(days=366)
    with ReleaseRepository(now=made) as repository:
        device = Device(tmp_path / "state", repository)
        release = repository.publish("digits", "1.0.0", models[0])
        folder = make_bundle(tmp_path / "usb", repository, [release], box_key=public(device), made=made, days=1000)
        assert isinstance(await refused(device, folder), reasons.ExpiredError)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        BundleFolder(tmp_path)
