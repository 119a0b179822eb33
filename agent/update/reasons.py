"""Why a device says no: leaves of the error tree, each with the code that reports carry.

Codes without an exception of their own (verdicts of the self-test and of probation) are constants
beside the table that says which of them prove a release bad for good.

I/O: none.
"""

import errno
from typing import Final

from shared.errors import BrokenError, RefusedError, UnavailableError

#: So often an effect may fail on the disk.
DISK_TRIES: Final = 5


class ForgedError(RefusedError):
    """A signature is missing, does not fit, or was made by a key that nobody vouched for."""

    code = "E_SIGNATURE"
    default_remedy = "announce the release again from the manager that enrolled this device"


class ReplayedError(RefusedError):
    """Older than something that this device has already verified."""

    code = "E_REPLAYED"
    default_remedy = "start a new rollout: assignments are numbered and never go back"


class WrongDeviceError(RefusedError):
    """A genuine assignment, but for another device."""

    code = "E_WRONG_DEVICE"
    default_remedy = "look for whoever re-sends other devices' messages on the broker"


class ExpiredError(RefusedError):
    """Genuine once; its time is over."""

    code = "E_EXPIRED"
    default_remedy = "check the clocks of device and manager, then announce again"


class MetadataError(RefusedError):
    """Signed documents that contradict each other or themselves."""

    code = "E_TRUST"
    default_remedy = "run `flotilla model verify` on the manager"


class NotReleasedError(RefusedError):
    """The director assigns it, but no release key vouches for exactly this."""

    code = "E_NOT_RELEASED"
    default_remedy = "publish the release with `flotilla model publish`"


class ManifestError(RefusedError):
    """The manifest does not say what the signed documents say about it."""

    code = "E_MANIFEST"
    default_remedy = "publish the release again under a new version"


class CounterError(RefusedError):
    """Going back further than a release key allowed."""

    code = "E_COUNTER"
    default_remedy = "publish a newer release, or one signed with a lower --minimum-counter"


class HardwareError(RefusedError):
    """The release is not meant for this class of hardware."""

    code = "E_HARDWARE"
    default_remedy = "aim the rollout at devices whose hardware the release names"


class RuntimeFitError(RefusedError):
    """This device has no runtime that the release accepts."""

    code = "E_RUNTIME"
    default_remedy = "install the runtime or provider that the release names"


class DiskSpaceError(RefusedError):
    """The release does not fit on the disk beside the one that serves."""

    code = "E_DISK_SPACE"
    default_remedy = "free disk space on the device, then announce again"


class DiskError(RefusedError):
    """The disk failed again and again while the release was installed."""

    code = "E_DISK"
    default_remedy = "check the device's disk (`flotilla-agent doctor`)"


class KnownBadError(RefusedError):
    """This release has already failed on this device."""

    code = "E_KNOWN_BAD"
    default_remedy = "publish a repaired version; to try again anyway, start the rollout with force"


class DamagedSlotError(RefusedError):
    """A slot's files are not the ones that were installed."""

    code = "E_SLOT_DAMAGED"
    default_remedy = "assign the release again: the device fetches it anew"


class NoOtherSlotError(RefusedError):
    """There is no second good version to go back to."""

    code = "E_ROLLBACK"
    default_remedy = "see `flotilla-agent slots`; assign an older release from the manager instead"


class UpdateBusyError(RefusedError):
    """An update is at a point where its slots must not be changed by hand."""

    code = "E_UPDATE_BUSY"
    default_remedy = "wait until `flotilla-agent status` shows no update at work, then repeat the command"


class LeftByHandError(RefusedError):
    """A person took this release back on the device, and the same rollout wants it again."""

    code = "E_LEFT_BY_HAND"
    default_remedy = "ask whoever took it back; a new rollout of the version, or one with force, installs it"


class SafeModeError(RefusedError):
    """No version of a model can serve on this device."""

    code = "E_SAFE_MODE"
    default_remedy = "assign another release of the model; `flotilla-agent slots` shows what is wrong with each"


class NoMemoryError(RefusedError):
    """A version needs more memory than the device can give, even when the one that serves is ended first."""

    code = "E_MEMORY"
    default_remedy = "free memory on the device, lower update.memory_margin_bytes, or publish a smaller model"


class ConditionsError(RefusedError):
    """The device stayed too hot, or short of power, for an update."""

    code = "E_CONDITIONS"
    default_remedy = "cool or power the device; update.after_defer: go-on installs nevertheless"


