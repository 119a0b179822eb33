"""Answers what devices ask about their peers: checked, by the rules of the site, from the ledger.

I/O: chance.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from fleet.peers.authority import Authority
from fleet.peers.ledger import Ledger, Rules
from fleet.store import devices
from fleet.telemetry.rate import Buckets
from shared import seal
from shared.errors import BadInputError, RefusedError, UnavailableError
from shared.messages import MAX_PAYLOAD_BYTES
from shared.peers import TOPIC, Answer, Ask, site_name

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.access.secrets import Pepper
    from fleet.settings import PeerSettings
    from fleet.store.tables import Device
    from shared.clock import Clock

#: What a device waits before it asks again: while it wants something (longer, where so many wait that they would ask
#: more often than `ASKS_IN_ALL`), and while its site does not share.
AGAIN_SECONDS: Final = 2.0
LONGEST_SECONDS: Final = 30.0
ASKS_IN_ALL: Final = 50.0  # a second
OFF_SECONDS: Final = 600.0
MEMBERS_SECONDS: Final = 5.0
#: Of one device, on average.
ASKS_PER_SECOND: Final = 10.0
#: In `peers.sites`: every site that has a name.
ALL_SITES: Final = "*"


class RefusedAskError(RefusedError):
    """Somebody asks about peers who may not."""

    code = "E_PEERS"
    default_remedy = "accept the device, or enrol it again"


class TooManyAsksError(UnavailableError):
    """A device asks about peers more often than it needs to."""

    code = "E_PEERS_TOO_OFTEN"
    default_remedy = "nothing to do: the device asks again a second later"


class PeerDesk:
    """One for a manager; what it remembers is gone with it, and devices tell it again."""

    def __init__(self, settings: PeerSettings, pepper: Pepper, clock: Clock) -> None:
        self._sites, self._clock = frozenset(settings.sites), clock
        self.ledger = Ledger(
            Rules(
                copies=settings.copies,
                turn_seconds=settings.turn_seconds,
                patience_seconds=settings.patience_seconds,
            )
        )
        self._authority = Authority(pepper.derived("peers"))
        self._epoch = secrets.token_hex(8)
        self._buckets = Buckets(rate=ASKS_PER_SECOND, burst=6 * ASKS_PER_SECOND)
        self._members: dict[str, tuple[float, frozenset[str]]] = {}
        self._waiting: dict[str, float] = {}  # devices that got nothing when they last asked

    @staticmethod
    def named(body: bytes) -> str:
        """The device that `body` says it comes from; nothing is proved yet.

        Raises:
            BadInputError: it is no ask.
        """
        return Ask.parse(_payload(body)).device

    async def members(self, tx: AsyncSession, device: Device | None) -> frozenset[str]:
        """Active devices of the device's site, at most 5 seconds ago: who was revoked is soon named no more."""
        if device is None or not self.shares(device):
            return frozenset()
        now = self._clock.monotonic()
        looked_at, known = self._members.get(device.site, (float("-inf"), frozenset()))
        if now - looked_at >= MEMBERS_SECONDS or device.id not in known:
            known = await devices.of_site(tx, device.site)
            self._members[device.site] = now, known
        return known

    def shares(self, device: Device) -> bool:
        """Whether the site of `device` does."""
        return bool(device.site) and bool({device.site, ALL_SITES} & self._sites)

    def answer(self, body: bytes, device: Device | None, members: frozenset[str]) -> Answer:
        """The answer to a signed ask, by whoever it names; `members` are those of its site.

        Raises:
            BadInputError: it is no ask.
            SealError: signed by another key.
            RefusedAskError: the device is unknown or not active.
            TooManyAsksError: it asks too often.
        """
        if device is None or device.lifecycle != "active":
            raise RefusedAskError("this device is not known here, or not accepted")
        ask = Ask.parse(seal.opened(body, topic=TOPIC, key=device.sign_key, required=True))
        if ask.device != device.id:
            raise RefusedAskError(f"{device.id} asks in the name of {ask.device}")
        if not self._buckets.take(device.id, self._clock.monotonic()):
            raise TooManyAsksError(f"{device.id} asks more than {ASKS_PER_SECOND:g} times a second")
        if not self.shares(device):
            return Answer(on=False, again_seconds=OFF_SECONDS)
        said = self.ledger.ask(device.site, ask, self._clock.monotonic(), members)
        site, passport = site_name(device.site), None
        if ask.passport:
            key = bytes.fromhex(ask.key)
            passport = self._authority.passport(device=device.id, site=site, key=key, now=self._clock.now())
        return Answer(
            on=True,
            epoch=self._epoch,
            turns=said.turns,
            peers=said.peers,
            held=said.held,
            again_seconds=self._again(device.id, waits=bool(ask.wanted) and not (said.turns or said.held)),
            site=site,
            passport=passport,
            authority=self._authority.certificate if passport is not None else None,
        )

    def _again(self, device: str, *, waits: bool) -> float:
        """Longer the more devices wait."""
        now = self._clock.monotonic()
        self._waiting.pop(device, None)
        if waits:
            self._waiting[device] = now  # the newest at the end
        while self._waiting and now - next(iter(self._waiting.values())) > 2 * LONGEST_SECONDS:
            del self._waiting[next(iter(self._waiting))]
        return min(max(AGAIN_SECONDS, len(self._waiting) / ASKS_IN_ALL), LONGEST_SECONDS)


def _payload(body: bytes) -> bytes:
    if len(body) > MAX_PAYLOAD_BYTES or not body.startswith(seal.MARK):
        raise BadInputError("not a signed ask", remedy="docs/protocol.md says how a device asks about peers")
    return body[len(seal.MARK) + seal.SIGNATURE_BYTES :]
