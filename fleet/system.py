"""The three components of the original system, on an embedded manager and real agents.

    EdgeModelDeploymentSystem   devices, versions, deployment jobs
    ModelDriftDetector          drift of a device, its alerts
    AutomatedUpdateScheduler    updates for later

All take the same configuration (a YAML file, a mapping, or nothing); those with the same `deployment.base_dir` share
one manager, which ends when the last of them is shut down or stopped. A device joins when its agent enrols with the
claim token of `register_edge_device`, which is also in `base_dir/claims/ID.token`.

I/O: disk, tasks, clock, chance.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from fleet.client import AsyncFleet, ProblemError, WaitError
from fleet.jobs import records, summaries
from fleet.jobs.book import NotRegisteredError
from fleet.jobs.lease import Config
from fleet.jobs.part import NOT_FOUND, Part
from fleet.jobs.records import (
    DeploymentJob,
    DeploymentStatus,
    EdgeDevice,
    ModelVersion,
    UpdatePriority,
    UpdateStrategy,
)
from fleet.rest.calls import post
from shared.errors import BadInputError
from shared.identifiers import sha256

__all__ = [
    "AutomatedUpdateScheduler",
    "DeploymentJob",
    "DeploymentStatus",
    "EdgeDevice",
    "EdgeModelDeploymentSystem",
    "ModelDriftDetector",
    "ModelVersion",
    "UpdatePriority",
    "UpdateStrategy",
]

logger = logging.getLogger(__name__)

_CONFLICT: Final = 409


class EdgeModelDeploymentSystem(Part):
    """Devices, versions, and jobs that bring versions to devices."""

    def __init__(self, config: "Config | Part" = None) -> None:
        super().__init__(config)
        self._monitoring: asyncio.Task[None] | None = None

    async def register_edge_device(self, device_info: Mapping[str, Any]) -> EdgeDevice:
        """Make a device known. Keys: `device_id`, and if you like `device_name`, `ip_address`, `port`, `hardware_info`.

        Registering it again changes what is told of it; a claim token that was not used stays valid.

        Raises:
            BadInputError: no `device_id`, or one that the fleet would spell like another one.
        """
        device = records.device_of(device_info)
        fleet = await self._fleet()
        known = self._lease.book.device(device.device_id)
        joined = await self._device(fleet, device.device_id)
        token = known.claim_token if known else ""
        if joined is not None:
            await fleet.devices.change(
                device.fleet_id, name=device.device_name or None, labels=records.labels_of(device)
            )
        elif not token:
            token = (await fleet.invites.create(labels=records.labels_of(device)))["token"]
        kept = {"claim_token": token, "manager_url": fleet.url, "registered_at": datetime.now(UTC)}
        device = device.model_copy(update=kept)
        self._lease.book.add_device(device)
        return device

    async def get_device_status(self, device_id: str) -> dict[str, Any]:
        """Where a device stands: `status` is registered (its agent has not come yet), pending, online, late, offline,
        or revoked.

        Raises:
            NotRegisteredError: nobody knows it.
        """
        fleet = await self._fleet()
        registered, joined = self._lease.book.device(device_id), await self._device(fleet, device_id)
        if registered is None and joined is None:
            raise NotRegisteredError(f"no device is called {device_id!r}")
        return summaries.device_status(device_id, registered, joined)

    async def get_device_performance_metrics(self, device: EdgeDevice | str) -> dict[str, Any]:
        """The newest telemetry of a device; values are None before its first window.

        Raises:
            NotRegisteredError: nobody knows it.
        """
        device_id = device if isinstance(device, str) else device.device_id
        fleet = await self._fleet()
        if await self._device(fleet, device_id) is None:
            if self._lease.book.device(device_id) is None:
                raise NotRegisteredError(f"no device is called {device_id!r}")
            return summaries.performance(device_id, [], [])
        name = records.fleet_id(device_id)
        windows = await fleet.devices.metrics(name, limit=20)
        drift = await fleet.drift.list(scope=f"device:{name}")
        return summaries.performance(device_id, windows["items"], drift)

    async def register_model_version(
        self,
        model_path: Path | str,
        performance_metrics: Mapping[str, float] | None = None,
        *,
        model_name: str | None = None,
        reference: Path | str | None = None,
        notes: str = "",
    ) -> ModelVersion:
        """Check, encrypt, sign and publish an ONNX file, with what its makers measured.

        `reference` is an .npz of typical rows; default: the file of that ending beside the model, if there is one.
        Without it drift of this version cannot be seen. `model_name`: default, the file's name.

        Raises:
            FlotillaError: many leaves; each says what to do.
        """
        fleet = await self._fleet()
        path = Path(model_path)
        beside = path.with_suffix(".npz")
        chosen = reference if reference is not None else beside if beside.exists() else None
        now = datetime.now(UTC)
        try:
            digest = sha256(await asyncio.to_thread(path.read_bytes))
        except OSError as error:
            raise BadInputError(f"cannot read {path}: {error.strerror}", remedy="check model_path") from None
        made = records.version_id(now, digest)
        name, version = model_name or records.model_name(path.name), records.to_version(made)
        metrics = {key: float(value) for key, value in (performance_metrics or {}).items()}
        found = await fleet.publish(name, version, path, reference=chosen, metrics=metrics, notes=notes)
        return ModelVersion(
            version_id=made,
            model=name,
            version=version,
            performance_metrics=found["metrics"],
            model_digest=found["model_digest"],
            created_at=now,
        )

    async def cleanup_old_versions(self) -> list[str]:
        """Remove versions that are old and that nothing needs (`versioning`); their version ids."""
        fleet = await self._fleet()
        found = await fleet.models.clean_up()
        return [records.from_version(it["version"]) for it in found["items"] if it["goes"]]

    async def create_deployment_job(
        self, model_version_id: str, target_devices: Sequence[str], deployment_type: str = "full"
    ) -> DeploymentJob:
        """Plan one version for some devices; nothing happens before `execute_deployment_job`.

        `deployment_type`: full (all at once, within `max_concurrent_deployments`), canary, blue_green, rolling.

        Raises:
            NotRegisteredError, BadInputError: an unknown device, version or type, or no device.
        """
        if deployment_type not in records.ROLLOUT_OF:
            raise BadInputError(
                f"there is no deployment type {deployment_type!r}", remedy=f"use one of {', '.join(records.ROLLOUT_OF)}"
            )
        if isinstance(target_devices, str) or not target_devices:
            raise BadInputError("target_devices names no device", remedy="give a list of device ids")
        fleet = await self._fleet()
        await self._find_version(fleet, model_version_id)
        for device_id in target_devices:
            if self._lease.book.device(device_id) is None and await self._device(fleet, device_id) is None:
                raise NotRegisteredError(f"no device is called {device_id!r}")
        job = DeploymentJob.model_validate(
            {
                "job_id": f"job-{token_hex(6)}",
                "model_version_id": model_version_id,
                "target_devices": tuple(target_devices),
                "deployment_type": deployment_type,
                "created_at": datetime.now(UTC),
            }
        )
        self._lease.book.add_job(job)
        return job

    async def execute_deployment_job(self, job_id: str) -> bool:
        """Bring the version to the devices and wait for the end: True when each of them serves it.

        Waits up to `deployment_timeout_minutes` for devices whose agent has not come yet. Executing a job again tells
        what became of it.

        Raises:
            JobNotFoundError: no such job.
        """
        fleet, job = await self._fleet(), self._lease.book.job(job_id)
        model, version = await self._find_version(fleet, job.model_version_id)
        if job.rollout is None:
            timeout = self._lease.settings.deployment.deployment_timeout_minutes * 60
            try:
                await asyncio.gather(*(self._joined(fleet, device, timeout) for device in job.target_devices))
            except WaitError as error:
                logger.warning("job fails job=%s detail=%s", job_id, error.detail)
                return False
            rollout = await self._started(fleet, job, model, version)
            if rollout is None:
                return True
            job = job.model_copy(update={"rollout": rollout})
            self._lease.book.add_job(job)
        ended = await fleet.rollouts.wait(str(job.rollout))
        return records.job_status(ended) is DeploymentStatus.COMPLETED

    async def _started(self, fleet: AsyncFleet, job: DeploymentJob, model: str, version: str) -> str | None:
        """The rollout of the job; None when its devices serve the version already."""
        target = [records.fleet_id(device) for device in job.target_devices]
        options = records.ROLLOUT_OF[job.deployment_type]
        serving = [await fleet.devices.get(device) for device in target]
        if all(it["serving"].get(model) == version for it in serving):
            return None
        started = await fleet.rollouts.start(model, version, target=target, key=job.job_id, **options)
        return str(started["id"])

    async def _joined(self, fleet: AsyncFleet, device_id: str, timeout_seconds: float) -> None:
        """Return once the device is in, with the name that it was registered under."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        registered = self._lease.book.device(device_id)
        first = True
        while (found := await self._device(fleet, device_id)) is None or found["lifecycle"] != "active":
            if first:
                logger.info("waiting for the agent of %s to enrol", device_id)
            first = False
            if loop.time() >= deadline:
                raise WaitError(f"the agent of {device_id} did not enrol within {timeout_seconds:g} s")
            await asyncio.sleep(0.5)
        if registered is not None and registered.device_name and found["name"] == found["id"]:
            await fleet.devices.change(found["id"], name=registered.device_name)

    async def get_deployment_status(self, job_id: str) -> dict[str, Any]:
        """Where a job stands: `status`, `progress` (0 to 1), each device's state and reason.

        Raises:
            JobNotFoundError: no such job.
        """
        fleet, job = await self._fleet(), self._lease.book.job(job_id)
        rollout = await fleet.rollouts.get(job.rollout) if job.rollout else None
        return summaries.deployment(job, rollout)

    async def start_performance_monitoring(self) -> None:
        """Write each device's metrics to the log every `performance_monitoring_interval_minutes`, until `shutdown`.

        The manager itself watches all the time: its alerts do not depend on this.
        """
        await self._fleet()
        if self._monitoring is None or self._monitoring.done():
            self._monitoring = asyncio.create_task(self._monitor(), name="performance-monitoring")

    async def _monitor(self) -> None:
        every = self._lease.settings.deployment.performance_monitoring_interval_minutes * 60
        while True:
            fleet = await self._fleet()
            for device in await fleet.devices.list():
                found = await self.get_device_performance_metrics(device["id"])
                logger.info("performance %s", " ".join(f"{key}={value}" for key, value in found.items()))
            await asyncio.sleep(every)

    async def start_automated_update_scheduler(self) -> None:
        """Let schedules of this folder run, until `shutdown`."""
        await self._fleet()

    async def shutdown(self) -> None:
        """End what was started. Everything is remembered; devices go on by themselves."""
        if self._monitoring is not None:
            self._monitoring.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._monitoring
            self._monitoring = None
        await self._lease.release()


