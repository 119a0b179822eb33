"""Who may come in: the manager itself, and devices that enrolled and were not shut out.

I/O: none.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from fleet.broker import acl
from fleet.store import devices

if TYPE_CHECKING:
    from fleet.access.secrets import Pepper
    from fleet.store.database import Database


class Guests:
    """`secret` is the manager's own password, made at each start and never stored."""

    def __init__(self, database: Database, pepper: Pepper, secret: str) -> None:
        self._database, self._pepper, self._secret = database, pepper, secret

    async def may_enter(self, name: str, password: str) -> bool:
        """True for the right password of a known client. A waiting device may come in and be seen."""
        if name == acl.MANAGER:
            return hmac.compare_digest(password.encode(), self._secret.encode())
        async with self._database.read() as tx:
            device = await devices.get(tx, name)
        return (
            device is not None
            and device.lifecycle in {"active", "pending"}
            and self._pepper.fits(password, device.api_key_hash)
        )
