"""Asks the manager about the site: whose turn it is, and who has what. Remembers who serves, for times without him.

    <state_dir>/peers.json    devices of the site that serve, as the manager named them last

I/O: disk, network, tasks.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final

import httpx2
from pydantic import ValidationError

from agent.errors import IdentityError
from shared import seal
from shared.durable import replace_file
from shared.errors import BadInputError
from shared.messages import MAX_PAYLOAD_BYTES
from shared.peers import MAX_HOLDS, TOPIC, Answer, Ask, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from agent.peers.passport import Passport

logger = logging.getLogger(__name__)

_PATH: Final = "/api/v1/peers"
_TIMEOUT: Final = httpx2.Timeout(15.0, connect=5.0)
_MAX_ANSWER_BYTES: Final = 4 * MAX_PAYLOAD_BYTES
#: Serving devices that are remembered.
MAX_KNOWN: Final = 32


class Desk:
    """One ask at a time. `held` lists the chunks that are in the store."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        *,
        manager_url: str,
        device: str,
        sign: Callable[[bytes], bytes],
        passport: Passport,
        held: Callable[[], Collection[str]],
        state_dir: Path,
    ) -> None:
        self._http, self._url = http, manager_url.rstrip("/") + _PATH
        self._device, self._sign, self._passport, self._held = device, sign, passport, held
        self._file = state_dir / "peers.json"
        self._told: set[str] = set()
        self._epoch = ""
        self._one_at_a_time = asyncio.Lock()
        self.known: tuple[Peer, ...] = self._remembered()
        self.address: tuple[str, int] | None = None  # where this device serves

    async def ask(self, wanted: Sequence[str] = (), *, failed: Sequence[str] = ()) -> Answer | None:
        """What the manager says; None when he cannot be asked now."""
        async with self._one_at_a_time:
            held = set(await asyncio.to_thread(self._held))
            self._told &= held
            holds = sorted(held - self._told)[:MAX_HOLDS]
            host, port = self.address or (None, None)
            ask = Ask(
                device=self._device,
                key=self._passport.public_key,
                passport=self._passport.wanted,
                address=host,
                port=port,
                epoch=self._epoch,
                holds=tuple(holds),
                wanted=tuple(wanted),
                failed=tuple(failed),
            )
            answer = await self._answered(ask)
            if answer is not None:
                self._take(answer, holds)
            return answer

    async def _answered(self, ask: Ask) -> Answer | None:
        body = seal.sealed(ask.to_bytes(), topic=TOPIC, sign=self._sign)
        try:
            answer = await self._http.post(self._url, content=body, timeout=_TIMEOUT)
            if answer.status_code != httpx2.codes.OK or len(answer.content) > _MAX_ANSWER_BYTES:
                logger.info("manager tells nothing about peers status=%d", answer.status_code)
                return None if answer.is_server_error else Answer(on=False)
            return Answer.model_validate_json(answer.content)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValidationError, RecursionError) as error:
            logger.info("manager cannot be asked about peers error=%s", type(error).__name__)
            return None

    def _take(self, answer: Answer, holds: Collection[str]) -> None:
        if answer.epoch != self._epoch:
            self._epoch = answer.epoch
            self._told.clear()
        self._told |= set(holds)
        if answer.passport is not None and answer.authority is not None:
            try:
                self._passport.keep(answer.passport, answer.authority)
            except (IdentityError, OSError) as error:
                logger.warning("passport not kept error=%s", error)
        self._remember(answer.peers)

    def _remember(self, peers: Sequence[Peer]) -> None:
        known = {peer.device: peer for peer in self.known}
        if all(known.get(peer.device) == peer for peer in peers):
            return
        fresh = {peer.device: peer for peer in peers}
        self.known = tuple({**fresh, **{name: peer for name, peer in known.items() if name not in fresh}}.values())
        self.known = self.known[:MAX_KNOWN]
        try:
            replace_file(self._file, json.dumps([peer.model_dump() for peer in self.known]).encode())
        except OSError as error:
            logger.warning("peers not remembered error=%s", error)

    def _remembered(self) -> tuple[Peer, ...]:
        try:
            found = json.loads(self._file.read_bytes())
            return tuple(Peer.model_validate(one) for one in found)[:MAX_KNOWN]
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, TypeError, RecursionError, BadInputError) as error:
            logger.warning("remembered peers not usable path=%s error=%s", self._file, type(error).__name__)
            return ()
