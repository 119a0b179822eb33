"""Old versions go when nothing needs them, and not before; whatever happens meanwhile."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.access.roles import system
from fleet.schedules.retention import Kept, verdicts
from fleet.schedules.sweep import Sweep
from fleet.store import tables
from shared.manifest import Artifact, Chunk, Manifest, Runtime, Tensor
from tests.fleet.rollouts.conftest import T0
from tests.fleet.schedules.conftest import Later

VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")


def sealed(version: str, name: str) -> bytes:
    return f"{name} of {version}".encode()


def manifest(version: str) -> Manifest:
    tensor = Tensor(name="x", datatype="FP32", shape=(1,))
    artifacts = {}
    for name in ("model", "golden", "baseline"):
        data = sealed(version, name)
        digest = hashlib.sha256(data).hexdigest()
        chunk = Chunk(id=digest, size_bytes=len(data), plain_bytes=len(data))
        artifacts[name] = Artifact(digest=digest, size_bytes=len(data), chunks=(chunk,))
    return Manifest(
        model="digits", version=version, counter=int(version.replace(".", "")), created=T0, latency_ms=1.0,
        runtime=Runtime(ir_version=8, opset={"": 17}), inputs=(tensor,), outputs=(tensor,), artifacts=artifacts,
    )  # fmt: skip


async def published(world: Later, *versions: str, age_days: int = 40) -> None:
    assert world.depot is not None
    world.clock.at = T0 + timedelta(days=age_days)
    for version in versions:
        await world.release(version)
        made = manifest(version)
        for name, artifact in made.artifacts.items():
            world.depot.put(artifact.chunks[0].id, sealed(version, name))
        async with world.database.write() as tx:
            (await tx.get_one(tables.Release, ("digits", version))).manifest = made.to_bytes()


def here(world: Later) -> set[str]:
    """Versions of which all chunks are here; a version is never here in part."""
    assert world.depot is not None
    found = set()
    for version in VERSIONS:
        has = {world.depot.get(artifact.chunks[0].id) is not None for artifact in manifest(version).artifacts.values()}
        assert len(has) == 1, version
        found |= {version} if has == {True} else set()
    return found


async def test_what_is_old_and_not_needed_goes_and_says_so(world: Later, api: httpx2.AsyncClient) -> None:
    await published(world, *VERSIONS)
    await world.device("cam-1", serving="1.1.0")
    dry = (await api.post("/models/cleanup", params={"dry_run": True})).json()["items"]
    assert {one["version"]: (one["goes"], one["why"]) for one in dry} == {
        "1.3.0": (False, "the newest version"),
        "1.2.0": (True, "40 days old, and nothing needs it"),
        "1.1.0": (False, "needed by device cam-1"),
        "1.0.0": (True, "40 days old, and nothing needs it"),
    }
    assert here(world) == set(VERSIONS)
    await api.post("/models/cleanup")
    assert here(world) == {"1.1.0", "1.3.0"}
    assert "digits@1.0.0 retired: 40 days old, and nothing needs it; its chunks are deleted" in await world.texts()
    answer = await api.post("/rollouts", json={"model": "digits", "version": "1.0.0"})
    assert answer.json()["detail"] == "digits@1.0.0 is retired"
    assert [one["goes"] for one in (await api.post("/models/cleanup")).json()["items"]] == [False, False]


@pytest.mark.parametrize("who", ["slot", "alias", "rollout", "previous", "schedule", "baseline", "young"])
async def test_who_needs_a_version_keeps_it(world: Later, api: httpx2.AsyncClient, who: str) -> None:
    await published(world, *VERSIONS, age_days=29 if who == "young" else 40)
    match who:
        case "slot":
            slot = {"slot": "b", "state": "good", "model": "digits", "version": "1.0.0"}
            await world.device("cam-1", serving="1.3.0", slots=[slot])
        case "alias":
            await api.put("/models/digits/aliases/stable", json={"version": "1.0.0"})
        case "rollout":
            await world.device("cam-1", serving="1.3.0")
            await api.post("/rollouts", json={"model": "digits", "version": "1.0.0"})
        case "previous":
            await world.device("cam-1", serving="1.0.0")
            await api.post("/rollouts", json={"model": "digits", "version": "1.3.0"})
            await world.serve("cam-1", "1.3.0")
        case "schedule":
            later = (world.clock.at + timedelta(days=1)).isoformat()
            await api.post("/schedules", json={"model": "digits", "version": "1.0.0", "at": later})
        case "baseline":
            async with world.database.write() as tx:
                tx.add(tables.BaselineChoice(scope="fleet", model="digits", version="1.0.0", vector=None, days=[],
                                             pinned=True, chosen_by="ana", chosen_at=T0))  # fmt: skip
    await Sweep(world).sweep(system("cleanup"))
    assert here(world) == (set(VERSIONS) if who == "young" else {"1.0.0", "1.3.0"})


async def test_a_crash_in_the_middle_is_made_good_by_the_next_look(
    world: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.depot is not None
    await published(world, *VERSIONS)
    remove, calls = world.depot.remove, 0

    def dies(name: str) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return remove(name)

    with monkeypatch.context() as patch:
        patch.setattr(world.depot, "remove", dies)
        with pytest.raises(KeyboardInterrupt):
            await Sweep(world).sweep(system("cleanup"))
    assert await Sweep(world).finish() > 0
    assert here(world) == {"1.3.0"}
    assert await Sweep(world).finish() == 0


async def test_a_rollout_that_starts_meanwhile_keeps_its_version_or_is_refused(
    world: Later, api: httpx2.AsyncClient
) -> None:
    await published(world, *VERSIONS)
    await world.device("cam-1", serving="1.3.0")
    body = {"model": "digits", "version": "1.0.0"}
    answer, _ = await asyncio.gather(api.post("/rollouts", json=body), Sweep(world).sweep(system("cleanup")))
    if answer.status_code == 201:
        assert "1.0.0" in here(world)
    else:
        assert answer.json()["code"] == "E_WITHDRAWN"
        assert "1.0.0" not in here(world)


async def test_a_rollout_that_starts_between_plan_and_retirement_is_seen(world: Later, api: httpx2.AsyncClient) -> None:
    await published(world, *VERSIONS)
    await world.device("cam-1", serving="1.3.0")
    sweep = Sweep(world)
    plan = sweep.plan

    async def late() -> Any:
        found = await plan()
        await api.post("/rollouts", json={"model": "digits", "version": "1.0.0"})
        return found

    sweep.plan = late  # type: ignore[method-assign]
    await sweep.sweep(system("cleanup"))
    assert here(world) == {"1.0.0", "1.3.0"}


@pytest.mark.parametrize("sections", [{"versioning": {"cleanup_old_versions": False, "version_retention_days": 1}}])
async def test_without_cleanup_only_a_person_retires(world: Later, api: httpx2.AsyncClient) -> None:
    await published(world, *VERSIONS, age_days=2)
    await Sweep(world).tidy()
    assert here(world) == set(VERSIONS)
    await api.post("/models/cleanup")
    assert here(world) == {"1.3.0"}


@pytest.mark.parametrize("sections", [{"versioning": {"version_retention_days": 60}}])
async def test_retention_is_a_setting(world: Later) -> None:
    await published(world, *VERSIONS, age_days=59)
    await Sweep(world).tidy()
    assert here(world) == set(VERSIONS)
    world.after(86401)
    await Sweep(world).tidy()
    assert here(world) == {"1.3.0"}


async def test_only_releasers_retire(world: Later, api: httpx2.AsyncClient) -> None:
    answer = await api.post("/models/cleanup", headers={"Authorization": "Bearer operator"})
    assert answer.status_code == 403


@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), min_size=1, max_size=8), st.integers(1, 60))
def test_whatever_is_published_the_newest_and_the_needed_stay(ages: list[tuple[int, bool]], days: int) -> None:
    now = datetime(2026, 6, 1, tzinfo=UTC)
    known = [
        Kept("digits", f"1.{n}.0", n, now - timedelta(days=age), ("a slot",) if needed else ())
        for n, (age, needed) in enumerate(ages)
    ]
    found = verdicts(known, now, timedelta(days=days))
    gone = {one.version for one in found if one.goes}
    assert gone == {
        one.version for one in known[:-1] if not one.needs and now - one.published_at >= timedelta(days=days)
    }
    assert all(one.why for one in found)
