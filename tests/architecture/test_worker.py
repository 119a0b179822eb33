"""The inference worker may run under another interpreter: Python 3.10, with numpy and onnxruntime alone."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.test_modules import MODULES, ROOT, imported, ours, tree_of

#: Where a process begins that may run under `serving.worker_python`.
ENTRIES = [
    name for name in ("agent.serving.fork_server", "agent.serving.worker", "agent.serving.trial") if name in MODULES
]
ALLOWED = {"numpy", "onnxruntime", *sys.stdlib_module_names}
OLD = (3, 10)


def family() -> set[str]:
    found: set[str] = set()
    pending = list(ENTRIES)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            parents = [name.rsplit(".", cut)[0] for cut in range(1, name.count(".") + 1)]
            pending += [*ours(MODULES[name]), *(parent for parent in parents if parent in MODULES)]
    return found


def test_the_worker_exists():
    assert "agent.serving.worker" in ENTRIES


@pytest.mark.parametrize("name", sorted(family()))
def test_keeps_to_the_syntax_of_python_3_10(name):
    path = MODULES[name]
    ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=OLD)


@pytest.mark.parametrize("name", sorted(family()))
def test_imports_only_numpy_onnxruntime_and_the_standard_library(name):
    outside = {one.partition(".")[0] for one in imported(tree_of(MODULES[name]))} - {"agent", "shared"}
    assert outside <= ALLOWED
    newer = {"tomllib", "datetime.UTC", "enum.StrEnum", "typing.Self", "typing.assert_never", "asyncio.timeout"}
    assert not newer & imported(tree_of(MODULES[name])), "this came with Python 3.11"


def old_python() -> str | None:
    candidates = [shutil.which("python3.10"), *map(str, Path.home().glob(".*/versions/3.10*/bin/python"))]
    for candidate in filter(None, candidates):
        asked = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
        )
        if asked.stdout.strip() == str(OLD):
            return candidate
    return None


def test_imports_under_python_3_10():
    python = old_python()
    if python is None:
        pytest.skip("no Python 3.10 on this machine")
    script = (
        "import importlib, sys, types\n"
        "class Anything(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        if name.startswith('__'): raise AttributeError(name)\n"
        "        return type(name, (), {'__init__': lambda self, *a, **k: None, '__getattr__': lambda self, n: n})\n"
        "for name in ('numpy', 'onnxruntime'):\n"
        "    try: importlib.import_module(name)\n"
        "    except ImportError: sys.modules[name] = Anything(name)\n"
        f"for name in {sorted(family())!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([python, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
