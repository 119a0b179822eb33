"""Updates on a device with accelerators, with little memory, or with a past to be compared with."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.settings import ServingSettings
from agent.telemetry.host import Machine
from agent.update.lifecycle import Draft
from agent.update.standing import Standing
from shared.manifest import HALF_PRECISION, Tolerance
from shared.messages import Phase
from tests.simulators import accelerators
from tests.simulators.accelerators import CPU, CUDA, TENSORRT
from tests.simulators.machine import Orin
from tests.simulators.release_repository import Release, ReleaseRepository
from tests.simulators.updating_device import Device, with_settings

ALL = (TENSORRT, CUDA, CPU)
GIB = 2**30
Publish = Callable[..., Release]


@pytest.fixture
def publish(repository: ReleaseRepository, models: list[bytes]) -> Publish:
    """The next release, for accelerators unless said otherwise."""
    numbers = iter(range(4))

    def publish(**changes: object) -> Release:
        number = next(numbers)
        return repository.publish("digits", f"1.{number}.0", models[number], **{"providers": ALL, **changes})

    return publish


def accelerated(device: Device, folder: Path, *, settings: dict[str, object] | None = None, **plan: object) -> None:
    """The device gets an interpreter with accelerators that behave by `plan`."""
    python = accelerators.interpreter(folder, **{"build_seconds": 0.1, **plan})
    device.serving_settings = ServingSettings.model_validate({"worker_python": python, **(settings or {})})


def standing(device: Device) -> Standing:
    (found,) = device.driver.standing()
    return found


def slot_of(device: Device, version: str) -> object:
    (found,) = [slot for slot in standing(device).slots.values() if slot.version == version]
    return found


def complete(device: Device) -> list[str]:
    return sorted(path.parent.name for path in device.folder.glob("engines/*/complete.json"))


def refused(draft: Draft) -> tuple[Phase, str | None]:
    return draft.phase, draft.reason


async def test_engines_are_there_before_the_version_serves_and_people_see_them_being_made(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    accelerated(device, tmp_path, build_seconds=1.0)
    async with device.on():
        await device.assign(publish())
        await device.until(lambda: any(draft.reason == "E_ENGINES" for draft in device.reports))
        (told,) = [draft for draft in device.reports if draft.reason == "E_ENGINES"]
        assert told.phase is Phase.STAGED
        assert told.detail == "engines are made for this GPU: 0 s of at most 1800 s"
        at_work = standing(device).update
        assert at_work is not None
        assert at_work.waiting is not None
        assert at_work.waiting.code == "E_ENGINES"
        assert complete(device) == []
        await device.until(lambda: device.serves("1.0.0"))
        assert len(complete(device)) == 1
        assert standing(device).update.waiting is None  # type: ignore[union-attr]
        device.traffic(10)
        assert (await device.end()).phase is Phase.COMMITTED
        held = standing(device).slots["a"]
        assert (held.provider, held.stand_in) == (TENSORRT, None)
        assert held.peak_bytes
        assert held.latency_ms
        file = device.serving.loaded["digits", "1.0.0"]
        assert (file.provider, file.digest[:16]) == (TENSORRT, complete(device)[0][:16])


async def test_engines_go_when_no_slot_holds_their_model(device: Device, publish: Publish, tmp_path: Path) -> None:
    accelerated(device, tmp_path)
    releases = [publish() for _ in range(3)]
    async with device.on():
        for release in releases:
            assert (await device.install(release)).phase is Phase.COMMITTED
        digests = [release.manifest.artifacts["model"].digest[:16] for release in releases]
        assert {name[:16] for name in complete(device)} == set(digests[1:])


async def test_engines_that_take_too_long_fail_the_update_and_not_for_ever(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    device.settings = with_settings(engine_build_timeout_seconds=3.0)
    accelerated(device, tmp_path, build_seconds=30)
    release = publish()
    async with device.on():
        failed = await device.install(release)
        assert refused(failed) == (Phase.FAILED, "E_ENGINE_TIMEOUT")
        assert failed.detail == "engines were not made within 3 s"
        assert accelerators.engines(device.folder) == {}
        accelerated(device, tmp_path, build_seconds=0)
        assert (await device.install(release)).phase is Phase.COMMITTED


async def test_a_provider_that_keeps_no_engine_does_not_come_to_serve(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    accelerated(device, tmp_path, keeps=False)
    async with device.on():
        failed = await device.install(publish())
        assert refused(failed) == (Phase.FAILED, "E_ENGINES")
        assert "is the disk full?" in (failed.detail or "")


async def test_making_engines_is_not_under_the_limit_of_a_self_test(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    device.settings = with_settings(self_test_timeout_seconds=4.0)
    accelerated(device, tmp_path, build_seconds=4.5)
    async with device.on():
        assert (await device.install(publish())).phase is Phase.COMMITTED


async def test_an_agent_that_ends_while_engines_are_made_makes_them_again(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    accelerated(device, tmp_path, build_seconds=30)
    async with device.on():
        await device.assign(publish())
        async with asyncio.timeout(20):
            while not accelerators.engines(device.folder):  # noqa: ASYNC110 - files give no event
                await asyncio.sleep(0.02)
    left = accelerators.engines(device.folder)
    accelerated(device, tmp_path, build_seconds=0)
    async with device.on():
        await device.until(lambda: device.serves("1.0.0"))
        device.traffic(10)
        assert (await device.end()).phase is Phase.COMMITTED
    assert list(accelerators.engines(device.folder)) == list(left)
    assert accelerators.engines(device.folder) != left


@pytest.mark.parametrize(("fallback", "phase", "reason"), [(False, Phase.FAILED, "E_PROVIDER"), (True, "", None)])
async def test_the_cpu_stands_in_only_where_it_may_and_everybody_sees_it(
    device: Device, publish: Publish, tmp_path: Path, fallback: bool, phase: Phase | str, reason: str | None
) -> None:
    accelerated(device, tmp_path, settings={"cpu_fallback": fallback}, broken={CUDA: "no driver"})
    release = publish(providers=(CUDA,))
    async with device.on():
        found = await device.install(release)
        assert refused(found) == (phase or Phase.COMMITTED, reason)
        if fallback:
            assert standing(device).slots["a"].provider == CPU
            trouble = standing(device).trouble
            assert trouble is not None
            assert (trouble.code, trouble.safe_mode) == ("E_CPU_FALLBACK", False)
            assert device.driver.troubles()["digits"].startswith("E_CPU_FALLBACK: runs on the CPU: CUDAExecution")
        else:
            assert device.driver.troubles() == {}


async def test_a_device_without_the_accelerator_refuses_unless_the_cpu_may_stand_in(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    accelerated(device, tmp_path, missing=[TENSORRT, CUDA])
    release = publish(providers=(TENSORRT, CUDA))
    async with device.on():
        assert refused(await device.install(release)) == (Phase.REFUSED, "E_RUNTIME")
    accelerated(device, tmp_path, settings={"cpu_fallback": True}, missing=[TENSORRT, CUDA])
    async with device.on():
        assert (await device.install(release)).phase is Phase.COMMITTED
        assert "no accelerator that the release names is installed" in device.driver.troubles()["digits"]


@pytest.mark.parametrize(
    ("tolerance", "fp16", "error", "phase"),
    [
        ({HALF_PRECISION: Tolerance(absolute=0.01)}, "auto", 0.004, Phase.COMMITTED),
        ({HALF_PRECISION: Tolerance(absolute=0.001)}, "auto", 0.004, Phase.FAILED),
        ({HALF_PRECISION: Tolerance(absolute=0.001)}, "off", 0.004, Phase.COMMITTED),
        ({TENSORRT: Tolerance(absolute=0.01)}, "auto", 0.004, Phase.COMMITTED),
    ],
)
async def test_sixteen_bits_are_used_where_release_and_operator_allow_them(
    device: Device,
    publish: Publish,
    tmp_path: Path,
    tolerance: dict[str, Tolerance],
    fp16: str,
    error: float,
    phase: Phase,
) -> None:
    accelerated(device, tmp_path, settings={"fp16": fp16}, fp16_error=error)
    release = publish(tolerance={"default": Tolerance(), **tolerance})
    async with device.on():
        assert (await device.install(release)).phase is phase
        names = list(accelerators.engines(device.folder))
        expected = "_fp16.engine" if HALF_PRECISION in tolerance and fp16 == "auto" else ".engine"
        assert all(name.endswith(expected) for name in names)


async def test_a_version_much_slower_than_the_one_that_serves_fails(
    device: Device, publish: Publish, tmp_path: Path
) -> None:
    accelerated(device, tmp_path)
    good, slow = publish(), publish()
    async with device.on():
        await device.install(good)
    accelerated(device, tmp_path, run_seconds=0.1)
    async with device.on():
        failed = await device.install(slow)
        assert refused(failed) == (Phase.FAILED, "E_SELF_TEST_LATENCY")
        assert "allowed is 4 times that" in (failed.detail or "")
        assert device.serves("1.0.0")
    device.settings = with_settings(max_self_test_latency_ratio=10_000.0)
    async with device.on():
        assert (await device.install(slow)).phase is Phase.COMMITTED


# memory


@pytest.fixture
def small(device: Device, tmp_path: Path) -> Orin:
    """The device on a board whose memory a test can fill."""
    orin = Orin(tmp_path / "orin")
    device.machine = Machine(tmp_path / "orin")
    device.settings = with_settings(memory_margin_bytes=GIB // 4)
    return orin


async def test_with_room_for_both_the_old_version_stays(device: Device, publish: Publish, small: Orin) -> None:
    async with device.on():
        await device.install(publish(providers=(CPU,)))
        await device.install(publish(providers=(CPU,)))
        assert device.serving.exchanged == device.serving.paused == []


async def test_without_room_a_version_is_refused_and_the_old_one_never_stops(
    device: Device, publish: Publish, small: Orin
) -> None:
    async with device.on():
        await device.install(publish(providers=(CPU,)))
        small.memory(available_bytes=GIB // 8, private_bytes=GIB)
        release = publish(providers=(CPU,))
        failed = await device.install(release)
        assert refused(failed) == (Phase.FAILED, "E_MEMORY")
        assert "128 MiB are available and 1024 MiB more when the version that serves is ended" in (failed.detail or "")
        assert device.serves("1.0.0")
        assert device.serving.paused == []
        small.memory(available_bytes=GIB)
        assert (await device.install(release)).phase is Phase.COMMITTED


async def test_where_memory_holds_one_version_the_old_one_ends_before_if_the_operator_lets_it(
    device: Device, publish: Publish, small: Orin
) -> None:
    device.serving_settings = ServingSettings(when_memory_is_short="stop-start")
    async with device.on():
        await device.install(publish(providers=(CPU,)))
        small.memory(available_bytes=GIB // 8, private_bytes=GIB)
        await device.assign(publish(providers=(CPU,)))
        await device.until(lambda: device.serves("1.1.0"))
        assert "stand-down" in device.marks
        assert device.serving.paused == ["1.0.0", "1.0.0"]  # for the self-test, for the swap
        assert device.serving.exchanged == [("1.0.0", "1.1.0")]
        assert standing(device).alone
        assert set(device.serving.loaded) == {("digits", "1.1.0")}
        device.traffic(10)
        assert (await device.end()).phase is Phase.COMMITTED


async def test_a_version_that_fails_its_test_alone_gives_the_old_one_its_place_back(
    device: Device, repository: ReleaseRepository, models: list[bytes], publish: Publish, small: Orin
) -> None:
    device.serving_settings = ServingSettings(when_memory_is_short="stop-start")
    async with device.on():
        await device.install(publish(providers=(CPU,)))
        small.memory(available_bytes=GIB // 8, private_bytes=GIB)
        bad = repository.publish("digits", "6.6.6", b"no model", golden=b"nothing")
        good_golden = repository.publish("digits", "6.6.7", models[2], golden=b"nothing")
        for release in (bad, good_golden):
            assert (await device.install(release)).phase is Phase.FAILED
            assert device.serves("1.0.0")
        assert device.serving.paused == ["1.0.0"]  # the first one did not even get so far


async def test_not_even_alone_is_there_room(device: Device, publish: Publish, small: Orin) -> None:
    device.serving_settings = ServingSettings(when_memory_is_short="stop-start")
    async with device.on():
        await device.install(publish(providers=(CPU,)))
        small.memory(available_bytes=GIB // 8, private_bytes=GIB // 16)
        assert refused(await device.install(publish(providers=(CPU,)))) == (Phase.FAILED, "E_MEMORY")
        assert device.serving.paused == []
