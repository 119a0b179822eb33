"""A worker stays awake only where requests follow each other at once."""

import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from agent.serving.worker_wait import Wait

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def waiting(ours: socket.socket, *, awake: bool = True) -> Wait:
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    return Wait(poll, awake=awake)


def ask_at_once(wait: Wait, pair: Pair, times: int) -> None:
    for _ in range(times):
        pair[1].send(b"x")
        assert [descriptor for descriptor, _ in wait.events(None)] == [pair[0].fileno()]
        pair[0].recv(1)


def looked_in_vain(wait: Wait) -> float:
    """Processor time of a wait in which nothing comes, in milliseconds."""
    before = time.thread_time()
    assert wait.events(20) == []
    return (time.thread_time() - before) * 1e3


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor nobody stays awake")
def test_it_looks_again_and_again_only_after_requests_that_followed_each_other(pair: Pair) -> None:
    wait = waiting(pair[0])
    at_first = min(looked_in_vain(wait) for _ in range(3))
    awake = 0.0
    for _ in range(5):
        ask_at_once(wait, pair, 40)
        awake = max(awake, looked_in_vain(wait))
    asleep = min(looked_in_vain(wait) for _ in range(10))  # the long waits taught it otherwise
    assert awake > 0.15
    assert at_first < 0.15
    assert asleep < 0.15


def test_it_never_stays_awake_when_told_so(pair: Pair) -> None:
    wait = waiting(pair[0], awake=False)
    ask_at_once(wait, pair, 40)
    assert min(looked_in_vain(wait) for _ in range(3)) < 0.15


def test_it_sleeps_once_in_a_while_even_if_requests_never_end(pair: Pair) -> None:
    """The kernel takes the privilege of a process that never sleeps."""
    wait = waiting(pair[0])
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            pair[1].send(b"x")
            pair[1].recv(1)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        slept = set()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert wait.events(None)
            slept.add(wait._slept)
            pair[0].send(pair[0].recv(1))
    finally:
        stop.set()
        pair[0].send(b"x")
        thread.join()
    assert len(slept) >= 5
