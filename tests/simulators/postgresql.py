"""A real PostgreSQL server in a folder of its own, on a Unix socket. Without the program, tests are skipped."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "flotilla"
START_SECONDS = 30.0


@contextmanager
def server() -> Iterator[Path]:
    """Its socket folder. Everything is gone afterwards."""
    initdb, postgres = program("initdb"), program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="flotilla-pg-"))
    # PostgreSQL refuses to be root.
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    shutil.chown(folder, owner.pw_uid)
    drop = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    process = None
    try:
        command = [initdb, "-D", str(folder / "db"), "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=START_SECONDS, **drop)
        options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [postgres, "-D", str(folder / "db"), *options], cwd=folder, stdout=log, stderr=log, **drop
            )
        _wait(process, folder)
        yield folder
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # fast shutdown
            process.wait(START_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


def url(folder: Path, database: str) -> str:
    return f"postgresql+asyncpg://{USER}@/{database}?host={folder}"


def program(name: str) -> str:
    """Where it is; Debian keeps them out of PATH."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(newest[-1]) if newest else None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    return found


def _wait(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while b"ready to accept connections" not in (folder / "log").read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
        time.sleep(0.02)
