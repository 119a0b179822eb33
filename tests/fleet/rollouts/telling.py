"""Devices that tell of themselves: windows in the store, as if the broker had brought them."""

from datetime import timedelta
from typing import Any

from fleet.store import tables
from shared.clock import rfc3339

MINUTE = timedelta(minutes=1)


class Teller:
    """Devices that tell of themselves."""

    def __init__(self, world: Any) -> None:
        self.world, self.sequence = world, 0

    async def tell(self, device: str, version: str, **said: Any) -> None:
        """A window that came just now."""
        async with self.world.database.write() as tx:
            tx.add(self.window(device, version, **said))

    def window(self, device: str, version: str, **said: Any) -> tables.Window:
        """`failed`, `fast`, `slow` results, `restarts`, labels, over `length`, that came `at`."""
        self.sequence += 1
        end = said.get("at", self.world.clock.at)
        failed, fast, slow = (int(said.get(name, 0)) for name in ("failed", "fast", "slow"))
        start = end - said.get("length", MINUTE)
        body = {
            "device": device, "stream": "s", "sequence": self.sequence, "at": rfc3339(end), "boot": "b",
            "model": "digits", "version": version, "manifest": "0" * 64, "phase": said.get("phase", "serving"),
            "start": rfc3339(start), "end": rfc3339(end), "requests": failed + fast + slow,
            "errors": {"internal": failed}, "latency": {"100": fast, "250": slow},
            **{name: said[name] for name in ("restarts", "labelled", "correct") if name in said},
        }  # fmt: skip
        return tables.Window(
            device_id=device, stream="s", sequence=self.sequence, model="digits", version=version, start=start,
            end=end, received_at=end, requests=failed + fast + slow, failed=failed, body=body, counted=True,
        )  # fmt: skip
