"""Where the manager's settings are read from, for every command that works beside its data.

I/O: disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shared.configuration import load
from shared.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.settings import FleetSettings

CONFIG_NAME: Final = "fleet.yaml"
DEFAULT_CONFIG: Final = Path("/etc/flotilla") / CONFIG_NAME


def settings_of(config: Path | None, data_dir: Path | None, overrides: Mapping[str, Any]) -> FleetSettings:
    """From `config`, else from the data folder or the machine's own file, with these flags over it.

    Raises:
        FlotillaError: no such file, or something in it is wrong.
    """
    from fleet.settings import FleetSettings

    if config is None:
        places = [data_dir / CONFIG_NAME] if data_dir else []
        config = next((place for place in [*places, DEFAULT_CONFIG] if place.exists()), None)
    elif not config.exists():
        raise BadInputError(f"there is no file {config}", remedy="flotilla-fleet init --data-dir DIR writes one")
    return load(FleetSettings, config, overrides={"data_dir": data_dir, **overrides}).settings
