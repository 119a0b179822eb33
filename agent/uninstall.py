"""Take the agent off this device: stop it, tell the manager, remove what docs/installing.md put here.

    stopped, disabled -> manager told -> state (who we are last) -> unit, sysusers, tmpfiles, runtime folder

Each step is harmless to repeat, so an uninstall that was interrupted is repeated. Links are removed, never followed.

I/O: disk, process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent import belongings, leaving
from agent.belongings import UNIT, Places, Stayed
from agent.errors import StateFolderError
from agent.leaving import Told
from agent.state_folder import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

_STOP_SECONDS: Final = 60.0


@dataclass
class Uninstall:
    """One run. `places` says where things are."""

    state_dir: Path
    keep_models: bool
    places: Places = field(default_factory=Places)
    removed: list[str] = field(default_factory=list)
    stayed: list[Stayed] = field(default_factory=list)
    told: Told = field(default_factory=lambda: Told(None, "there is no state folder"))

    def run(self) -> dict[str, Any]:
        """Everything; the document of `--json`.

        Raises:
            AlreadyRunningError: an agent works in the state folder, and it is not ours to stop.
        """
        self._stop()
        try:
            with self._state() as there:
                if there:
                    self.told = leaving.tell(self.state_dir)
                    self._clear()
        except (StateFolderError, PermissionError):
            self.told = Told(None, "not told: this user may not use the device's key")
            self.stayed.append(Stayed(str(self.state_dir), _NO_RIGHT, "sudo flotilla-agent uninstall"))
        if self.told.known is False:
            revoke = f"flotilla device revoke {self.told.device or 'ID'}, where the fleet is operated"
            name = self.told.device or "this device"
            self.stayed.append(Stayed(f"{name}, in the manager's list", self.told.detail, revoke))
        self._system()
        return {
            "manager": {"told": self.told.known, "detail": self.told.detail},
            "removed": self.removed,
            "stayed": [{"what": one.what, "why": one.why, "type": one.type} for one in self.stayed],
            "complete": not any(one.why == _NO_RIGHT for one in self.stayed),
        }

    @contextlib.contextmanager
    def _state(self) -> Iterator[bool]:
        if not self.state_dir.is_dir():
            yield False
            return
        with locked(self.state_dir):
            yield True

    def _stop(self) -> None:
        """Stop and disable the unit, where it is ours and we may."""
        if not self._unit_is_ours() or not self.places.booted.is_dir():
            return
        command = ["systemctl", "disable", "--now", UNIT]
        if os.geteuid() == 0 and shutil.which("systemctl"):
            done = subprocess.run(command, capture_output=True, text=True, timeout=_STOP_SECONDS, check=False)
            if done.returncode == 0:
                return
        self.stayed.append(Stayed(f"{UNIT}, enabled", _NO_RIGHT, f"sudo {' '.join(command)}"))

    def _unit_is_ours(self) -> bool:
        try:
            return belongings.is_ours(self.places.unit.read_text(errors="replace"))
        except OSError:
            return False

    def _clear(self) -> None:
        """What the agent made in its state folder, then the folder."""
        present = [entry.name for entry in self.state_dir.iterdir()]
        goes, stays = belongings.going(present, keep_models=self.keep_models)
        self.stayed += [Stayed(str(self.state_dir / one.what), one.why, one.type) for one in stays]
        for name in goes:
            self._remove(self.state_dir / name)
        if self.state_dir.is_symlink():
            self.stayed.append(Stayed(str(self.state_dir), "it is a link that you made", f"rm {self.state_dir}"))
        elif not any(self.state_dir.iterdir()):
            self._remove(self.state_dir)

    def _system(self) -> None:
        places = self.places
        if places.unit.exists():
            if self._unit_is_ours():
                self._remove(places.unit)
                self._reload()
            else:
                self.stayed.append(Stayed(str(places.unit), "it starts something else than flotilla-agent"))
        self._shared()
        self._remove(places.runtime)
        for path, why in (
            (places.drop_ins, "you made it (systemctl edit)"),
            (places.settings, "your settings"),
            (places.program, "a program does not remove itself"),
        ):
            if os.path.lexists(path):
                self.stayed.append(Stayed(str(path), why, f"sudo rm -r {path}"))
        if places.root == Path("/") and _there_is_the_user():
            why = "files that stayed may belong to it"
            self.stayed.append(Stayed(f"user {belongings.USER}", why, f"sudo userdel {belongings.USER}"))

    def _shared(self) -> None:
        manager_here = any(os.path.lexists(path) for path in self.places.fleet_units)
        for path in self.places.shared:
            if manager_here and path.exists():
                self.stayed.append(Stayed(str(path), "the manager on this machine uses it"))
            else:
                self._remove(path)

    def _reload(self) -> None:
        if self.places.booted.is_dir() and os.geteuid() == 0 and shutil.which("systemctl"):
            subprocess.run(["systemctl", "daemon-reload"], capture_output=True, timeout=_STOP_SECONDS, check=False)

    def _remove(self, path: Path) -> None:
        """A file, a link (not what it leads to), or a whole folder. Nothing there: nothing done."""
        if not os.path.lexists(path):
            return
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)  # it follows no links, also those that appear meanwhile
            else:
                path.unlink()
        except OSError as error:
            why = _NO_RIGHT if isinstance(error, PermissionError) else error.strerror or str(error)
            self.stayed.append(Stayed(str(path), why, f"sudo rm -r {path}"))
        else:
            self.removed.append(str(path))


_NO_RIGHT: Final = "this user may not remove it"


def _there_is_the_user() -> bool:
    import pwd

    try:
        pwd.getpwnam(belongings.USER)
    except KeyError:
        return False
    return True
