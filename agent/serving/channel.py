"""The daemon's end of a control socket: whole messages, with file descriptors where needed.

I/O: disk, network, tasks, clock.
"""

import asyncio
import json
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

from agent.serving.worker_wire import MAX_MESSAGE

_SEND_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.005


class ChannelClosedError(Exception):
    """The process at the other end is gone, or does not listen."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep message borders and tell when the other end dies."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end. Only one task may receive."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end

    async def receive(self) -> bytes | None:
        """The next message; None when the other end is closed."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._end, MAX_MESSAGE) or None
        except ConnectionError:
            return None

    async def send(self, document: Any, descriptors: Sequence[int] = ()) -> None:
        """One message as JSON. The descriptors stay the caller's.

        Raises:
            ChannelClosedError: nobody is there, or nobody took it in time.
        """
        data = json.dumps(document).encode()
        deadline = asyncio.get_running_loop().time() + _SEND_SECONDS
        while True:
            try:
                socket.send_fds(self._end, [data], list(descriptors))
                return
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    raise ChannelClosedError("the other end does not listen") from None
                await asyncio.sleep(_RETRY_SECONDS)
            except OSError as error:
                raise ChannelClosedError(str(error)) from None

    def close(self) -> None:
        self._end.close()


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
