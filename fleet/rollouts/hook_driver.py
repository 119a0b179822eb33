"""Ask the webhooks of rollouts, and keep what they say; the engine reads it as evidence.

An answer is stored before it counts; asking twice is harmless. Whatever goes wrong means to wait, with the reason.

I/O: network, disk, tasks.
"""

import asyncio
import hashlib
import logging
from datetime import datetime
from typing import Final

import httpx2

from fleet.alerts import signature
from fleet.alerts.senders import posting
from fleet.alerts.senders.secret_files import secret
from fleet.driver_parts import DriverParts
from fleet.rollouts import hooks, saved, verdicts
from fleet.rollouts.changing import loaded
from fleet.rollouts.states import Hook, HookAnswer, Rollout
from fleet.store import gates, tables
from fleet.store import rollouts as store
from shared.errors import FlotillaError

logger = logging.getLogger(__name__)

REST_SECONDS: Final = 1.0


class HookDriver:
    """Asks for every rollout that names a webhook. One per manager."""

    def __init__(self, parts: DriverParts) -> None:
        self._parts = parts

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.advance()
            await asyncio.sleep(REST_SECONDS)

    async def advance(self) -> None:
        """Ask whoever is due, all at once."""
        async with self._parts.database.read() as tx:
            rows = [(row.id, saved.from_json(row.body)) for row in await store.active(tx)]
        asked = [(name, rollout.limits.webhook) for name, rollout in rows if _asks(rollout)]
        await asyncio.gather(*(self._one(name, hook) for name, hook in asked if hook is not None))

    async def _one(self, rollout_id: str, hook: Hook) -> None:
        now = self._parts.clock.now()
        async with self._parts.database.read() as tx:
            row, before = await store.get(tx, rollout_id), await gates.hook(tx, rollout_id)
            if row is None:
                return
            rollout, evidence = await loaded(tx, row, now)
        asked_at = before.asked_at if before is not None and before.wave == rollout.wave else None
        if not _asks(rollout) or not hooks.due(hook, asked_at, now):
            return
        found = verdicts.make(rollout, evidence, now)
        told = found.numbers
        counts = {"released": told.released, "committed": told.committed, "ended": told.ended, "silent": told.silent}
        answer = await self._ask(hook, hooks.question(rollout, found.checks, counts, now), now)
        if answer.result != "pass":
            logger.info("webhook rollout=%s result=%s reason=%s", rollout_id, answer.result, answer.reason)
        known = hooks.taken(_answer(before), rollout.wave, answer, now)
        async with self._parts.database.write() as tx:
            await tx.merge(
                tables.HookState(
                    rollout_id=rollout_id,
                    wave=known.wave,
                    result=known.result,
                    reason=known.reason,
                    since=known.since,
                    asked_at=self._parts.clock.now(),
                )
            )
        self._parts.hub.wake()

    async def _ask(self, hook: Hook, body: bytes, now: datetime) -> hooks.Answer:
        """What was answered, or to wait and why."""
        try:
            to = hooks.destination(hook, self._parts.settings)
            key = secret(to.secret, to.secret_file).encode()
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "flotilla",
                "Flotilla-Delivery": hashlib.sha256(body).hexdigest()[:32],
                signature.HEADER: signature.signed(key, body, now),
            }
            way = posting.Way(to.allow_private, to.ca_file, hook.timeout_seconds)
            async with asyncio.timeout(hook.timeout_seconds):
                return hooks.read(*await posting.exchange(way, to.url, body, headers, longest=hooks.MAX_ANSWER_BYTES))
        except TimeoutError:
            return _waits(f"the webhook gave no answer in {hook.timeout_seconds:g} s")
        except FlotillaError as error:
            return _waits(f"the webhook cannot be asked: {error.detail}")
        except (httpx2.HTTPError, OSError) as error:
            return _waits(f"the webhook cannot be reached: {type(error).__name__}: {error}")


def _asks(rollout: Rollout) -> bool:
    return rollout.limits.webhook is not None and rollout.wave >= 0 and rollout.state in verdicts.JUDGED


def _waits(reason: str) -> hooks.Answer:
    return hooks.Answer(result="wait", reason=reason[:400])


def _answer(row: tables.HookState | None) -> HookAnswer | None:
    if row is None:
        return None
    result = hooks.Answer.model_validate({"result": row.result}).result
    return HookAnswer(row.wave, result, row.reason, row.since)
