"""A real mosquitto, and a fleet that talks through it."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.simulators.fleet import Fleet, running


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """The port of a real mosquitto that lets anybody say anything: what a taken broker is."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed; make system-deps installs it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    with broker(tmp_path) as port:
        yield port


@pytest.fixture
def fleet(tmp_path: Path, mosquitto: int) -> Iterator[Fleet]:
    with running(tmp_path / "fleet", mosquitto) as fleet:
        yield fleet
