"""Forks workers from a process that has onnxruntime imported and holds no session: a start costs milliseconds.

    control socket (daemon)   in: {"spawn": job} with the worker's control socket
                              out: {"up": version, and worker_facts}, {"spawned": number, "pid"},
                                   {"exited": pid, "status"}

Ends when the control socket is closed; its workers go on and are watched by the daemon through their own
sockets. May run under another interpreter: Python 3.10 syntax.

I/O: disk, network, process.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from agent.serving import worker, worker_facts, worker_leash, worker_wire


class ForkServer:
    """Starts workers and reaps them."""

    def __init__(self, control: socket.socket, leash: int) -> None:
        self._control = control
        self._leash = leash
        self._children: set[int] = set()
        self._wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_end = wake_end

    def run(self) -> None:
        """Until the daemon closes the control socket."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        self._tell({"up": sys.version.split()[0], **worker_facts.found()})
        while True:
            control = self._control.fileno()
            ready, _, _ = select.select([control, self._wake], [], [])
            if self._wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
            self._reap()
            if control in ready and not self._obey():
                return

    def _obey(self) -> bool:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, worker_wire.MAX_MESSAGE, 1)
        except ConnectionError:  # the daemon ended with words of ours unread
            return False
        if not message:
            return False
        self._spawn(json.loads(message)["spawn"], descriptors)
        return True

    def _spawn(self, job: dict[str, Any], descriptors: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_worker(job, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._children.add(pid)
        self._tell({"spawned": job["number"], "pid": pid})

    def _become_worker(self, job: dict[str, Any], descriptors: list[int]) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            os.close(self._wake)
            os.close(self._wake_end)
            worker_leash.bind(self._leash)
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
                file.write("500")  # when memory runs out, workers go before the daemon
            worker.serve(socket.socket(fileno=descriptors[0]), job)
        finally:
            os._exit(70)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.discard(pid)
            self._tell({"exited": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, document: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):
            self._control.send(json.dumps(document).encode())


def main() -> None:
    control, leash = (int(argument) for argument in sys.argv[1:3])
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the daemon, which ends us; workers inherit this
        signal.signal(number, signal.SIG_IGN)
    own = worker_leash.bind(leash)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is answered at once, not after writing memory to disk
    gc.collect()
    gc.freeze()  # nobody ends what was imported: workers neither look at it nor copy its pages
    ForkServer(socket.socket(fileno=control), leash).run()
    os.close(own)


if __name__ == "__main__":
    main()
