"""Tell the manager that this device leaves the fleet; with its own key, so that nobody else can.

I/O: network, disk, clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx2

from agent import identity
from agent.errors import NotEnrolledError
from shared import seal
from shared.errors import FlotillaError
from shared.leaving import TOPIC, Goodbye

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_SECONDS: Final = 10.0


class Told(NamedTuple):
    """What came of it."""

    known: bool | None  # whether the manager knows now that this device is gone; None: there was nothing to tell
    detail: str
    device: str = ""


def tell(state_dir: Path) -> Told:
    """Say good-bye; again is harmless."""
    try:
        enrolled = identity.enrolment(state_dir)
        keys = identity.keys(state_dir)
    except NotEnrolledError:
        return Told(None, "this device belongs to no fleet")
    except FlotillaError as error:
        return Told(False, f"the manager could not be told: {error.detail}")
    said = Goodbye(device=enrolled.device_id, at=datetime.now(UTC)).to_bytes()
    url = f"{enrolled.manager_url.rstrip('/')}/api/v1/leave"
    try:
        with httpx2.Client(timeout=TIMEOUT_SECONDS) as http:
            answer = http.post(url, content=seal.sealed(said, topic=TOPIC, sign=keys.signature))
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        why = f"no manager answers at {enrolled.manager_url}: {str(error) or type(error).__name__}"
        return Told(False, why, enrolled.device_id)
    if answer.status_code == httpx2.codes.OK:
        return Told(True, f"{enrolled.device_id} left the fleet of {enrolled.manager_url}", enrolled.device_id)
    if answer.status_code == httpx2.codes.NOT_FOUND and '"E_NOT_FOUND"' in answer.text:
        return Told(True, f"{enrolled.manager_url} knows no {enrolled.device_id} (any more)", enrolled.device_id)
    return Told(False, f"{enrolled.manager_url} answered {answer.status_code}", enrolled.device_id)
