"""Sockets that systemd keeps between two runs of the agent, and what is not taken back."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.serving.listeners import ListenError, Listeners, bind
from agent.settings import ServingSettings
from shared.notify import Handed
from tests.simulators.systemd import Systemd


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(made.path))
    yield made
    made.close()


def run_ends(listeners: Listeners) -> None:
    """As a crash would: nothing is tidied up."""
    listeners.tcp.close()
    listeners.unix.close()


def handed(systemd: Systemd) -> list[Handed]:
    """What the next start gets: descriptors of its own, the store keeps its."""
    systemd.listen()
    return [Handed(entry.name, os.dup(entry.descriptor)) for entry in systemd.store]


def number_stored(systemd: Systemd) -> int:
    systemd.listen()
    return len(systemd.store)


def settings(port: int = 0, **more: object) -> ServingSettings:
    return ServingSettings.model_validate({"http_port": port, **more})


def answer(listener: socket.socket) -> None:
    listener.settimeout(5)
    connection, _ = listener.accept()
    connection.sendall(b"hello")
    connection.close()


def heard(client: socket.socket) -> bytes:
    client.settimeout(5)
    with client:
        return client.recv(10)


def unix_client(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    return client


def test_who_connects_between_two_runs_is_answered_by_the_second(systemd: Systemd, tmp_path: Path) -> None:
    first = bind(settings(), tmp_path)
    port, path = first.endpoints.http_port, first.endpoints.uds_path
    again = handed(systemd)
    run_ends(first)
    waiting = [socket.create_connection(("127.0.0.1", port)), unix_client(path)]
    second = bind(settings(port), tmp_path, again)
    answer(second.tcp)
    answer(second.unix)
    assert [heard(client) for client in waiting] == [b"hello", b"hello"]
    assert second.endpoints == first.endpoints
    second.close()
    assert path.exists(), "the next run needs it"
    assert number_stored(systemd) == 2


def test_any_free_port_is_the_same_one_again(systemd: Systemd, tmp_path: Path) -> None:
    first = bind(settings(), tmp_path)
    again = handed(systemd)
    run_ends(first)
    second = bind(settings(), tmp_path, again)
    assert second.endpoints.http_port == first.endpoints.http_port
    second.close()


def test_an_end_in_order_keeps_the_path_of_a_stored_socket_only(systemd: Systemd, tmp_path: Path) -> None:
    stored = bind(settings(), tmp_path)
    stored.close()
    assert stored.endpoints.uds_path.exists()


def test_without_systemd_the_path_goes_with_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    listeners = bind(settings(), tmp_path)
    listeners.close()
    assert not listeners.endpoints.uds_path.exists()


def test_another_address_in_the_settings_frees_the_old_one(systemd: Systemd, tmp_path: Path) -> None:
    first = bind(settings(), tmp_path)
    port, path = first.endpoints.http_port, first.endpoints.uds_path
    again = handed(systemd)
    run_ends(first)
    second = bind(settings(port, http_host="0.0.0.0", uds_path=tmp_path / "other.sock"), tmp_path, again)
    assert not path.exists()
    systemd.listen()
    stored = {socket.socket(fileno=os.dup(entry.descriptor)) for entry in systemd.store}
    assert {found.getsockname() for found in stored} == {("0.0.0.0", port), str(tmp_path / "other.sock")}
    for found in stored:
        found.close()
    second.close()


def test_a_socket_whose_file_is_gone_or_another_is_opened_anew(systemd: Systemd, tmp_path: Path) -> None:
    first = bind(settings(), tmp_path)
    path = first.endpoints.uds_path
    again = handed(systemd)
    run_ends(first)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:  # gets the same inode on most file systems
        other.bind(str(path))
        second = bind(settings(), tmp_path, again)
    with unix_client(path) as client:
        answer(second.unix)
        assert heard(client) == b"hello"
    assert number_stored(systemd) == 2
    second.close()


def test_what_is_not_ours_is_closed_and_dropped(systemd: Systemd, tmp_path: Path) -> None:
    ends = os.pipe()
    unbound, elses = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
    address = elses.getsockname()
    foreign = [
        Handed("flotilla-http", os.open(tmp_path, os.O_RDONLY)),
        Handed("flotilla-unix-1-1", ends[0]),
        Handed("flotilla-http", unbound.detach()),
        Handed("elses", elses.detach()),
        Handed("", ends[1]),
    ]
    systemd.store = [Handed(entry.name, os.dup(entry.descriptor)) for entry in foreign]
    outside = systemd.store[3].descriptor
    somebodys = socket.socket(fileno=os.dup(outside))
    listeners = bind(settings(), tmp_path, foreign)
    assert number_stored(systemd) == 2
    assert all(entry.name.startswith("flotilla-") for entry in systemd.store)
    with somebodys, socket.create_connection(address):  # a socket that is not ours goes on listening
        pass
    listeners.close()


def test_every_user_who_reaches_the_unix_socket_may_connect(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        listeners = bind(settings(), tmp_path)
    finally:
        os.umask(before)
    assert listeners.endpoints.uds_path.stat().st_mode & 0o777 == 0o666
    listeners.close()


def test_a_taken_address_is_still_an_error(systemd: Systemd, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ListenError, match="cannot listen on"):
        bind(settings(other.getsockname()[1]), tmp_path)
