"""Updates from announcement to report, with real metadata, chunks, child processes and files."""

import errno
from pathlib import Path

import pytest

from agent.update.lifecycle import Draft, State
from agent.update.reasons import NoOtherSlotError, UpdateBusyError
from agent.update.slot_disk import SlotDisk
from shared import signing
from shared.messages import Phase
from shared.signing import NaClSigner
from tests.simulators.release_repository import ReleaseRepository, tiny_model
from tests.simulators.updating_device import Device, golden_with_other_answers, with_settings


def phases(reports: list[Draft]) -> list[Phase]:
    return [draft.phase for draft in reports]


def slots(device: Device) -> dict[str, tuple[str, str | None]]:
    return {slot.slot: (slot.state, slot.version) for slot in device.driver.slots()}


async def test_the_first_release_is_installed_served_and_committed(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    async with device.on():
        await device.assign(release)
        await device.until(lambda: device.serves("1.0.0"))
        device.traffic(10)
        await device.until(lambda: "finished" in device.marks)
        told = list(dict.fromkeys(phases(device.reports)))
        assert told == [
            Phase.VERIFIED,
            Phase.FETCHING,
            Phase.ASSEMBLED,
            Phase.STAGED,
            Phase.SELF_TESTED,
            Phase.PROBATION,
            Phase.COMMITTED,
        ]
        last = device.reports[-1]
        assert (last.assignment, last.model, last.version, last.rollout) == (1, "digits", "1.0.0", "ro-test")
        assert last.fetched_bytes == last.total_bytes == release.manifest.sealed_bytes
        assert last.sources == {"manager": release.manifest.sealed_bytes}
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("empty", None)}
        assert (device.folder / "models/digits/a/model.onnx").read_bytes() == models[0]
        assert device.driver.assignment() == 1
        assert device.leftovers() == []


