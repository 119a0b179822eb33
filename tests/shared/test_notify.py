import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.notify import Handed, drop, handed, keep, notify, watchdog_seconds
from tests.simulators.systemd import Systemd

OURS = "ours"  # stands for our process id, so that tests keep their names


def _filled(owner: str) -> str:
    return str(os.getpid()) if owner == OURS else owner


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


def test_an_open_descriptor_is_kept_until_it_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(systemd.path))
    with open(tmp_path / "some", "w+b", buffering=0) as file:
        assert keep("one", file.fileno())
        assert keep("one", file.fileno())
        assert systemd.listen() == []
        file.write(b"hello")
    assert [entry.name for entry in systemd.store] == ["one"]
    assert os.pread(systemd.store[0].descriptor, 9, 0) == b"hello"
    assert drop("one")
    systemd.listen()
    assert systemd.store == []
    systemd.close()


SHOW = """
import os
from shared.notify import handed
found = handed()
print([(entry.name, os.pread(entry.descriptor, 9, 0), os.get_inheritable(entry.descriptor)) for entry in found])
print(list(handed()), sorted(name for name in os.environ if name.startswith("LISTEN_")))
"""


def test_what_was_kept_is_handed_over_once(tmp_path: Path) -> None:
    systemd = Systemd(tmp_path / "notify")
    with open(tmp_path / "some", "w+b", buffering=0) as file:
        file.write(b"hello")
        systemd.store.append(Handed("one", os.dup(file.fileno())))
    kept = [entry.descriptor for entry in systemd.store]
    shown = subprocess.run(systemd.command(["-c", SHOW]), pass_fds=kept, capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ["[('one', b'hello', False)]", "[] []"]
    systemd.close()


@pytest.mark.parametrize(("owner", "number"), [("1", "2"), ("", "2"), (OURS, "many")])
def test_what_is_meant_for_another_process_is_left_alone(
    owner: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LISTEN_PID", _filled(owner)), ("LISTEN_FDS", number), ("LISTEN_FDNAMES", "a:b")):
        monkeypatch.setenv(name, value)
    assert list(handed()) == []


@pytest.mark.parametrize(
    ("micros", "owner", "seconds"),
    [
        ("30000000", None, 10.0),
        ("30000000", OURS, 10.0),
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
        monkeypatch.setenv("WATCHDOG_PID", _filled(owner))
    assert watchdog_seconds() == seconds
