"""What fits this device, and what has to be fetched for it."""

from dataclasses import replace

import pytest

from agent.update import admission, plan, reasons, slots
from agent.update.admission import Facts
from agent.update.lifecycle import Update
from agent.update.slots import Record, Slot, State
from tests.simulators.release_repository import Release, ReleaseRepository

FACTS = Facts(
    hardware="orin-nano-8g",
    providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
    allowed=None,
    free_bytes=1000,
    keep_free_bytes=100,
    missing_bytes=400,
    plain_bytes=500,
    counter_floor=0,
    known_bad=None,
)


@pytest.fixture(scope="module")
def release(models: list[bytes]) -> Release:
    return ReleaseRepository().publish("digits", "1.0.0", models[0], counter=5, hardware=("orin-*", "x86_64"))


@pytest.fixture
def update(release: Release) -> Update:
    return Update(assignment=1, model="digits", version="1.0.0", manifest=release.digest, sealed_key="")


def test_what_fits_is_admitted(update: Update, release: Release) -> None:
    assert admission.admit(update, release.manifest, FACTS) == ("CPUExecutionProvider",)


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        (replace(FACTS, hardware="rpi-5"), reasons.HardwareError),
        (replace(FACTS, providers=None), reasons.RuntimeFitError),
        (replace(FACTS, providers=("CUDAExecutionProvider",)), reasons.RuntimeFitError),
        (replace(FACTS, allowed=("CUDAExecutionProvider",)), reasons.RuntimeFitError),
        (replace(FACTS, free_bytes=999), reasons.DiskSpaceError),
        (replace(FACTS, counter_floor=6), reasons.CounterError),
        (replace(FACTS, known_bad=("E_LOAD", "no")), reasons.KnownBadError),
    ],
)
def test_what_does_not_fit_has_a_reason(update: Update, release: Release, facts: Facts, error: type[Exception]) -> None:
    with pytest.raises(error):
        admission.admit(update, release.manifest, facts)


def test_a_counter_at_the_floor_is_admitted(update: Update, release: Release) -> None:
    assert admission.admit(update, release.manifest, replace(FACTS, counter_floor=5))


def test_force_tries_a_known_bad_release_again(update: Update, release: Release) -> None:
    known = replace(FACTS, known_bad=("E_LOAD", "no"))
    assert admission.admit(replace(update, force=True), release.manifest, known)


def test_a_manifest_of_another_release_is_refused(update: Update, release: Release) -> None:
    with pytest.raises(reasons.ManifestError):
        admission.admit(replace(update, version="2.0.0"), release.manifest, FACTS)


def test_a_newer_onnx_form_is_refused(update: Update, release: Release) -> None:
    runtime = release.manifest.runtime.model_copy(update={"ir_version": 99})
    with pytest.raises(reasons.RuntimeFitError):
        admission.admit(update, release.manifest.model_copy(update={"runtime": runtime}), FACTS)


def test_a_full_disk_does_not_stop_what_needs_no_room(update: Update, release: Release) -> None:
    full = replace(FACTS, free_bytes=0, missing_bytes=0, plain_bytes=0)
    assert admission.admit(update, release.manifest, full)


def test_an_empty_device_fetches_everything_the_model_first(release: Release) -> None:
    found = plan.plan(release.manifest, release.digest, Record("digits"), lambda _: False)
    assert (found.slot, found.serves, found.held) == ("a", False, False)
    assert found.missing_bytes == found.total_bytes == release.manifest.sealed_bytes
    model = release.manifest.artifacts["model"].chunks
    assert found.fetch[: len(model)] == model


def test_chunks_in_the_store_are_not_fetched(release: Release) -> None:
    kept = release.manifest.artifacts["model"].chunks[0]
    found = plan.plan(release.manifest, release.digest, Record("digits"), lambda chunk: chunk == kept)
    assert kept not in found.fetch
    assert found.missing_bytes == found.total_bytes - kept.size_bytes


def test_what_serves_or_lies_good_in_the_idle_slot_needs_nothing(release: Release) -> None:
    here = Slot(State.GOOD, "1.0.0", release.digest, 5)
    serving = Record("digits", a=here, active="a", last_good="a")
    assert plan.plan(release.manifest, release.digest, serving, lambda _: False).serves
    held = Record("digits", a=here, b=Slot(State.GOOD, "1.1.0", "0" * 64, 6), active="b", last_good="b")
    found = plan.plan(release.manifest, release.digest, held, lambda _: False)
    assert (found.held, found.slot, found.fetch) == (True, "a", ())


def test_what_is_only_staged_is_fetched_anew(release: Release) -> None:
    staged = slots.staged(Record("digits"), "a", version="1.0.0", manifest=release.digest, counter=5)
    assert plan.plan(release.manifest, release.digest, staged, lambda _: False).fetch
