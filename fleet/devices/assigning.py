"""Tell one device what to run: the next assignment version, signed and stored in one transaction.

Announce it after the commit (`Announcer.announce`); a device that does not hear it is told again.

I/O: none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fleet.devices.terms import AT_ONCE, Terms
from fleet.rollouts import standing
from shared.errors import RefusedError

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

    from fleet.releases.director import Director
    from fleet.store.tables import Device, Release

#: In the place of a rollout's id when a person assigned a release to one device.
BY_HAND = "manual"


class NoOtherSlotError(RefusedError):
    """The device holds no other good version to go back to."""

    code = "E_NO_OTHER_SLOT"
    status: ClassVar[int] = 409
    default_remedy = "start a rollout of the version that you want: flotilla rollout start MODEL VERSION --target ID"


#: later: have it ready, and wait for another assignment of it before the swap; never: give it up where it does not
#: serve yet.
Activate = Literal["now", "later", "never"]


@dataclass(frozen=True, slots=True)
class Order:
    """How a release is ordered, beside which one."""

    rollout: str = BY_HAND
    activate: Activate = "now"
    force: bool = False  # try it although it is known to be bad on the device
    terms: Terms = AT_ONCE
    expires: datetime | None = None  # None: in 30 days


async def assign(
    tx: AsyncSession, director: Director, device: Device, release: Release, order: Order = Order(), *, now: datetime
) -> int:
    """The new assignment version of `device`, stored with its signed document.

    Raises:
        WithdrawnError: no device is given this release any more.
    """
    if order.activate != "never":
        standing.check_given(release)
    version = device.assignment + 1
    device.assigned = director.assign(
        device=device.id, box_key=device.box_key, release=release, order=order, version=version, now=now
    )
    device.assignment = version
    await tx.flush()
    return version


def assigned_release(device: Device) -> tuple[str, str] | None:
    """(model, version) that the newest assignment of `device` gives it; None when that calls it off."""
    if device.assigned is None:
        return None
    targets = json.loads(device.assigned)["signed"]["targets"].values()
    custom = next(iter(targets))["custom"]
    return None if custom.get("activate") == "never" else (str(custom["model"]), str(custom["version"]))


def other_good_slot(slots: list[Any], serving: dict[str, Any], model: str | None) -> tuple[str, str]:
    """(model, version) of the good slot that does not serve.

    Raises:
        NoOtherSlotError: there is none, or several models have one and none was named.
    """
    found = {
        (str(slot["model"]), str(slot["version"]))
        for slot in slots
        if slot.get("state") == "good"
        and slot.get("version")
        and slot.get("model") in serving
        and slot["version"] != serving[slot["model"]]
        and model in (None, slot["model"])
    }
    if not found:
        raise NoOtherSlotError("the device holds no other good version")
    if len(found) > 1:
        raise NoOtherSlotError(
            "several models of this device could go back: " + ", ".join(sorted({name for name, _ in found})),
            remedy="name one: flotilla device rollback ID --model MODEL",
        )
    return found.pop()
