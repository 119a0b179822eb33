"""What the three components have in common: a folder, and the right to its manager.

I/O: disk.
"""

from pathlib import Path
from typing import Any, Final

from fleet.client import AsyncFleet, ProblemError
from fleet.jobs import records
from fleet.jobs.lease import Config, Lease
from shared.errors import BadInputError

NOT_FOUND: Final = 404


class Part:
    """`config`: a YAML file, its content, nothing, or another component, whose folder is meant."""

    def __init__(self, config: "Config | Part" = None) -> None:
        self._lease: Lease = Lease(config.sections if isinstance(config, Part) else config)

    @property
    def sections(self) -> dict[str, Any]:
        """The configuration, for another component of the same folder."""
        return self._lease.sections

    @property
    def base_dir(self) -> Path:
        """Where everything lies."""
        return self._lease.folder

    async def _fleet(self) -> AsyncFleet:
        return await self._lease.fleet()

    async def _device(self, fleet: AsyncFleet, device_id: str) -> dict[str, Any] | None:
        """The enrolled device, or None."""
        try:
            return await fleet.devices.get(records.fleet_id(device_id))
        except ProblemError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def _find_version(self, fleet: AsyncFleet, version_id: str) -> tuple[str, str]:
        """(model, version) of a version id.

        Raises:
            BadInputError: no model has it.
        """
        wanted = records.to_version(version_id)
        for model in await fleet.models.list():
            for found in await fleet.models.versions(model["name"]):
                if found["version"] == wanted:
                    return model["name"], wanted
        raise BadInputError(
            f"no model has the version {version_id!r}", remedy="use the version_id that register_model_version gave"
        )
