"""Releases that reach a device as a delta from the one that serves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agent.update.bundle import BundleFolder
from agent.update.lifecycle import Draft
from shared.messages import Phase
from tests.simulators.bundles import make_bundle
from tests.simulators.release_repository import Release, ReleaseRepository
from tests.simulators.updating_device import Device


def wide_model(change: float = 0.0) -> bytes:
    """8 numbers in, 3 classes out, 90 kB of weights that `change` moves a little, all of them."""
    from onnx import TensorProto, helper, numpy_helper

    random, moved = np.random.default_rng(0), np.random.default_rng(1)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=1),
    ]
    weights = []
    for name, shape in (("a", (8, 2048)), ("b", (2048, 3))):
        values = random.normal(size=shape) * (1 + change * moved.normal(size=shape))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


OLD, NEW = wide_model(), wide_model(1e-4)


@pytest.fixture
def releases(repository: ReleaseRepository) -> tuple[Release, Release]:
    """1.0.0, and 1.1.0 with a delta from it."""
    return (
        repository.publish("digits", "1.0.0", OLD, chunk_bytes=16384),
        repository.publish("digits", "1.1.0", NEW, chunk_bytes=16384, old=OLD),
    )


def stream_of(repository: ReleaseRepository, release: Release) -> list[str]:
    """Paths of what only the delta needs."""
    ours = {f"/chunks/{name}" for name in release.chunks}
    first = repository.publish("other", "1.0.0", OLD, listed=False, chunk_bytes=16384)
    known = ours | {f"/chunks/{name}" for name in first.chunks}
    return [path for path in repository.files if path.startswith("/chunks/") and path not in known]


def model_chunks(release: Release) -> set[str]:
    return {f"/chunks/{chunk.id}" for chunk in release.manifest.artifacts["model"].chunks}


def installed(device: Device, slot: str) -> bytes:
    return (device.folder / f"models/digits/{slot}/model.onnx").read_bytes()


async def test_a_device_that_holds_the_old_release_fetches_only_the_difference(
    device: Device, repository: ReleaseRepository, releases: tuple[Release, Release]
) -> None:
    old, new = releases
    async with device.on():
        await device.install(old)
        repository.requests.clear()
        found = await device.install(new)
        assert found.phase is Phase.COMMITTED
        assert installed(device, "b") == NEW
        assert not model_chunks(new) & set(repository.requests)
        wire = sum(len(repository.files[path]) for path in repository.requests if path.startswith("/chunks/"))
        assert found.fetched_bytes == found.total_bytes == wire
        assert found.sources == {"manager": wire}
        assert wire < 0.7 * new.manifest.sealed_bytes
        assert device.leftovers() == []


async def test_a_bundle_brings_the_full_file_to_a_device_that_could_take_the_difference(
    device: Device, repository: ReleaseRepository, releases: tuple[Release, Release], tmp_path: Path
) -> None:
    old, new = releases
    async with device.on():
        await device.install(old)
        folder = make_bundle(tmp_path / "usb", repository, [new], box_key=bytes(device.box.public_key))
        repository.faults.status["/"] = 503
        device.driver.sources.attach(BundleFolder(folder))
        await device.driver.bring(BundleFolder(folder), repository.assigned["cam-1"])
        await device.until(lambda: device.serves("1.1.0"))
        assert device.driver.sources.received["bundle"] == new.manifest.sealed_bytes


async def test_a_device_that_holds_nothing_fetches_the_full_file(
    device: Device, repository: ReleaseRepository, releases: tuple[Release, Release]
) -> None:
    new = releases[1]
    async with device.on():
        found = await device.install(new)
        assert (found.phase, found.fetched_bytes) == (Phase.COMMITTED, new.manifest.sealed_bytes)
        assert installed(device, "a") == NEW


async def test_the_third_release_is_rebuilt_from_the_one_that_serves_not_from_the_idle_one(
    device: Device, repository: ReleaseRepository, releases: tuple[Release, Release]
) -> None:
    last = wide_model(2e-4)
    third = repository.publish("digits", "1.2.0", last, chunk_bytes=16384, old=NEW)
    async with device.on():
        for release in (*releases, third):
            found = await device.install(release)
        assert installed(device, "a") == last
        assert found.fetched_bytes is not None
        assert found.fetched_bytes < 0.7 * third.manifest.sealed_bytes


def _flipped(repository: ReleaseRepository, paths: list[str]) -> None:
    repository.faults.flip.update(paths)


def _gone(repository: ReleaseRepository, paths: list[str]) -> None:
    for path in paths:
        repository.faults.status[path] = 404


@pytest.mark.parametrize("damage", [_flipped, _gone])
async def test_a_delta_that_cannot_be_fetched_gives_way_to_the_full_file(
    device: Device,
    repository: ReleaseRepository,
    releases: tuple[Release, Release],
    damage: Callable[[ReleaseRepository, list[str]], None],
) -> None:
    old, new = releases
    async with device.on():
        await device.install(old)
        damage(repository, stream_of(repository, new))
        assert (await _ended(device, new)).phase is Phase.COMMITTED
        assert installed(device, "b") == NEW
        assert model_chunks(new) <= set(repository.requests)


async def test_a_delta_that_leads_elsewhere_gives_way_to_the_full_file(
    device: Device, repository: ReleaseRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.releases.delta import encoding, offering

    old = repository.publish("digits", "1.0.0", OLD, chunk_bytes=16384)
    wrong = encoding.encode(OLD, wide_model(3e-4))
    monkeypatch.setattr(offering.encoding, "encode", lambda *_: wrong)
    monkeypatch.setattr(offering, "prove", lambda *_: None)
    new = repository.publish("digits", "1.1.0", NEW, chunk_bytes=16384, old=OLD)
    async with device.on():
        await device.install(old)
        assert (await _ended(device, new)).phase is Phase.COMMITTED
        assert installed(device, "b") == NEW


async def test_an_agent_that_dies_while_it_fetches_a_delta_goes_on_with_it(
    device: Device, repository: ReleaseRepository, releases: tuple[Release, Release]
) -> None:
    old, new = releases
    async with device.on():
        await device.install(old)
        repository.faults.status = dict.fromkeys(stream_of(repository, new)[1:], 503)
        await device.assign(new)
        await device.until(lambda: any(draft.phase is Phase.FETCHING for draft in device.reports))
    repository.faults.status = {}
    repository.requests.clear()
    async with device.on():
        await device.until(lambda: device.serves("1.1.0"))
        assert installed(device, "b") == NEW
        assert not model_chunks(new) & set(repository.requests)


async def _ended(device: Device, release: Release) -> Draft:
    return await device.install(release)
