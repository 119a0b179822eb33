"""What routes are given: the manager, the actor, a page of a list.

Each route declares `Depends(allow("rollouts:write"))` or `Depends(public())`; one that declares neither fails a test.

I/O: none.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from fastapi import Request

from fleet.access.roles import ROLES, Actor, Permission
from fleet.api.problems import Problem
from shared.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fleet.daemon import Manager

MAX_LIMIT: Final = 500

__all__ = [
    "MAX_LIMIT",
    "Actor",
    "Allow",
    "Problem",
    "Public",
    "actor_of",
    "allow",
    "check_allowed",
    "csrf_of",
    "decode_cursor",
    "encode_cursor",
    "manager_of",
    "paged",
    "public",
    "request_id_of",
]


def manager_of(request: Request) -> Manager:
    """The manager that this application belongs to."""
    return cast("Manager", request.app.state.manager)


@dataclass(frozen=True, slots=True)
class Allow:
    """A dependency: the actor of the request, if its role grants `permission`."""

    permission: Permission

    def __call__(self, request: Request) -> Actor:
        actor = actor_of(request)
        if actor is None:
            raise Problem(
                401,
                "E_UNAUTHENTICATED",
                "Sign in first",
                "this needs a valid token",
                "send `Authorization: Bearer TOKEN`, or run `flotilla login URL --user NAME` (or `--token TOKEN`)",
                headers={"WWW-Authenticate": 'Bearer realm="flotilla"'},
            )
        check_allowed(actor, self.permission)
        return actor


@dataclass(frozen=True, slots=True)
class Public:
    """A dependency that says: anybody may call this route."""

    def __call__(self) -> None:
        return None


def check_allowed(actor: Actor, permission: Permission) -> None:
    """Return if `actor` has `permission`; for what a route needs beside the one that it declares.

    Raises:
        Problem: the role does not grant it.
    """
    if actor.may(permission):
        return
    able = ", ".join(role for role in ROLES if Actor("", role).may(permission))
    raise Problem(
        403,
        "E_FORBIDDEN",
        "Not allowed",
        f"the role {actor.role} may not do this: it needs {permission}",
        f"ask an admin for one of these roles: {able}",
    )


def allow(permission: Permission) -> Allow:
    """For `Annotated[Actor, Depends(allow("..."))]`: the actor, or 401, or 403."""
    return Allow(permission)


def public() -> Public:
    """For `dependencies=[Depends(public())]`: no credentials needed."""
    return Public()


def actor_of(request: Request) -> Actor | None:
    """Who asks, as `middleware` found out; None for strangers."""
    return cast("Actor | None", request.scope.get("flotilla.actor"))


def request_id_of(request: Request) -> str:
    """The id of this request in answers, logs and the audit."""
    return cast("str", request.scope.get("flotilla.request_id", ""))


def csrf_of(request: Request) -> str:
    """What a page of a signed-in browser sends back as `X-CSRF-Token`; empty without a session."""
    return cast("str", request.scope.get("flotilla.csrf", ""))


def paged(items: Sequence[Any], *, limit: int, cursor: Any = None) -> dict[str, Any]:
    """The answer of a list: `items` are at most `limit` rows; `cursor` is the position of the last one.

    A page shorter than `limit` is the last one and has no `next_cursor`.
    """
    more = cursor is not None and len(items) >= limit
    return {"items": list(items), "next_cursor": encode_cursor(cursor) if more else None}


def encode_cursor(position: Any) -> str:
    """An opaque text for a JSON position."""
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> Any:
    """Inverse of `encode_cursor`; None for None.

    Raises:
        BadInputError: not a cursor of ours.
    """
    if cursor is None:
        return None
    try:
        return json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise BadInputError(
            "this cursor is not one that a list gave out", remedy="start again without `cursor`"
        ) from None
