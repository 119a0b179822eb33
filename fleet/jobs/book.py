"""What was registered and the manager has no place for: devices that have not come yet, and jobs.

    base_dir/jobs/devices/ID.json    base_dir/jobs/jobs/ID.json    base_dir/claims/ID.token

Each file is replaced as a whole and readable by its owner alone.

I/O: disk.
"""

from pathlib import Path
from typing import Final, TypeVar

from fleet.jobs.records import DeploymentJob, EdgeDevice, Record, fleet_id
from shared.durable import make_folder, replace_file
from shared.errors import BadInputError, RefusedError

R = TypeVar("R", bound=Record)
_JOB_FORM: Final = "job-"


class JobNotFoundError(RefusedError):
    """No job has this id."""

    code = "E_JOB_UNKNOWN"
    default_remedy = "use the job_id that create_deployment_job gave"


class NotRegisteredError(RefusedError):
    """No device was registered or enrolled under this id."""

    code = "E_NOT_REGISTERED"
    default_remedy = "register it first: await system.register_edge_device({...})"


class Book:
    """The records below one base folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add_device(self, device: EdgeDevice) -> None:
        """Remember a registration, and put its claim token where who sets the device up finds it."""
        self._write("devices", device.fleet_id, device)
        make_folder(self._folder / "claims")
        replace_file(self._folder / "claims" / f"{device.fleet_id}.token", f"{device.claim_token}\n".encode())

    def device(self, device_id: str) -> EdgeDevice | None:
        """The registration of `device_id`, in either spelling.

        Raises:
            BadInputError: another device was registered whose id the fleet would spell alike.
        """
        found = self._read("devices", fleet_id(device_id), EdgeDevice)
        if found is not None and device_id not in (found.device_id, found.fleet_id):
            raise BadInputError(
                f"{device_id!r} and {found.device_id!r} are one id in the fleet: {found.fleet_id}",
                remedy="give one of them another device_id",
            )
        return found

    def add_job(self, job: DeploymentJob) -> None:
        """Remember a job, or what became of it."""
        self._write("jobs", job.job_id, job)

    def job(self, job_id: str) -> DeploymentJob:
        """The job of this id.

        Raises:
            JobNotFoundError: there is none.
        """
        plain = job_id.removeprefix(_JOB_FORM)
        found = self._read("jobs", job_id, DeploymentJob) if plain.isalnum() and job_id.startswith(_JOB_FORM) else None
        if found is None:
            raise JobNotFoundError(f"there is no deployment job {job_id[:80]!r}")
        return found

    def _write(self, kind: str, name: str, record: Record) -> None:
        make_folder(self._folder / "jobs" / kind)
        replace_file(self._folder / "jobs" / kind / f"{name}.json", record.model_dump_json().encode())

    def _read(self, kind: str, name: str, cls: type[R]) -> R | None:
        try:
            return cls.model_validate_json((self._folder / "jobs" / kind / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return None
