"""Command lines of our own child processes, under our interpreter or the one that has onnxruntime.

I/O: disk.
"""

import sys
from pathlib import Path
from typing import Final

#: Goes before an import of onnxruntime: from 1.29 on it reports its use to its makers, over the network and with an
#: identity that it keeps in the home folder. A device tells nobody but its own fleet.
QUIET: Final = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; "

_ROOT = Path(__file__).resolve().parents[2]

# Our folder goes last on the path: under another interpreter, its own numpy must win over one beside us.
_START = QUIET + (
    "import runpy, sys; sys.path[:1] = []; sys.path.append({root!r}); runpy.run_module({module!r}, {{}}, '__main__')"
)


def command(module: str, *arguments: str, python: str | None = None) -> list[str]:
    """Arguments that run `module` (of ours) under `python`, or under the interpreter that runs us."""
    return [python or sys.executable, "-c", _START.format(root=str(_ROOT), module=module), *arguments]
