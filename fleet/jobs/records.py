"""Devices, versions and jobs in the words of the original system, and how they map to ours.

I/O: none.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import BadInputError
from shared.identifiers import checked

_VERSION_ID: Final = re.compile(r"v([0-9]{8})_([0-9]{6})_([0-9a-f]{8})")
_VERSION: Final = re.compile(r"([0-9]{8})\.([0-9]{6})-([0-9a-f]{8})")


class UpdateStrategy(StrEnum):
    """How a version reaches its devices."""

    CANARY = "canary"
    BLUE_GREEN = "blue_green"
    ROLLING = "rolling"


class UpdatePriority(StrEnum):
    """Which work goes first; a higher one takes the place of queued work of a lower one."""

    LOW = "low"
    NORMAL = "normal"
    MEDIUM = "normal"  # another name of it
    HIGH = "high"
    CRITICAL = "critical"


class DeploymentStatus(StrEnum):
    """Where a deployment job stands."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class EdgeDevice(Record):
    """A device that was registered. Its agent enrols with `claim_token`, once."""

    device_id: str  # as it was registered
    fleet_id: str  # as the fleet knows it: lower case, hyphens
    device_name: str = ""
    ip_address: str = ""
    port: int | None = None
    hardware_info: dict[str, Any] = Field(default_factory=dict)
    claim_token: str = Field(default="", repr=False)
    manager_url: str = ""
    registered_at: datetime | None = None


class ModelVersion(Record):
    """A published version."""

    version_id: str  # v20241203_120000_abc12345
    model: str
    version: str  # as the fleet knows it
    performance_metrics: dict[str, float] = Field(default_factory=dict)
    model_digest: str = ""
    created_at: datetime | None = None


class DeploymentJob(Record):
    """One version for some devices, now."""

    job_id: str
    model_version_id: str
    target_devices: tuple[str, ...]
    deployment_type: Literal["full", "canary", "blue_green", "rolling"] = "full"
    rollout: str | None = None  # once it was executed
    created_at: datetime | None = None


def fleet_id(device_id: str) -> str:
    """`jetson_001` as `jetson-001`.

    Raises:
        BadInputError: nothing of it can be an id.
    """
    found = re.sub(r"[^a-z0-9]+", "-", device_id.lower()).strip("-")
    return checked("device id", found or device_id)


def model_name(file: str) -> str:
    """The name under which a file's versions are kept: `YOLO v8.onnx` as `yolo-v8`."""
    stem = file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return checked("model name", re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or stem)


def version_id(moment: datetime, digest: str) -> str:
    """`v20241203_120000_abc12345`: when it was registered, and what it is."""
    return f"v{moment:%Y%m%d_%H%M%S}_{digest[:8]}"


def to_version(version_id: str) -> str:
    """`v20241203_120000_abc12345` as `20241203.120000-abc12345`; a version of ours stays.

    Raises:
        BadInputError: neither.
    """
    found = _VERSION_ID.fullmatch(version_id)
    return checked("version", f"{found[1]}.{found[2]}-{found[3]}" if found else version_id)


def from_version(version: str) -> str:
    """The way back."""
    found = _VERSION.fullmatch(version)
    return f"v{found[1]}_{found[2]}_{found[3]}" if found else version


def device_of(info: Mapping[str, Any]) -> EdgeDevice:
    """What `register_edge_device` was told.

    Raises:
        BadInputError: no `device_id`, or values of another kind.
    """
    said = info.get("device_id")
    if not isinstance(said, str) or not said:
        raise BadInputError("device_info has no device_id", remedy='{"device_id": "jetson-001", "device_name": ...}')
    try:
        return EdgeDevice.model_validate({**info, "fleet_id": fleet_id(said)})
    except ValueError as error:
        raise BadInputError(f"device_info of {said}: {error}") from None


def labels_of(device: EdgeDevice) -> dict[str, str]:
    """What is told of it, as labels of the fleet."""
    told = {"ip_address": device.ip_address, "port": device.port, **device.hardware_info}
    return {
        re.sub(r"[^A-Za-z0-9_.-]", "_", key)[:63]: str(value)[:128]
        for key, value in told.items()
        if value not in (None, "") and key
    }


#: Deployment type -> fields of `POST /rollouts`.
ROLLOUT_OF: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {"strategy": "canary", "waves": ["100%"], "bake_seconds": 0},
    "canary": {"strategy": "canary"},
    "blue_green": {"strategy": "blue-green"},
    "rolling": {"strategy": "rolling"},
}
#: State of a schedule, in the words of the original system.
SCHEDULE_STATUS: Final[Mapping[str, str]] = {
    "waiting": "scheduled",
    "queued": "queued",
    "running": "in_progress",
    "paused": "paused",
    "completed": "completed",
    "failed": "failed",
    "missed": "failed",
    "cancelled": "cancelled",
}


def job_status(rollout: Mapping[str, Any] | None) -> DeploymentStatus:
    """Where a job stands whose rollout is this."""
    match rollout and rollout["state"]:
        case None:
            return DeploymentStatus.PENDING
        case "completed":
            counts = rollout["counts"] if rollout else {}
            good = counts.get("committed") == counts.get("total")
            return DeploymentStatus.COMPLETED if good else DeploymentStatus.FAILED
        case "rolled-back":
            return DeploymentStatus.ROLLED_BACK
        case "aborted" | "failed":
            return DeploymentStatus.FAILED
        case _:
            return DeploymentStatus.IN_PROGRESS


def chosen(kind: Any, said: Any) -> Any:
    """The member of the enumeration `kind` that `said` is or names.

    Raises:
        BadInputError: it names none.
    """
    try:
        return kind(said)
    except ValueError:
        raise BadInputError(
            f"{said!r} is no {kind.__name__}", remedy=f"use one of {', '.join(it.value for it in kind)}"
        ) from None