class ModelDriftDetector(Part):
    """How live data differs from the reference data of what devices serve."""

    async def start_drift_monitoring(self) -> None:
        """Take telemetry and compare, until `stop_drift_monitoring`."""
        await self._fleet()

    async def stop_drift_monitoring(self) -> None:
        """End it. What devices measure meanwhile waits on them."""
        await self._lease.release()

    async def get_drift_summary(self, device_id: str, days: float = 7) -> dict[str, Any]:
        """Drift of a device: `state` (no data, collecting, ok, warning, drifted), features, alerts of the last `days`.

        Raises:
            NotRegisteredError: nobody knows the device.
            BadInputError: `days` is not positive.
        """
        if not days > 0:
            raise BadInputError(f"{days} days make no summary", remedy="days=7")
        fleet = await self._fleet()
        if self._lease.book.device(device_id) is None and await self._device(fleet, device_id) is None:
            raise NotRegisteredError(f"no device is called {device_id!r}")
        scope = f"device:{records.fleet_id(device_id)}"
        verdicts = await fleet.drift.list(scope=scope)
        alerts = await fleet.alerts.list(state="all", scope=scope)
        since = datetime.now(UTC) - timedelta(days=days)
        return summaries.drift(device_id, days, verdicts, alerts, since)

    async def acknowledge_alert(self, alert_id: str) -> bool:
        """True when the alert is acknowledged; False when there is none of this id, or it is over."""
        fleet = await self._fleet()
        try:
            await fleet.alerts.acknowledge(alert_id)
        except ProblemError as error:
            if error.status in (NOT_FOUND, _CONFLICT):
                return False
            raise
        return True


