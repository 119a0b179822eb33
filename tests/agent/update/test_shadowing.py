"""An update whose candidate looks on in the shadow, between self-test and swap."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
import onnxruntime
import pytest

from agent.telemetry.host import Machine
from agent.update.lifecycle import Draft, State
from shared.manifest import Tensor
from shared.messages import Phase
from shared.shadow import Terms, agreement
from tests.simulators import digits
from tests.simulators.machine import Full
from tests.simulators.release_repository import Release, ReleaseRepository
from tests.simulators.serving_device import ServingDevice
from tests.simulators.updating_device import SETTINGS, Device, FakeShadow, with_settings

TERMS = Terms(share=1.0, min_samples=50, min_agreement=0.9, seconds=600)


def assigned(terms: Terms | None = TERMS, **changes: object) -> dict[str, object]:
    """What the director writes."""
    return {} if terms is None else {"shadow": terms.model_copy(update=changes).model_dump_json()}


async def begin(device: Device, release: Release, **custom: object) -> FakeShadow:
    """The candidate looks on."""
    await device.assign(release, **custom)
    await device.until(lambda: device.reports[-1:] != [] and device.reports[-1].phase is Phase.SHADOWING)
    return await looking_on(device)


async def waiting_for(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def looking_on(device: Device) -> FakeShadow:
    await waiting_for(lambda: device.serving.shadow is not None)
    assert device.serving.shadow is not None
    return device.serving.shadow


async def swapped(device: Device, version: str) -> Draft:
    await device.until(lambda: device.serves(version))
    device.traffic(SETTINGS.probation_requests)
    return await device.end()


@pytest.fixture
def pair(repository: ReleaseRepository, models: list[bytes]) -> tuple[Release, Release]:
    return repository.publish("digits", "1.0.0", models[0]), repository.publish("digits", "1.1.0", models[1])


async def test_a_candidate_that_agrees_is_swapped_in_and_its_figures_are_told(
    device: Device, pair: tuple[Release, Release]
) -> None:
    async with device.on():
        await device.install(pair[0])
        device.reports.clear()
        shadow = await begin(device, pair[1], **assigned())
        assert device.serves("1.0.0")
        assert ("digits", "1.1.0") not in device.serving.loaded
        (standing,) = device.driver.standing()
        assert standing.update is not None
        assert standing.update.state == State.SHADOWING
        shadow.compared(30, 29)
        shadow.compared(20, 19, dropped=2)
        await device.until(lambda: device.serves("1.1.0"))
        told = next(draft for draft in device.reports if draft.phase is Phase.PROBATION)
        assert told.shadow is not None
        assert (told.shadow.samples, told.shadow.agreed, told.shadow.dropped) == (50, 48, 2)
        assert device.serving.shadow is None
        assert (await swapped(device, "1.1.0")).phase is Phase.COMMITTED


async def test_a_candidate_that_disagrees_never_serves_and_another_rollout_may_bring_it(
    device: Device, pair: tuple[Release, Release]
) -> None:
    async with device.on():
        await device.install(pair[0])
        shadow = await begin(device, pair[1], **assigned())
        shadow.compared(50, 40)
        failed = await device.end()
        assert (failed.phase, failed.reason) == (Phase.FAILED, "E_SHADOW_DISAGREES")
        assert failed.shadow is not None
        assert failed.shadow.agreed == 40
        assert device.serves("1.0.0")
        assert device.serving.shadow is None
        assert device.leftovers() == []
        assert (await device.install(pair[1])).phase is Phase.COMMITTED


async def test_a_candidate_that_crashes_in_the_shadow_fails(device: Device, pair: tuple[Release, Release]) -> None:
    async with device.on():
        await device.install(pair[0])
        (await begin(device, pair[1], **assigned())).died("SIGSEGV")
        failed = await device.end()
        assert (failed.phase, failed.reason) == (Phase.FAILED, "E_SHADOW_CRASH")
        assert device.serves("1.0.0")


@pytest.mark.parametrize("terms", ["no terms", '{"share": 2}'])
async def test_terms_that_cannot_be_read_are_refused(device: Device, pair: tuple[Release, Release], terms: str) -> None:
    async with device.on():
        await device.assign(pair[0], shadow=terms)
        refused = await device.end()
        assert (refused.phase, refused.reason) == (Phase.REFUSED, "E_TRUST")


async def test_the_first_version_of_a_model_has_nothing_to_be_compared_with(
    device: Device, pair: tuple[Release, Release]
) -> None:
    async with device.on():
        assert (await device.install(pair[0], **assigned())).phase is Phase.COMMITTED
        assert Phase.SHADOWING not in {draft.phase for draft in device.reports}


async def test_a_device_that_nobody_asks_decides_by_its_policy_when_the_time_is_over(
    device: Device, pair: tuple[Release, Release]
) -> None:
    async with device.on():
        await device.install(pair[0])
        found = await device.install(pair[1], **assigned(seconds=0.3, when_few="fail"))
        assert (found.phase, found.reason) == (Phase.FAILED, "E_SHADOW_FEW")
        assert (await device.install(pair[1], **assigned(seconds=0.3))).phase is Phase.COMMITTED


async def test_where_memory_holds_one_version_nothing_is_compared_and_the_policy_decides(
    device: Device, pair: tuple[Release, Release]
) -> None:
    async with device.on():
        await device.install(pair[0])
        found = await device.install(pair[1], **assigned(memory_bytes=1, when_few="fail"))
        assert (found.phase, found.reason) == (Phase.FAILED, "E_MEMORY")
    device.machine = Full()
    device.serving_settings = device.serving_settings.model_copy(update={"when_memory_is_short": "stop-start"})
    async with device.on():
        assert (await device.install(pair[1], **assigned())).phase is Phase.COMMITTED
        assert device.serving.shadow is None


async def test_one_that_stays_is_swapped_in_when_an_assignment_without_a_shadow_comes(
    device: Device, pair: tuple[Release, Release]
) -> None:
    async with device.on():
        await device.install(pair[0])
        device.reports.clear()
        shadow = await begin(device, pair[1], **assigned(stay=True, seconds=0.2))
        shadow.compared(500, 500)
        await asyncio.sleep(0.5)
        assert device.serves("1.0.0")
        await device.assign(pair[1])
        done = await swapped(device, "1.1.0")
        assert (done.phase, done.assignment) == (Phase.COMMITTED, 3)
        assert done.shadow is not None
        assert done.shadow.samples == 500


async def test_a_newer_release_ends_the_comparison(
    device: Device, repository: ReleaseRepository, pair: tuple[Release, Release], models: list[bytes]
) -> None:
    async with device.on():
        await device.install(pair[0])
        await begin(device, pair[1], **assigned(stay=True))
        newest = repository.publish("digits", "1.2.0", models[2])
        await device.assign(newest)
        assert (await device.end()).phase is Phase.CANCELLED
        assert device.serving.shadow is None
        await device.until(lambda: device.serves("1.2.0"))


async def test_figures_outlive_a_restart(device: Device, pair: tuple[Release, Release]) -> None:
    async with device.on():
        await device.install(pair[0])
        shadow = await begin(device, pair[1], **assigned(seconds=2, when_few="fail"))
        shadow.compared(49, 49)
        await device.until(lambda: any(draft.shadow is not None for draft in device.reports))
    async with device.on():
        assert device.serves("1.0.0")
        (await looking_on(device)).compared(1, 1)
        done = await swapped(device, "1.1.0")
        assert done.phase is Phase.COMMITTED
        assert done.shadow is not None
        assert done.shadow.samples == 50


async def test_a_hot_device_samples_nothing(device: Device, pair: tuple[Release, Release], tmp_path: Path) -> None:
    root = tmp_path / "root"
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal")
    (zone / "temp").write_text("40000")
    device.settings = with_settings(defer_limit_seconds=0.1, after_defer="go-on")
    device.machine = Machine(root)
    async with device.on():
        await device.install(pair[0])
        shadow = await begin(device, pair[1], **assigned())
        (zone / "temp").write_text("99000")
        await waiting_for(lambda: shadow.paused)
        (zone / "temp").write_text("40000")
        await waiting_for(lambda: not shadow.paused)


def golden(session: onnxruntime.InferenceSession) -> bytes:
    inputs = digits.train().reference_x[:4]
    file = io.BytesIO()
    np.savez(file, **{"input.image": inputs, "output.scores": session.run(None, {"image": inputs})[0]})
    return file.getvalue()


GOOD, WEAK = digits.train(seed=1), digits.train(seed=2, hidden=8, rounds=8)


async def test_a_real_candidate_reports_the_agreement_of_an_offline_run(
    tmp_path: Path, repository: ReleaseRepository
) -> None:
    images = GOOD.live_x
    sessions = [onnxruntime.InferenceSession(trained.onnx_bytes) for trained in (GOOD, WEAK)]
    good, weak = (session.run(None, {"image": images})[0].argmax(axis=1) for session in sessions)
    agreed = int((good == weak).sum())
    accuracy = [float((found == GOOD.live_y).mean()) for found in (good, weak)]
    assert accuracy[0] - accuracy[1] > 0.02  # two models of which one is worse
    form = {
        "inputs": (Tensor(name="image", datatype="FP32", shape=(-1, 8, 8)),),
        "outputs": (Tensor(name="scores", datatype="FP32", shape=(-1, 10)),),
        "chunk_bytes": 4096,
    }
    before, candidate = (
        repository.publish("digits", version, trained.onnx_bytes, golden=golden(session), **form)
        for version, trained, session in zip(("1.0.0", "1.1.0"), (GOOD, WEAK), sessions, strict=True)
    )
    device = ServingDevice(tmp_path / "state", repository)
    device.settings = with_settings(probation_requests=1, probation_limit_seconds=0.2)
    async with device.on(), httpx2.AsyncClient() as http:
        await device.assign(before)
        assert (await device.end()).phase is Phase.COMMITTED
        exact = {"min_samples": len(images), "min_agreement": 0.99, "hold_seconds": 10.0, "seconds": 40.0}
        terms = TERMS.model_copy(update=exact)
        await device.assign(candidate, **assigned(terms))
        await device.until(lambda: device.reports[-1:] != [] and device.reports[-1].shadow is not None)
        for part in np.array_split(images, 6):
            entry = {"name": "image", "shape": part.shape, "datatype": "FP32", "data": part.ravel().tolist()}
            answer = await http.post(f"http://{device.address}/v2/models/digits/infer", json={"inputs": [entry]})
            assert answer.raise_for_status().json()["model_version"] == "1.0.0"
        failed = await device.end()
    found = failed.shadow
    assert found is not None
    assert (failed.phase, failed.reason) == (Phase.FAILED, "E_SHADOW_DISAGREES")
    assert (found.dropped, found.failed, found.samples, found.agreed) == (0, 0, len(images), agreed)
    assert agreement(found) == agreed / len(images)
