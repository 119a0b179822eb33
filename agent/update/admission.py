"""Does this release fit this device? Decided before anything is fetched.

I/O: none.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from agent.serving.providers import candidates
from agent.update import reasons
from agent.update.lifecycle import Update
from shared.errors import RefusedError
from shared.manifest import Manifest

MAX_IR_VERSION: Final = 14  # newest ONNX form that is known to us; the self-test has the last word


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the device at this moment."""

    hardware: str  # hardware class
    providers: tuple[str, ...] | None  # of the installed runtime; None when there is no runtime
    allowed: tuple[str, ...] | None  # providers the operator wants, best first; None: those of the release
    free_bytes: int  # on the disk, counting what clearing the idle slot gives back
    keep_free_bytes: int
    missing_bytes: int  # chunks still to be fetched
    plain_bytes: int  # files still to be written
    counter_floor: int  # no release counter below this
    known_bad: tuple[str, str] | None  # code and detail of an earlier failure of this release here
    taken_back: bool = False  # by a person on this device, after the same rollout had brought it
    cpu_fallback: bool = False  # the CPU may stand in for the release's accelerators


def admit(update: Update, manifest: Manifest, facts: Facts) -> tuple[str, ...]:
    """The providers to run the release with, best first.

    Raises:
        ManifestError, KnownBadError, LeftByHandError, CounterError, HardwareError, RuntimeFitError, DiskSpaceError:
            it does not fit.
    """
    for refusal in (
        _named_right(update, manifest),
        _not_known_bad(update, facts),
        _not_taken_back(update, facts),
        _not_too_old(manifest, facts),
        _fits_hardware(manifest, facts),
        _fits_disk(facts),
    ):
        if refusal is not None:
            raise refusal
    return providers(manifest, installed=facts.providers, allowed=facts.allowed, cpu_fallback=facts.cpu_fallback)


def providers(
    manifest: Manifest,
    *,
    installed: Collection[str] | None,
    allowed: Sequence[str] | None,
    cpu_fallback: bool = False,
) -> tuple[str, ...]:
    """Providers that release, operator and runtime all accept, best first; last the CPU where it may stand in.

    Raises:
        RuntimeFitError: there is none, or the model's form is too new.
    """
    if installed is None:
        raise reasons.RuntimeFitError("no onnxruntime on this device", remedy="install onnxruntime for the agent")
    if manifest.runtime.ir_version > MAX_IR_VERSION:
        raise reasons.RuntimeFitError(
            f"ONNX form {manifest.runtime.ir_version} is newer than {MAX_IR_VERSION}", remedy="update the agent"
        )
    wanted = manifest.runtime.providers
    fit = candidates(wanted, allowed=allowed, cpu_fallback=cpu_fallback)
    fit = tuple(name for name in fit if name in installed)
    if not fit:
        raise reasons.RuntimeFitError(
            f"the release accepts {', '.join(wanted)}; this device allows {', '.join(allowed or ()) or 'any'} "
            f"and has {', '.join(installed) or 'none'}"
        )
    return fit


def _named_right(update: Update, manifest: Manifest) -> RefusedError | None:
    if (manifest.model, manifest.version) == (update.model, update.version):
        return None
    return reasons.ManifestError(f"the manifest is of {manifest.model}@{manifest.version}, not of {update.release}")


def _not_known_bad(update: Update, facts: Facts) -> RefusedError | None:
    if facts.known_bad is None or update.force:
        return None
    code, detail = facts.known_bad
    return reasons.KnownBadError(f"{update.release} failed here before: {code}: {detail}")


def _not_taken_back(update: Update, facts: Facts) -> RefusedError | None:
    if not facts.taken_back or update.force:
        return None
    return reasons.LeftByHandError(f"{update.release} was taken back by hand on this device")


def _not_too_old(manifest: Manifest, facts: Facts) -> RefusedError | None:
    if manifest.counter >= facts.counter_floor:
        return None
    return reasons.CounterError(f"release counter {manifest.counter} is below {facts.counter_floor}")


def _fits_hardware(manifest: Manifest, facts: Facts) -> RefusedError | None:
    if any(fnmatchcase(facts.hardware, pattern) for pattern in manifest.runtime.hardware):
        return None
    return reasons.HardwareError(f"made for {', '.join(manifest.runtime.hardware)}; this is {facts.hardware}")


def _fits_disk(facts: Facts) -> RefusedError | None:
    needed = facts.missing_bytes + facts.plain_bytes + facts.keep_free_bytes
    if facts.missing_bytes + facts.plain_bytes == 0 or facts.free_bytes >= needed:
        return None
    return reasons.DiskSpaceError(f"{needed} bytes needed, {facts.free_bytes} free")
