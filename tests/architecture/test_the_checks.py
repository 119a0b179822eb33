"""The checks of this folder see what they are there to see."""

import ast
from pathlib import Path

import pytest

from tests.architecture.test_modules import effects, imported, promise


@pytest.fixture
def module(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / f"module{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import socket", {"network"}),
        ("from http.client import HTTPConnection", {"network"}),
        ("from http import HTTPStatus", set()),
        ("from pathlib import Path\ndef f(p: Path) -> Path: return p / 'x'", set()),
        ("from pathlib import Path\nPath('x').read_text()", {"disk"}),
        ("import os.path", {"disk"}),
        ("from datetime import datetime", set()),
        ("from datetime import datetime, UTC\ndatetime.now(UTC)", {"clock"}),
        ("def f():\n    import subprocess, secrets", {"process", "chance"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import socket\nelse:\n    import time", {"clock"}),
    ],
)
def test_effects_are_seen(module, text, found):
    assert effects(module(text)) == found


@pytest.mark.parametrize(
    ("docstring", "declared"),
    [
        ("Does.\n\nI/O: none.", {"none"}),
        ("Does.\n\nI/O: disk, network.", {"disk", "network"}),
        ("Does.\n\nI/O: none.\n\nMore.", None),
        ("Does.", None),
    ],
)
def test_promises_are_read(module, docstring, declared):
    assert promise(module(f'"""{docstring}\n"""')) == declared


def test_a_value_of_an_impure_module_is_no_import_of_it():
    def modules(text):
        return imported(ast.parse(text))

    assert "shared.clock" not in modules("from shared.clock import rfc3339, Clock")
    assert "shared.clock" in modules("from shared.clock import rfc3339, SystemClock")
