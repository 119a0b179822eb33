"""Chunks, manifests and signed documents through the broker, for devices that reach nothing else.

    Want (bitmap of what is missing, window) --> manager --> Piece ... --> the next Want, until all is here

One thing at a time. A piece that does not come is asked for again; a broker that went away is waited for.

I/O: network, tasks, chance.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Final, Literal

from agent.update.reasons import NotThereError, SourceUnavailableError
from shared import pieces, seal
from shared.errors import BadInputError
from shared.manifest import MAX_MANIFEST_BYTES
from shared.messages import Want
from shared.mqtt_link import LinkDownError
from shared.topics import Address, Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.manifest import Chunk
    from shared.mqtt_link import MqttLink

logger = logging.getLogger(__name__)

WINDOW: Final = pieces.MAX_WINDOW
#: Without a piece for so long, ask again; then longer and longer, so that a busy manager is not flooded.
ASK_AGAIN_SECONDS: Final = 5.0
GIVE_UP_SECONDS: Final = 120.0
RESEND_SECONDS: Final = 0.5

Kind = Literal["chunk", "manifest", "metadata"]


class BrokerSource:
    """A source (`sources`) behind the link; `take` gets every payload of the piece channel."""

    name: Final = "mqtt"

    def __init__(
        self,
        link: MqttLink,
        *,
        device: str,
        sign: Callable[[bytes], bytes],
        give_up_seconds: float = GIVE_UP_SECONDS,
        ask_again_seconds: float = ASK_AGAIN_SECONDS,
    ) -> None:
        self._link, self._device, self._sign = link, device, sign
        self._give_up, self._ask_again = give_up_seconds, ask_again_seconds
        self._one_at_a_time = asyncio.Lock()
        self._transfer = ""
        self._whole = pieces.Whole(0)
        self._refused = False
        self._news = asyncio.Event()

    def take(self, payload: bytes) -> None:
        """One piece; those of an earlier transfer are passed over.

        Raises:
            BadInputError: not a piece, or larger than what was asked for.
        """
        piece, data = pieces.decode(payload)
        if piece.transfer != self._transfer:
            return
        if piece.size_bytes == 0:
            self._refused = True
        elif not self._whole.add(piece, data):
            return
        self._news.set()

    async def chunk(self, chunk: Chunk) -> bytes:
        """The sealed chunk."""
        return await self._get("chunk", chunk.id, chunk.size_bytes)

    async def manifest(self, digest: str) -> bytes:
        """The manifest."""
        return await self._get("manifest", digest, MAX_MANIFEST_BYTES)

    async def metadata(self, file: str) -> bytes:
        """A signed document by the name that it has over HTTP."""
        return await self._get("metadata", file, MAX_MANIFEST_BYTES)

    async def _get(self, kind: Kind, name: str, limit_bytes: int) -> bytes:
        async with self._one_at_a_time:
            self._transfer, self._whole, self._refused = secrets.token_hex(8), pieces.Whole(limit_bytes), False
            try:
                async with asyncio.timeout(self._give_up) as patience:
                    await self._until_whole(kind, name, patience)
            except TimeoutError:
                raise SourceUnavailableError(f"{kind} {name[:24]}: no piece for {self._give_up:g} s") from None
            except BadInputError as error:
                raise SourceUnavailableError(f"{kind} {name[:24]}: {error.detail}") from None
            finally:
                self._transfer = ""
            data, self._whole = self._whole.data, pieces.Whole(0)
            return data

    async def _until_whole(self, kind: Kind, name: str, patience: asyncio.Timeout) -> None:
        pause = self._ask_again
        while not self._whole.complete:
            asked = self._whole.missing[:WINDOW]
            await self._want(kind, name, asked)
            before = len(self._whole.missing)
            if await self._arrived(asked, pause):
                pause = self._ask_again
            else:
                pause = min(2 * pause, self._give_up)
            if self._refused:
                raise NotThereError(f"the manager does not send {kind} {name[:24]} through the broker")
            if len(self._whole.missing) != before or self._whole.complete:
                patience.reschedule(asyncio.get_running_loop().time() + self._give_up)

    async def _want(self, kind: Kind, name: str, missing: list[int]) -> None:
        want = Want(
            device=self._device,
            transfer=self._transfer,
            kind=kind,
            name=name,
            missing=pieces.bitmap(missing),
            window=WINDOW,
        )
        topic = str(Address(self._device, Channel.WANT))
        payload = seal.sealed(want.to_bytes(), topic=topic, sign=self._sign)
        while True:
            await self._link.wait_connected()
            try:
                await self._link.publish(topic, payload)
                return
            except LinkDownError as error:
                logger.info("wish not sent, trying again reason=%s", error)
                await asyncio.sleep(RESEND_SECONDS)

    async def _arrived(self, asked: list[int], pause: float) -> bool:
        """True once all of `asked` are here, or the answer is no; False when nothing came for `pause` seconds."""
        while not self._refused and set(asked) & set(self._whole.missing):
            self._news.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                return False
        return True
