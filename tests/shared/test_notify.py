import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.notify import notify, watchdog_seconds


@pytest.fixture(params=["/notify", "@flotilla-test"])
def door(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = f"{request.param}-{os.getpid()}" if request.param[0] == "@" else f"{tmp_path}{request.param}"
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind("\0" + name[1:] if name[0] == "@" else name)
    made.settimeout(5)
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with made:
        yield made


def test_systemd_is_told(door: socket.socket) -> None:
    assert notify("READY=1")
    assert notify("STATUS=serving\nWATCHDOG=1")
    assert [door.recv(100), door.recv(100)] == [b"READY=1", b"STATUS=serving\nWATCHDOG=1"]


@pytest.mark.parametrize("name", ["", "relative", "/does/not/exist"])
def test_without_systemd_nothing_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("micros", "owner", "seconds"),
    [
        ("30000000", None, 10.0),
        ("30000000", str(os.getpid()), 10.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("soon", None, None),
    ],
)
def test_the_watchdog_is_fed_three_times_as_often_as_asked(
    micros: str, owner: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", micros)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if owner is not None:
        monkeypatch.setenv("WATCHDOG_PID", owner)
    assert watchdog_seconds() == seconds
