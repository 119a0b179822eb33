"""Join a fleet: prove possession of the keys, hand over the claim token, keep the answer.

Repeating it with the same keys and a valid token is harmless.

I/O: network.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from pydantic import ValidationError

from agent.errors import (
    EnrolAnswerError,
    EnrolConflictError,
    EnrolNotReadyError,
    EnrolRefusedError,
    EnrolTokenError,
    EnrolUnreachableError,
)
from agent.identity import Enrolment, Keys
from shared.errors import FlotillaError
from shared.identifiers import sha256

TIMEOUT_SECONDS: Final = 20.0
_CREATED: Final = 201
#: What the manager's own codes mean here; of other codes the status decides.
_CODES: Final[Mapping[str, type[FlotillaError]]] = {
    "E_CLAIM": EnrolTokenError,
    "E_DEVICE_EXISTS": EnrolConflictError,
    "E_NOT_INITIALISED": EnrolNotReadyError,
    "E_TOO_MANY": EnrolNotReadyError,
}
_STATUSES: Final[Mapping[int, type[FlotillaError]]] = {
    401: EnrolTokenError,
    403: EnrolTokenError,
    409: EnrolConflictError,
    429: EnrolNotReadyError,
    502: EnrolNotReadyError,
    503: EnrolNotReadyError,
    504: EnrolNotReadyError,
}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a device says about itself."""

    token: str
    device_id: str
    name: str
    hardware: str
    agent_version: str

    def body(self, keys: Keys) -> dict[str, str]:
        """The request, with the proof that its keys are ours."""
        box = base64.b64encode(keys.box_public).decode()
        return {
            "claim_token": self.token,
            "device_id": self.device_id,
            "name": self.name,
            "hardware": self.hardware,
            "agent_version": self.agent_version,
            "sign_key": base64.b64encode(keys.sign_public).decode(),
            "box_key": box,
            "proof": base64.b64encode(keys.signature(_statement(self.token, self.device_id, box))).decode(),
        }


def _statement(token: str, device_id: str, box_key: str) -> bytes:
    return f"flotilla/enroll/1|{sha256(token.encode())}|{device_id}|{box_key}".encode()


def enroll(manager_url: str, claim: Claim, keys: Keys) -> Enrolment:
    """Ask the manager at `manager_url` to take this device.

    Raises:
        EnrolUnreachableError: nobody answers there.
        EnrolNotReadyError: the manager cannot enroll now.
        EnrolTokenError: the token is unknown, expired or used up.
        EnrolConflictError: the id belongs to a device with other keys.
        EnrolRefusedError: refused for another reason.
        EnrolAnswerError: the answer is not one of a Flotilla manager.
    """
    url = f"{manager_url.rstrip('/')}/api/v1/enroll"
    try:
        with httpx2.Client(timeout=TIMEOUT_SECONDS) as http:
            answer = http.post(url, json=claim.body(keys))
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
        raise EnrolAnswerError(f"{manager_url!r} is not an address", remedy="write it as https://host:port") from None
    except httpx2.HTTPError as error:
        raise EnrolUnreachableError(
            f"no manager answers at {manager_url}: {str(error) or type(error).__name__}"
        ) from None
    if answer.status_code != _CREATED:
        raise _refusal(manager_url, answer)
    try:
        return Enrolment.model_validate_json(answer.content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "answer"
        raise EnrolAnswerError(f"the answer of {manager_url} has no usable {where!r}") from None


def _refusal(manager_url: str, answer: httpx2.Response) -> FlotillaError:
    problem = _problem(answer)
    if problem is None:
        return EnrolAnswerError(f"{manager_url} answered {answer.status_code}, but not as a Flotilla manager does")
    detail = str(problem.get("detail") or problem.get("title") or f"status {answer.status_code}")
    text, remedy = f"{detail} ({problem['code']})", str(problem.get("hint") or "")
    found = _CODES.get(str(problem["code"])) or _STATUSES.get(answer.status_code, EnrolRefusedError)
    return found(text, remedy=remedy)


def _problem(answer: httpx2.Response) -> dict[str, Any] | None:
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) and "code" in document else None
