"""Documents of the manager as the dictionaries that callers of the original system expect.

I/O: none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fleet.jobs.records import SCHEDULE_STATUS, DeploymentJob, EdgeDevice, fleet_id, from_version, job_status

Document = Mapping[str, Any]
_GRAVITY: Final = ("drifted", "warning", "ok", "collecting")


def device_status(device_id: str, registered: EdgeDevice | None, joined: Document | None) -> dict[str, Any]:
    """Where a device stands, from its registration and from what the fleet knows."""
    told = registered or EdgeDevice(device_id=device_id, fleet_id=fleet_id(device_id))
    found: dict[str, Any] = {
        "device_id": told.device_id,
        "device_name": told.device_name,
        "ip_address": told.ip_address,
        "port": told.port,
        "hardware_info": told.hardware_info,
        "status": "registered",
        "current_version": None,
        "serving": {},
        "last_seen": None,
        "agent_version": None,
    }
    if joined is None:
        return found
    versions = [from_version(version) for version in joined["serving"].values()]
    return found | {
        "device_name": joined["name"],
        "status": joined["link"] if joined["lifecycle"] == "active" else joined["lifecycle"],
        "current_version": versions[0] if len(versions) == 1 else None,
        "serving": {model: from_version(version) for model, version in joined["serving"].items()},
        "last_seen": joined["seen_at"],
        "agent_version": joined["agent_version"],
        "hardware_info": told.hardware_info or {"class": joined["hardware"]},
    }


def performance(device_id: str, windows: Sequence[Document], verdicts: Sequence[Document]) -> dict[str, Any]:
    """The newest window of each model taken together; times in ms, ratios 0 to 1."""
    newest = {window["model"]: window for window in reversed(windows)}
    taken = list(newest.values())
    requests, failed = sum(it["requests"] for it in taken), sum(it["failed"] for it in taken)
    seconds = sum(_seconds(it["start"], it["end"]) for it in taken) / max(len(taken), 1)
    host = max(taken, key=lambda it: it["end"])["host"] if taken else {}
    used, total = host.get("memory_used_bytes"), host.get("memory_total_bytes")
    return {
        "device_id": device_id,
        "timestamp": max((it["end"] for it in taken), default=None),
        "inference_time_ms": _largest(taken, "p50_ms"),
        "inference_time_p95_ms": _largest(taken, "p95_ms"),
        "throughput": requests / seconds if seconds else None,
        "requests": requests,
        "error_rate": failed / requests if requests else None,
        "cpu_usage": host.get("cpu_ratio"),
        "memory_usage": used / total if used is not None and total else None,
        "gpu_usage": host.get("gpu_ratio"),
        "temperature_celsius": host.get("temperature_celsius"),
        "drift": _worst(verdicts),
    }


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _largest(windows: Sequence[Document], key: str) -> float | None:
    return max((it[key] for it in windows if it[key] is not None), default=None)


def _worst(verdicts: Sequence[Document]) -> str:
    states = {it["state"] for it in verdicts}
    return next((state for state in _GRAVITY if state in states), "no data")


def deployment(job: DeploymentJob, rollout: Document | None) -> dict[str, Any]:
    """Where a job stands."""
    ids = {fleet_id(device): device for device in job.target_devices}
    devices = {
        ids.get(it["device"], it["device"]): {"status": it["state"], "reason": it["reason"], "detail": it["detail"]}
        for it in (rollout["deployments"] if rollout else ())
    }
    counts = rollout["counts"] if rollout else {}
    over = counts.get("committed", 0) + counts.get("failed", 0) + counts.get("rolled_back", 0)
    return {
        "job_id": job.job_id,
        "status": job_status(rollout).value,
        "model_version_id": job.model_version_id,
        "deployment_type": job.deployment_type,
        "target_devices": list(job.target_devices),
        "devices": devices,
        "progress": over / counts["total"] if counts.get("total") else 0.0,
        "reason": rollout["reason"] if rollout else None,
        "rollout": job.rollout,
    }


def drift(
    device_id: str, days: float, verdicts: Sequence[Document], alerts: Sequence[Document], since: datetime
) -> dict[str, Any]:
    """Drift of a device now, and its alerts since `since`."""
    recent = [it for it in alerts if it["kind"] == "drift" and datetime.fromisoformat(it["opened_at"]) >= since]
    severities: dict[str, int] = {}
    for alert in recent:
        severities[alert["severity"]] = severities.get(alert["severity"], 0) + 1
    return {
        "device_id": device_id,
        "days": days,
        "state": _worst(verdicts),
        "drift_detected": any(it["state"] == "drifted" for it in verdicts),
        "features": {
            f"{it['model']}/{it['feature']}": {key: it.get(key) for key in ("state", "psi", "samples", "severity")}
            for it in verdicts
        },
        "total_alerts": len(recent),
        "alerts_by_severity": severities,
        "alerts": list(recent),
    }


def update(schedule: Document, rollout: Document | None) -> dict[str, Any]:
    """Where a schedule stands."""
    return {
        "schedule_id": schedule["id"],
        "status": SCHEDULE_STATUS[schedule["state"]],
        "model_version_id": from_version(schedule["version"]),
        "strategy": str(schedule["strategy"] or "").replace("-", "_"),
        "priority": schedule["priority"],
        "scheduled_time": schedule["due"],
        "reason": schedule["reason"],
        "rollout": schedule["rollout"],
        "devices": {it["device"]: it["state"] for it in rollout["deployments"]} if rollout else {},
    }