class BundleRefusedError(RefusedError):
    """A genuine bundle whose assignment cannot be followed; the text has the code."""

    code = "E_BUNDLE_REFUSED"
    default_remedy = "do what the code in the text asks for, and export a new bundle"


class SourceUnavailableError(UnavailableError):
    """The manager cannot be reached or does not have it yet."""

    code = "E_SOURCE_UNAVAILABLE"
    default_remedy = "the device tries again by itself; check the network and the manager"


class CaptivePortalError(SourceUnavailableError):
    """A web page answers in the place of the source: the network wants somebody to sign in."""

    code = "E_CAPTIVE_PORTAL"
    default_remedy = "sign in to the network, or use another one; the device goes on by itself"


class CertificateError(SourceUnavailableError):
    """The source's TLS certificate has expired, is not valid yet, or proves nothing."""

    code = "E_CERTIFICATE"
    default_remedy = "renew the certificate of the server; check the device's clock and its certificate authorities"


class NotThereError(SourceUnavailableError):
    """The manager has nothing of this name, or gives nothing through the broker."""

    code = "E_NOT_THROUGH_BROKER"
    default_remedy = "set mqtt.chunks: on in fleet.yaml, or give the device a way to the manager's HTTP"


class JournalBusyError(UnavailableError):
    """The journal cannot be written now: the disk is full or the file is locked."""

    code = "E_JOURNAL_BUSY"
    default_remedy = "free disk space on the device"


class DamagedJournalError(BrokenError):
    """The journal or the slot record cannot be read."""

    code = "E_JOURNAL"
    default_remedy = "move the state folder away and enrol the device again"


CHUNK_DAMAGED: Final = "E_CHUNK_DAMAGED"
GOLDEN_MISMATCH: Final = "E_GOLDEN_MISMATCH"
NOT_FINITE: Final = "E_NOT_FINITE"
SELF_TEST_TIMEOUT: Final = "E_SELF_TEST_TIMEOUT"
SELF_TEST_LATENCY: Final = "E_SELF_TEST_LATENCY"
ENGINES: Final = "E_ENGINES"  # are being made, or the provider made none
ENGINE_TIMEOUT: Final = "E_ENGINE_TIMEOUT"
STAND_IN: Final = "E_CPU_FALLBACK"
LOAD: Final = "E_LOAD"
SHADOW_DISAGREES: Final = "E_SHADOW_DISAGREES"
SHADOW_SLOW: Final = "E_SHADOW_SLOW"
SHADOW_ERRORS: Final = "E_SHADOW_ERRORS"
SHADOW_CRASH: Final = "E_SHADOW_CRASH"
SHADOW_FEW: Final = "E_SHADOW_FEW"
PROBATION_ERRORS: Final = "E_PROBATION_ERRORS"
PROBATION_LATENCY: Final = "E_PROBATION_LATENCY"
PROBATION_ACCURACY: Final = "E_PROBATION_ACCURACY"
PROBATION_CRASH: Final = "E_PROBATION_CRASH"
PROBATION_OUTPUT: Final = "E_PROBATION_OUTPUT"
WINDOW: Final = "E_WINDOW"  # not open now: the update waits
CANCELLED: Final = "E_CANCELLED"
WAITS_FOR_SWITCH: Final = "E_WAITS_FOR_SWITCH"  # staged and tested; another assignment says when to swap
BY_HAND: Final = "E_BY_HAND"
CRASH_LOOP: Final = "E_CRASH_LOOP"  # of a version that was committed
RECORD: Final = "E_SLOT_RECORD"  # the slot record was damaged and is made anew from what the slots hold

#: The bytes of the release are at fault, on this device: never try them again.
PROVEN_BAD: Final = frozenset(
    {
        "E_ONNX",
        "E_SHAPE",
        GOLDEN_MISMATCH,
        NOT_FINITE,
        LOAD,
        PROBATION_ERRORS,
        PROBATION_LATENCY,
        PROBATION_ACCURACY,
        PROBATION_CRASH,
        PROBATION_OUTPUT,
    }
)


def of_disk(error: OSError, tries: int) -> RefusedError | None:
    """What an effect that failed so often on the disk ends with; None: it is tried again."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskSpaceError(str(error))
    return DiskError(str(error)) if tries >= DISK_TRIES else None
