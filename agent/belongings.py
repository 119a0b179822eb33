"""What `docs/installing.md` puts on a device, and what of it goes when the agent is uninstalled.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

UNIT: Final = "flotilla-agent.service"
FLEET_UNIT: Final = "flotilla-fleet.service"
USER: Final = "flotilla-agent"
#: Names in the state folder that an agent makes, in the order in which they go: who it is goes last, so that what was
#: interrupted can be repeated, and still tell the manager.
STATE: Final = (
    "endpoints.json",
    "control.sock",
    "inference.sock",
    "peers.json",
    "chunks",
    "engines",
    "models",
    "outbox.sqlite",
    "outbox.sqlite-wal",
    "outbox.sqlite-shm",
    "outbox.sqlite.damaged",
    "outbox.sqlite-wal.damaged",
    "outbox.sqlite-shm.damaged",
    "update.sqlite",
    "update.sqlite-wal",
    "update.sqlite-shm",
    "agent.lock",
    "identity",
)
MODELS: Final = "models"


@dataclass(frozen=True, slots=True)
class Stayed:
    """What was not removed, why, and what to type to have it gone."""

    what: str
    why: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are; `root` is / but in tests."""

    root: Path = Path("/")

    @property
    def unit(self) -> Path:
        return self.root / "etc/systemd/system" / UNIT

    @property
    def drop_ins(self) -> Path:
        return self.root / "etc/systemd/system" / f"{UNIT}.d"

    @property
    def fleet_units(self) -> tuple[Path, ...]:
        folders = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
        return tuple(self.root / folder / FLEET_UNIT for folder in folders)

    @property
    def shared(self) -> tuple[Path, ...]:
        """Of agent and manager both."""
        return self.root / "usr/lib/sysusers.d/flotilla.conf", self.root / "usr/lib/tmpfiles.d/flotilla.conf"

    @property
    def runtime(self) -> Path:
        return self.root / "run/flotilla-agent"

    @property
    def booted(self) -> Path:
        """There while systemd runs this machine."""
        return self.root / "run/systemd/system"

    @property
    def settings(self) -> Path:
        return self.root / "etc/flotilla/agent.yaml"

    @property
    def program(self) -> Path:
        return self.root / "usr/bin/flotilla-agent"


def is_ours(unit: str) -> bool:
    """Whether the text of a unit file is that of our agent."""
    starts = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart=")]
    return any("flotilla-agent run" in start or "-m agent run" in start for start in starts)


def going(present: Collection[str], *, keep_models: bool) -> tuple[list[str], list[Stayed]]:
    """Of the names in the state folder: what goes, in order, and what stays."""
    goes = [name for name in STATE if name in present and not (keep_models and name == MODELS)]
    stays = [Stayed(name, "--keep-models was given") for name in present if keep_models and name == MODELS]
    stays += [Stayed(name, "the agent did not make it") for name in sorted(set(present) - set(STATE))]
    return goes, stays


def told(removed: Iterable[str], stayed: Iterable[Stayed]) -> list[str]:
    """The lines of the answer."""
    lines = [f"removed  {what}" for what in removed]
    for one in stayed:
        lines.append(f"stayed   {one.what}: {one.why}")
        if one.type:
            lines.append(f"         type: {one.type}")
    return lines