async def test_the_second_goes_beside_the_first_and_the_third_replaces_the_first(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        for number in range(3):
            release = repository.publish("digits", f"1.{number}.0", models[number])
            assert (await device.install(release)).phase is Phase.COMMITTED
            assert set(device.serving.loaded) == {("digits", f"1.{number}.0")}
        assert slots(device) == {"a": ("good", "1.2.0"), "b": ("good", "1.1.0")}


async def test_going_back_to_the_release_in_the_other_slot_fetches_nothing(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    old, new = (repository.publish("digits", f"1.{number}.0", models[number]) for number in range(2))
    async with device.on():
        await device.install(old)
        await device.install(new)
        repository.faults.status = {"/chunks": 500}
        assert (await device.install(old)).phase is Phase.COMMITTED
        assert device.serves("1.0.0")
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("good", "1.1.0")}


async def test_what_serves_already_is_committed_at_once(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    async with device.on():
        await device.install(release)
        device.marks.clear()
        await device.assign(release)
        found = await device.end()
        assert (found.phase, found.assignment) == (Phase.COMMITTED, 2)
        assert "swap" not in device.marks


async def test_the_same_announcement_again_says_and_does_nothing(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    async with device.on():
        announcement = device.announcement(release)
        await device.driver.announce(announcement)
        await device.until(lambda: device.serves("1.0.0"))
        device.traffic(10)
        await device.end()
        device.reports.clear()
        await device.driver.announce(announcement)
        repository.sign()
        fresh = announcement.model_copy(update={"timestamp": repository.files["/metadata/timestamp.json"].decode()})
        await device.driver.announce(fresh)
        await device.until(lambda: "verified" in device.marks)
        assert device.journal.oldest() is None or device.reports == []
    async with device.on():
        assert device.reports == []
        assert device.serves("1.0.0")


@pytest.mark.parametrize(
    ("fault", "reason", "assignment"),
    [
        ("forged", "E_SIGNATURE", 0),
        ("replayed", "E_REPLAYED", 1),
        ("other device", "E_WRONG_DEVICE", 0),
        ("expired", "E_EXPIRED", 0),
        ("not released", "E_NOT_RELEASED", 3),
        ("counter", "E_COUNTER", 3),
        ("hardware", "E_HARDWARE", 3),
        ("runtime", "E_RUNTIME", 3),
        ("sealed key", "E_SEALED_KEY", 3),
        ("disk", "E_DISK_SPACE", 3),
    ],
)
async def test_what_may_not_be_installed_is_refused_with_its_reason_and_the_old_one_serves(
    device: Device, repository: ReleaseRepository, models: list[bytes], fault: str, reason: str, assignment: int
) -> None:
    async with device.on():
        older = repository.publish("digits", "0.9.0", models[0])
        replayed = device.announcement(older)
        await device.install(repository.publish("digits", "1.0.0", models[1], minimum_counter=2))
        device.reports.clear()
        bad = repository.publish("digits", "6.6.6", models[2], listed=False)
        match fault:
            case "forged":
                found = device.announcement(older, signer=NaClSigner.generate())
            case "replayed":
                found = replayed
            case "other device":
                found = repository.announce("cam-2", bytes(device.box.public_key), older)
            case "expired":
                found = device.announcement(older, expires_days=-1)
            case "not released":
                found = device.announcement(bad)
            case "counter":
                found = device.announcement(older)
            case "hardware":
                found = device.announcement(repository.publish("digits", "2.0.0", models[2], hardware=("orin-*",)))
            case "runtime":
                accepted = ("TensorrtExecutionProvider",)
                found = device.announcement(repository.publish("digits", "2.0.0", models[2], providers=accepted))
            case "sealed key":
                stranger = signing.seal(older.content_key, bytes(NaClSigner.generate().seed))
                found = device.announcement(older, sealed_key=stranger)
            case _:
                device.driver._effects._parts.disk.free_bytes = lambda: 100  # type: ignore[method-assign]
                found = device.announcement(repository.publish("digits", "2.0.0", models[2]))
        await device.driver.announce(found)
        last = await device.end()
        assert (last.phase, last.reason, last.assignment) == (Phase.REFUSED, reason, assignment)
        assert last.detail
        assert device.serves("1.0.0")
        assert slots(device)["a"] == ("good", "1.0.0")
        assert device.leftovers() == []


async def test_a_flipped_bit_is_fetched_again(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    repository.faults.flip_once = {f"/chunks/{name}" for name in release.chunks}
    async with device.on():
        assert (await device.install(release)).phase is Phase.COMMITTED
        assert all(repository.requests[f"/chunks/{name}"] == 2 for name in release.chunks)


async def test_a_bit_that_stays_flipped_fails_the_update_and_the_old_one_serves(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        bad = repository.publish("digits", "1.1.0", models[1])
        repository.faults.flip = {f"/chunks/{next(iter(bad.chunks))}"}
        last = await device.install(bad)
        assert (last.phase, last.reason) == (Phase.FAILED, "E_CHUNK_DAMAGED")
        assert device.serves("1.0.0")
        assert device.leftovers() == []
        repository.faults.flip = set()
        assert (await device.install(bad)).phase is Phase.COMMITTED  # the release itself is not to blame


async def test_other_golden_answers_fail_the_update_for_good(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        bad = repository.publish("digits", "1.1.0", models[1], golden=golden_with_other_answers(models[1]))
        last = await device.install(bad)
        assert (last.phase, last.reason) == (Phase.FAILED, "E_GOLDEN_MISMATCH")
        assert device.serves("1.0.0")
        assert device.leftovers() == []
        again = await device.install(bad)
        assert (again.phase, again.reason) == (Phase.REFUSED, "E_KNOWN_BAD")
        assert "E_GOLDEN_MISMATCH" in (again.detail or "")
        forced = await device.install(bad, force=True)
        assert (forced.phase, forced.reason) == (Phase.FAILED, "E_GOLDEN_MISMATCH")


@pytest.mark.parametrize(
    ("file", "reason"), [(b"not a model at all", "E_ONNX"), (tiny_model(broken=True), "E_NOT_FINITE")]
)
async def test_a_model_that_is_none_or_answers_nonsense_fails(
    device: Device, repository: ReleaseRepository, models: list[bytes], file: bytes, reason: str
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        golden = golden_with_other_answers(models[1])
        last = await device.install(repository.publish("digits", "1.1.0", file, golden=golden))
        assert (last.phase, last.reason) == (Phase.FAILED, reason)
        assert device.serves("1.0.0")


async def test_a_version_that_does_not_load_beside_the_old_one_fails(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    device.refuses = {"1.1.0"}
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        last = await device.install(repository.publish("digits", "1.1.0", models[1]))
        assert (last.phase, last.reason) == (Phase.FAILED, "E_LOAD")
        assert device.serves("1.0.0")
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("empty", None)}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"requests": 20, "correct": False}, "E_PROBATION_ACCURACY"),
        ({"requests": 5, "error": "internal"}, "E_PROBATION_ERRORS"),
        ({"requests": 5, "error": "not-finite"}, "E_PROBATION_OUTPUT"),
        ({"requests": 60, "latency_ms": 50.0}, "E_PROBATION_LATENCY"),
        ({"crashes": 2}, "E_PROBATION_CRASH"),
    ],
)
async def test_a_bad_answerer_is_rolled_back_by_the_device_and_not_tried_again(
    device: Device, repository: ReleaseRepository, models: list[bytes], bad: dict[str, object], reason: str
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        device.traffic(60, correct=True)
        release = repository.publish("digits", "1.1.0", models[1])
        await device.assign(release)
        await device.until(lambda: device.serves("1.1.0"))
        assert set(device.serving.loaded) == {("digits", "1.0.0"), ("digits", "1.1.0")}
        device.traffic(**bad)  # type: ignore[arg-type]
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.ROLLED_BACK, reason)
        assert device.serves("1.0.0")
        assert set(device.serving.loaded) == {("digits", "1.0.0")}
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("empty", None)}
        assert device.leftovers() == []
        again = await device.install(release)
        assert (again.phase, again.reason) == (Phase.REFUSED, "E_KNOWN_BAD")


async def test_a_bad_first_release_leaves_nothing_serving(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        await device.until(lambda: device.serves("1.0.0"))
        device.traffic(crashes=2)
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.ROLLED_BACK, "E_PROBATION_CRASH")
        assert device.serving.routes == {}
        assert slots(device) == {"a": ("empty", None), "b": ("empty", None)}


async def test_a_newer_assignment_cancels_a_download(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    stuck = repository.publish("digits", "1.1.0", models[1])
    repository.faults.status = {f"/chunks/{next(iter(stuck.chunks))}": 503}
    async with device.on():
        await device.assign(stuck)
        await device.until(lambda: Phase.FETCHING in phases(device.reports))
        await device.assign(repository.publish("digits", "1.2.0", models[2]))
        cancelled = await device.end()
        assert (cancelled.phase, cancelled.version, cancelled.reason) == (Phase.CANCELLED, "1.1.0", "E_CANCELLED")
        await device.until(lambda: device.serves("1.2.0"))
        device.traffic(10)
        assert (await device.end()).phase is Phase.COMMITTED
        assert device.leftovers() == []


async def test_a_newer_assignment_ends_a_probation_of_the_same_model(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    old = repository.publish("digits", "1.0.0", models[0])
    async with device.on():
        await device.install(old)
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        await device.until(lambda: device.serves("1.1.0"))
        await device.assign(old)
        cancelled = await device.end()
        assert (cancelled.phase, cancelled.version) == (Phase.CANCELLED, "1.1.0")
        back = await device.end()
        assert (back.phase, back.version, back.assignment) == (Phase.COMMITTED, "1.0.0", 3)
        assert device.serves("1.0.0")


async def test_a_newer_assignment_of_the_same_release_goes_on_under_its_number(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    async with device.on():
        await device.assign(release)
        await device.until(lambda: device.serves("1.0.0"))
        await device.assign(release, rollout="ro-next")
        await device.until(lambda: device.driver.assignment() == 2)
        device.traffic(10)
        last = await device.end()
        assert (last.phase, last.assignment, last.rollout) == (Phase.COMMITTED, 2, "ro-next")
        assert Phase.CANCELLED not in phases(device.reports)


async def test_another_models_assignment_waits_for_a_probation_to_end(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        await device.until(lambda: device.serves("1.0.0"))
        await device.assign(repository.publish("letters", "1.0.0", models[1]))
        await device.until(lambda: device.driver.assignment() == 2)
        device.traffic(10)
        first = await device.end()
        assert (first.phase, first.model) == (Phase.COMMITTED, "digits")
        await device.until(lambda: device.serves("1.0.0", "letters"))
        assert device.serving.routes == {"digits": "1.0.0", "letters": "1.0.0"}


async def test_an_unreachable_manager_is_waited_for(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    repository.faults.status = {"/metadata": 503}
    async with device.on():
        await device.assign(release)
        repository.faults.status = {"/chunks": 503}
        await device.until(lambda: Phase.FETCHING in phases(device.reports))
    repository.faults.status = {}
    async with device.on():
        await device.until(lambda: device.serves("1.0.0"))


async def test_an_announcement_is_durable_when_it_was_taken(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    repository.faults.status = {"/": 503}
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
    repository.faults.status = {}
    async with device.on():
        await device.until(lambda: device.serves("1.0.0"))


async def test_starts_of_a_version_on_trial_are_counted_and_end_in_a_roll_back(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    device.settings = with_settings(tries=2)
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        await device.until(lambda: device.serves("1.1.0"))
    async with device.on():
        assert device.serves("1.1.0")
        assert ("digits", "1.0.0") in device.serving.loaded
    async with device.on():
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.ROLLED_BACK, "E_PROBATION_CRASH")
        assert device.serves("1.0.0")
    async with device.on():
        assert device.serves("1.0.0")
        assert device.leftovers() == []


async def test_a_trial_that_does_not_load_at_boot_is_rolled_back(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        await device.until(lambda: device.serves("1.1.0"))
    device.refuses = {"1.1.0"}
    async with device.on():
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.ROLLED_BACK, "E_LOAD")
        assert device.serves("1.0.0")


async def test_a_damaged_slot_gives_way_to_the_good_one_beside_it(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        for number in range(2):
            await device.install(repository.publish("digits", f"1.{number}.0", models[number]))
    _damage(device.folder / "models/digits/b/model.onnx")
    async with device.on():
        assert device.serves("1.0.0")
        assert slots(device) == {"a": ("good", "1.0.0"), "b": ("empty", None)}


def _damage(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    path.chmod(0o400)


async def test_a_chunk_that_went_bad_on_our_own_disk_is_fetched_again(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    release = repository.publish("digits", "1.0.0", models[0])
    victim = release.manifest.artifacts["model"].chunks[0].id
    store = device.folder / "chunks" / victim[:2] / victim
    original = device._mark

    def damage(name: str) -> None:
        if name == "saved:fetched" and "saved:fetched" not in device.marks:
            store.write_bytes(b"x" * store.stat().st_size)
        original(name)

    device._mark = damage  # type: ignore[method-assign]
    async with device.on():
        assert (await device.install(release)).phase is Phase.COMMITTED
        assert repository.requests[f"/chunks/{victim}"] == 2


async def test_by_hand_the_other_good_version_answers(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        with pytest.raises(NoOtherSlotError):
            await device.driver.rollback()
        for number in range(2):
            await device.install(repository.publish("digits", f"1.{number}.0", models[number]))
        assert (await device.driver.rollback()).version == "1.0.0"
        assert device.serves("1.0.0")
        assert device.reports[-1].phase is Phase.ROLLED_BACK
        assert device.reports[-1].version == "1.1.0"
    async with device.on():
        assert device.serves("1.0.0")


async def test_a_release_for_later_waits_tested_swaps_when_told_and_goes_back_without_download(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    old, new = (repository.publish("digits", f"1.{number}.0", models[number]) for number in range(2))
    async with device.on():
        await device.install(old)
        await device.assign(new, activate="later")
        await device.until(lambda: bool(device.reports) and device.reports[-1].reason == "E_WAITS_FOR_SWITCH")
        assert device.reports[-1].phase is Phase.SELF_TESTED
        assert device.serves("1.0.0")
    async with device.on():  # it waits over a restart, too
        await device.until(lambda: device.reports[-1].reason == "E_WAITS_FOR_SWITCH")
        assert slots(device)["b"] == ("tested", "1.1.0")
        device.reports.clear()
        assert (await device.install(new)).phase is Phase.COMMITTED
        assert device.serves("1.1.0")
        assert all(draft.assignment == 3 for draft in device.reports)
        device.reports.clear()
        back = await device.install(old)
        assert (back.phase, back.fetched_bytes, device.serves("1.0.0")) == (Phase.COMMITTED, 0, True)


async def test_a_release_for_later_gives_way_to_the_version_before(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    old, new = (repository.publish("digits", f"1.{number}.0", models[number]) for number in range(2))
    async with device.on():
        await device.install(old)
        await device.assign(new, activate="later")
        await device.until(lambda: bool(device.reports) and device.reports[-1].reason == "E_WAITS_FOR_SWITCH")
        device.reports.clear()
        await device.assign(old)
        assert [(await device.end()).phase for _ in range(2)] == [Phase.CANCELLED, Phase.COMMITTED]
        assert device.serves("1.0.0")
        assert slots(device)["b"] == ("empty", None)


async def test_a_first_version_that_is_called_off_never_serves_and_may_come_again(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    first = repository.publish("digits", "1.0.0", models[0])
    async with device.on():
        await device.assign(first, activate="later")
        await device.until(lambda: bool(device.reports) and device.reports[-1].reason == "E_WAITS_FOR_SWITCH")
        device.reports.clear()
        await device.assign(first, activate="never")
        await device.until(lambda: sum(it.phase.final for it in device.reports) == 2)
        ends = [it for it in device.reports if it.phase.final]
        assert [(it.assignment, it.phase, it.reason) for it in ends] == [
            (number, Phase.CANCELLED, "E_CANCELLED") for number in (1, 2)
        ]
        assert all(it.detail == "the manager called it off" for it in ends)
        assert "digits" not in device.serving.routes
        assert slots(device)["a"] == ("empty", None)
    device.marks.clear()
    device.reports.clear()
    async with device.on():  # nor after a restart
        assert "digits" not in device.serving.routes
        assert (await device.install(first)).phase is Phase.COMMITTED
        await device.assign(first, activate="never")
        ended = await device.end()
        assert (ended.phase, device.serves("1.0.0")) == (Phase.CANCELLED, True)  # what serves is not taken away


async def test_a_release_that_was_called_off_before_it_came_is_not_begun(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        first = repository.publish("digits", "1.0.0", models[0])
        await device.assign(first, activate="never")
        assert (await device.end()).phase is Phase.CANCELLED
        assert not any(name.startswith("/chunks/") for name in repository.requests)


async def test_what_was_left_by_hand_is_not_brought_again_by_the_same_rollout(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        old, new = (repository.publish("digits", f"1.{number}.0", models[number]) for number in range(2))
        await device.install(old)
        await device.install(new, rollout="ro-2")
        found = await device.driver.rollback("digits")
        assert (found.model, found.left, found.version) == ("digits", "1.1.0", "1.0.0")
        device.reports.clear()
        await device.assign(new, rollout="ro-2")
        refused = await device.end()
        assert (refused.phase, refused.reason) == (Phase.REFUSED, "E_LEFT_BY_HAND")
        assert device.serves("1.0.0")
        assert (await device.install(new, rollout="ro-3")).phase is Phase.COMMITTED
        assert device.serves("1.1.0")
        assert (await device.install(new, rollout="ro-2")).phase is Phase.COMMITTED  # it serves: nothing to bring


async def test_by_hand_nothing_is_done_without_a_reason(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        with pytest.raises(NoOtherSlotError, match="no model has arrived"):
            await device.driver.rollback()
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        with pytest.raises(NoOtherSlotError, match=r"1\.0\.0 is the only good version"):
            await device.driver.rollback()
        with pytest.raises(NoOtherSlotError, match="no model 'letters'"):
            await device.driver.rollback("letters")
        await device.install(repository.publish("digits", "2.0.0", models[1], minimum_counter=2))
        with pytest.raises(NoOtherSlotError, match=r"1\.0\.0 is older than what may serve"):
            await device.driver.rollback("digits")
        assert device.serves("2.0.0")


async def test_by_hand_nothing_is_changed_while_an_update_fills_a_slot(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    async with device.on():
        for number in range(2):
            await device.install(repository.publish("digits", f"1.{number}.0", models[number]))
        stuck = repository.publish("digits", "1.2.0", models[2])
        repository.faults.status = {f"/chunks/{next(iter(stuck.chunks))}": 503}
        await device.assign(stuck)
        await device.until(lambda: Phase.FETCHING in phases(device.reports))
        with pytest.raises(UpdateBusyError):
            await device.driver.rollback("digits")
        assert device.serves("1.1.0")


async def test_by_hand_a_trial_ends(device: Device, repository: ReleaseRepository, models: list[bytes]) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        await device.until(lambda: f"told:{State.PROBATION}" in device.marks)
        assert (await device.driver.rollback()).version == "1.0.0"
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.ROLLED_BACK, "E_BY_HAND")
        assert device.serves("1.0.0")


async def test_a_start_on_a_full_disk_serves_the_last_good_version(
    device: Device, repository: ReleaseRepository, models: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with device.on():
        await device.install(repository.publish("digits", "1.0.0", models[0]))
        await device.assign(repository.publish("digits", "1.1.0", models[1]))
        await device.until(lambda: f"told:{State.PROBATION}" in device.marks)

    write = SlotDisk.write

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SlotDisk, "write", full)
    async with device.on():
        assert device.serves("1.0.0")
        monkeypatch.setattr(SlotDisk, "write", write)
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.ROLLED_BACK, "E_DISK")


async def test_a_model_without_traffic_is_committed_at_the_limit(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    device.settings = with_settings(probation_limit_seconds=0.2)
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        assert (await device.end()).phase is Phase.COMMITTED


async def test_what_the_operator_does_not_allow_is_refused(
    device: Device, repository: ReleaseRepository, models: list[bytes]
) -> None:
    device.providers = ("CUDAExecutionProvider",)
    async with device.on():
        await device.assign(repository.publish("digits", "1.0.0", models[0]))
        last = await device.end()
        assert (last.phase, last.reason) == (Phase.REFUSED, "E_RUNTIME")
