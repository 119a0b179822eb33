"""This machine once more, booted: a real systemd over an overlay of the root file system, gone without a trace.

    unshare -m -> overlay of / on a tmpfs, `seed` copied over it -> systemd-nspawn --boot, with a network of its own

Needs root and systemd-nspawn (make system-deps). Files of this machine are read, never written.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

BOOT_SECONDS = 30.0
_SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp -a "$2/." "$1/root/"
place=$1
shift 2
CALLS="landlock_create_ruleset landlock_add_rule landlock_restrict_self"
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe --directory="$place/root" \
  --capability=CAP_SYS_RESOURCE --system-call-filter="seccomp $CALLS" "$@" --boot systemd.unit=basic.target
"""
#: With mounts of its own, and gone when we are.
_ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "-m", "--propagation", "private")
T = TypeVar("T")


def missing() -> str | None:
    """Why this machine cannot boot another one."""
    if os.geteuid() != 0:
        return "booting a container needs root"
    for program, package in (
        ("systemd-nspawn", "systemd-container"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
    ):
        if shutil.which(program) is None:
            return f"{program} is not installed; make system-deps, or: apt install {package}"
    return None


class CannotBootError(Exception):
    """What this machine does not allow: mounts, namespaces, control groups."""


class Machine:
    """One that is up. `folder` is empty; `seed` is laid over the root file system; `seen`: path there -> path here."""

    def __init__(self, folder: Path, seed: Path, *, seen: Mapping[str, Path], devices: tuple[Path, ...] = ()) -> None:
        self._folder = folder
        self._log = folder / "boot.log"
        (folder / "overlay").mkdir()
        shown = [f"--bind-ro={here}:{there}" for there, here in seen.items()]
        shown += [f"--bind={device}" for device in devices]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*_ALONE, "sh", "-c", _SCRIPT, "sh", str(folder / "overlay"), str(seed), *shown],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.init = self._first_process()
            self.until(lambda: self.run("systemctl", "is-system-running", check=False) in ("running", "degraded"))
        except BaseException:
            self.off()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.off()

    def may(self, capability: int) -> bool:
        """Whether its root has this capability: it has none that ours lacks."""
        return bool(int(status_of(self.init)["CapEff"], 16) >> capability & 1)

    @property
    def root(self) -> Path:
        """Its root file system, seen from here."""
        return Path(f"/proc/{self.init}/root")

    def enter(self, *command: str, everything: bool = True) -> list[str]:
        """Arguments that run `command` there; or here, but with its network."""
        return [
            "nsenter",
            "-t",
            str(self.init),
            *(["-m", "-p", "-u", "-i"] if everything else []),
            "-n",
            "--",
            *command,
        ]

    def run(self, *command: str, check: bool = True) -> str:
        """What a program there says."""
        done = subprocess.run(self.enter(*command), capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout.strip()

    def fact(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit)

    def log(self, unit: str | None = None) -> str:
        """The journal, of one unit or the end of all."""
        return self.run("journalctl", "--no-pager", "-o", "cat", *(["-u", unit] if unit else ["-n", "60"]), check=False)

    def until(self, look: Callable[[], T | None], seconds: float = 30.0) -> T:
        """What `look` finds, once it finds something."""
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"nothing within {seconds:g} s\n{self.log()}")
            time.sleep(0.02)
        return found

    def off(self) -> None:
        """As when the plug is pulled."""
        for child in _children(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, 9)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _first_process(self) -> int:
        """Raises CannotBootError: it ended before there was one."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            for child in _children(self._process.pid):
                with contextlib.suppress(OSError):
                    if status_of(child)["NSpid"].split()[1:] == ["1"]:
                        return child
            time.sleep(0.01)
        raise CannotBootError(self._log.read_text(errors="replace").strip().rpartition("\n")[2])


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _children(pid: int) -> list[int]:
    """Direct ones; the one that `unshare` started has become systemd-nspawn by exec."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
