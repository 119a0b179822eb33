"""What the daemon has the front do: versions, routes, when it opens and how it leaves. Each order is confirmed.

I/O: disk, network, tasks, clock.
"""

import asyncio
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from agent.serving import documents

if TYPE_CHECKING:
    from agent.serving.front import Front

_TURN_SECONDS: Final = 0.05


class Orders:
    """The front's side of `gate`. Call `obey` when the control socket is readable."""

    def __init__(self, front: "Front", listeners: Sequence[socket.socket]) -> None:
        self._front = front
        self._listeners = listeners
        self.opening = asyncio.Event()

    def obey(self) -> None:
        """Orders of the daemon. Its end of file is our end."""
        while True:
            received = self._front.outbox.receive()
            if received is None:
                return
            message, descriptors = received
            if not message:
                os._exit(0)
            order = json.loads(message)
            self._carry_out(order, descriptors)
            self._front.tell({"done": order["order"]})

    def _carry_out(self, order: dict[str, Any], descriptors: list[int]) -> None:
        model, version = str(order.get("model")), str(order.get("version"))
        front, now = self._front, time.monotonic()
        match order["do"]:
            case "open":
                self.opening.set()
            case "leave":
                self._leave()
            case "attach":
                front.attach(documents.loaded(order), socket.socket(fileno=descriptors[0]))
            case "expect":
                front.expect(documents.loaded(order))
            case "route":
                front.perform(front.table.route(model, version, now))
            case "hold":
                front.table.hold(model)
            case "explain":
                front.perform(front.table.explain(model, str(order["text"]), now))
            case "shadow":
                front.shadows.begin(order, socket.socket(fileno=descriptors[0]))
            case "pause-shadow":
                front.shadows.pause(model, on=bool(order["on"]))
            case "detach":
                front.perform(front.table.detach((model, version), now))
            case other:
                raise ValueError(f"order {other!r}")

    def _leave(self) -> None:
        """Answer what was asked already; who connects from now on waits for the next front."""
        self._front.leaving = True
        for listener in self._listeners:
            self._front.loop.remove_reader(listener.fileno())
        # What was accepted just now is a connection when this comes.
        self._front.loop.call_later(_TURN_SECONDS, self._see_off)

    def _see_off(self) -> None:
        now = time.monotonic()
        if any(entry.engaged(now) for entry in self._front.connections):
            self._front.loop.call_later(_TURN_SECONDS, self._see_off)
        else:
            self._front.tell({"left": True})
