"""What clients ask about shared memory, and which workers know of it.

A client is known by his user: of the Unix socket by its credentials, of TCP by the kernel's table. The gRPC door, which
asks for others, names theirs in a header; only a process of our own user is believed.

I/O: disk, network.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from agent.serving import clients, documents, routes, worker_wire
from agent.serving.regions import Region, RegionRefusedError, Registry
from agent.serving.replies import Answer
from agent.serving.worker_wire import NOBODY

Offer = Literal["off", "unix", "loopback"]
USER_HEADER: Final = "flotilla-user"
CALLS: Final = frozenset({routes.Call.MEMORY_STATUS, routes.Call.MEMORY_REGISTER, routes.Call.MEMORY_UNREGISTER})
_BY_DOOR: Final = (
    "shared memory is offered on the Unix socket only; serving.shared_memory: loopback offers it here, too"
)
_OFF: Final = "shared memory is not offered by this endpoint (serving.shared_memory: off)"


class Lending:
    """The regions of this endpoint's clients. `workers` are the data sockets of all workers at this moment."""

    def __init__(
        self, offer: Offer, workers: Callable[[], Mapping[Any, socket.socket]], counted: Callable[[int], None]
    ) -> None:
        self._offer = offer
        self._workers = workers
        self._counted = counted
        self._registry = Registry()

    def user(self, connection: socket.socket, headers: Mapping[str, str]) -> int:
        """Who asks, as far as his memory is concerned: NOBODY where it is not offered to him."""
        if self._offer == "off" or (self._offer == "unix" and connection.family != socket.AF_UNIX):
            return NOBODY
        found = clients.user_of(connection)
        named = headers.get(USER_HEADER)
        if named is None:
            return found
        if found != os.geteuid() or self._offer != "loopback" or not (named.isascii() and named.isdigit()):
            return NOBODY
        return min(int(named[:10]), NOBODY)

    @property
    def any(self) -> bool:
        """Whether a request might name a region."""
        return len(self._registry) > 0

    def answer(self, route: routes.Route, user: int, body: bytes) -> Answer:
        """One of CALLS."""
        try:
            match route.call:
                case routes.Call.MEMORY_STATUS:
                    return Answer(200, self._registry.status(user, route.region))
                case routes.Call.MEMORY_UNREGISTER:
                    self.drop(self._registry.drop(user, route.region))
                    return Answer(200, b"")
                case _:
                    return self._register(route.region or "", user, body)
        except RegionRefusedError as error:
            return Answer(error.status, documents.error(str(error)))

    def introduce(self, worker: socket.socket) -> None:
        """A new worker learns of every region."""
        for region in self._registry:
            _tell(worker, region.news, region.descriptor)

    def suspected(self, user: int, text: bytes) -> bool:
        """A worker died on a request with this JSON part: whether it names regions. They are dropped: their client
        may have cut them short, and the next worker shall not die, too."""
        regions = self._registry.named_in(user, text)
        for region in regions:
            self.drop(self._registry.drop(region.user, region.name))
        return bool(regions)

    def drop(self, gone: list[Region]) -> None:
        """Tell all workers that these regions went."""
        for region in gone:
            for worker in self._workers().values():
                _tell(worker, worker_wire.News(region.user, region.name, gone=True), None)
        self._counted(len(self._registry))

    def _register(self, name: str, user: int, body: bytes) -> Answer:
        if user == NOBODY and self._offer != "loopback":
            raise RegionRefusedError(_OFF if self._offer == "off" else _BY_DOOR)
        region = self._registry.register(user, name, body)
        for worker in self._workers().values():
            _tell(worker, region.news, region.descriptor)
        self._counted(len(self._registry))
        return Answer(200, b"")


def _tell(worker: socket.socket, news: worker_wire.News, descriptor: int | None) -> None:
    message = worker_wire.pack_news(news)
    with contextlib.suppress(OSError):  # it died: the next one is introduced to all
        socket.send_fds(worker, [message], [] if descriptor is None else [descriptor])
