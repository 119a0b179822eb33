"""Children end with the daemon, even when they hang in native code and even when it is killed.

All children hold the read end of one pipe; only the daemon holds the write end. When it is closed, by whatever
end of the daemon, the kernel kills every holder. Python 3.10 syntax: also runs under the worker's interpreter.

I/O: disk, process.
"""

import fcntl
import os
import select
import signal

_F_SETSIG = 10  # Linux; not named by the fcntl module


def bind(leash: int) -> int:
    """Tie this process to the pipe `leash`. What comes back must stay open.

    The pipe is opened anew because its owner belongs to the open file, which a fork shares.
    """
    own = os.open(f"/proc/self/fd/{leash}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(own, select.POLLHUP)
    if poll.poll(0):  # it went away before we were tied
        os._exit(0)
    return own
