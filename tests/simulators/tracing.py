"""A child process seen by strace: what it opened, started and connected to after it had shut itself in.

    python = traced(folder, log)          an interpreter that writes its system calls to `log`
    opened(log), strayed(log)             what to look at afterwards

I/O: disk, process.
"""

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CALLS: Final = "file,process,network,landlock_restrict_self,seccomp"
_SHUT: Final = re.compile(r"landlock_restrict_self\(.*= 0$|seccomp\(SECCOMP_SET_MODE_FILTER.*= 0$")
_CALL: Final = re.compile(r"^\d+ +(?:(\w+)\(|<\.\.\. (\w+) resumed>)")
_RESULT: Final = re.compile(r"= (-?\d+)(?:<(.*)>)?(?: \(.*\))?$")
_OPEN: Final = frozenset({"open", "openat", "openat2", "creat"})
_LEAVING: Final = frozenset(
    {"execve", "execveat", "fork", "vfork", "socket", "connect", "bind", "listen", "accept", "accept4", "ptrace"}
)


@functools.cache
def why_not() -> str:
    """Why nothing can be traced here; empty when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed; make system-deps installs it"
    done = subprocess.run(["strace", "-f", "-e", "trace=none", "true"], capture_output=True, text=True)
    return "" if done.returncode == 0 else f"strace may not look at processes here: {done.stderr.strip()[-200:]}"


def traced(folder: Path, log: Path, *, python: str = sys.executable) -> str:
    """An interpreter of which every system call of these kinds, and of its children, is written to `log`."""
    path = folder / "traced"
    path.write_text(f'#!/bin/sh\nexec strace -f -y -qq -o "{log}" -e trace={CALLS} "{python}" "$@"\n')
    path.chmod(0o700)
    return str(path)


def _after(log: Path) -> Iterator[tuple[str, int, str]]:
    """Call, result and the path behind the result, of each call that succeeded after the sandbox was complete."""
    lines = log.read_text(errors="replace").splitlines()
    shut = [at for at, line in enumerate(lines) if _SHUT.search(line)]
    assert len(shut) >= 2, f"the child did not shut itself in: {lines[-3:]}"
    for line in lines[shut[1] + 1 :]:
        call, result = _CALL.search(line), _RESULT.search(line)
        if call is not None and result is not None and int(result[1]) >= 0:
            yield call[1] or call[2], int(result[1]), result[2] or line


def opened(log: Path) -> set[str]:
    """Files and folders, with symbolic links resolved."""
    return {path for call, _, path in _after(log) if call in _OPEN}


def strayed(log: Path) -> list[str]:
    """Programs and processes that were started, sockets that were made. Threads are none of them."""
    found = [line for call, _, line in _after(log) if call in _LEAVING]
    return found + [
        line for call, result, line in _after(log) if call.startswith("clone") and result and "THREAD" not in line
    ]