class AutomatedUpdateScheduler(Part):
    """Updates for later."""

    async def start_scheduler(self) -> None:
        """Let schedules run, until `stop_scheduler`."""
        await self._fleet()

    async def stop_scheduler(self) -> None:
        """End it. Schedules are remembered; one that was due meanwhile runs late, or is skipped and says so."""
        await self._lease.release()

    async def schedule_update(
        self,
        model_version_id: str,
        target_devices: Sequence[str],
        strategy: UpdateStrategy | str = UpdateStrategy.CANARY,
        priority: UpdatePriority | str = UpdatePriority.NORMAL,
        scheduled_time: datetime | None = None,
        **options: Any,
    ) -> str:
        """Bring a version to devices at `scheduled_time` (without a zone: this machine's; None: now); its id.

        `options` are fields of `POST /schedules`, such as `waves`, `bake_seconds`, `batch_size`, `window`.

        Raises:
            BadInputError: an unknown version, strategy or priority.
            ProblemError: the manager refuses the time or a device.
        """
        fleet = await self._fleet()
        model, version = await self._find_version(fleet, model_version_id)
        body = {
            "model": model,
            "version": version,
            "target": {"ids": [records.fleet_id(device) for device in target_devices]},
            "priority": records.chosen(UpdatePriority, priority).value,
            "strategy": records.ROLLOUT_OF[records.chosen(UpdateStrategy, strategy).value]["strategy"],
            "at": ((scheduled_time or datetime.now(UTC)).astimezone(UTC) + _A_MOMENT).isoformat(),
            "window": None,
            **options,
        }
        made = await fleet.ask(post("/schedules", body))
        return str(made["id"])

    async def cancel_update(self, schedule_id: str) -> bool:
        """True when it is cancelled; False when there is none of this id, or it is over. What began goes on."""
        fleet = await self._fleet()
        try:
            await fleet.schedules.cancel(schedule_id)
        except ProblemError as error:
            if error.status in (NOT_FOUND, _CONFLICT):
                return False
            raise
        return True

    async def get_update_status(self, schedule_id: str) -> dict[str, Any]:
        """Where a schedule stands: `status` is scheduled, queued, in_progress, paused, completed, failed or cancelled.

        Raises:
            ProblemError: there is none of this id.
        """
        fleet = await self._fleet()
        schedule = await fleet.schedules.get(schedule_id)
        rollout = await fleet.rollouts.get(schedule["rollout"]) if schedule["rollout"] else None
        return summaries.update(schedule, rollout)


#: "Now" lies ahead of the manager's clock when the request arrives.
_A_MOMENT: Final = timedelta(seconds=1)
