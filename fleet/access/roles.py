"""Roles and what each may do: deny by default, one table.

I/O: none.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Permission = Literal[
    "devices:read",
    "devices:write",
    "invites:write",
    "releases:read",
    "releases:write",
    "releases:withdraw",
    "trust:write",
    "rollouts:read",
    "rollouts:write",
    "rollouts:approve",
    "drift:read",
    "drift:write",
    "alerts:read",
    "alerts:write",
    "audit:read",
    "backups:write",
    "tokens:write",
    "users:write",
    "events:read",
]
Role = Literal["viewer", "operator", "approver", "releaser", "admin"]

PERMISSIONS: Final[tuple[Permission, ...]] = get_args(Permission)
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_READ: Final[frozenset[Permission]] = frozenset(
    {"devices:read", "releases:read", "rollouts:read", "drift:read", "alerts:read", "events:read"}
)
GRANTS: Final[dict[Role, frozenset[Permission]]] = {
    "viewer": _READ,
    "operator": _READ
    | {"devices:write", "invites:write", "releases:withdraw", "rollouts:write", "drift:write", "alerts:write"},
    "approver": _READ | {"rollouts:approve", "alerts:write", "audit:read"},
    "releaser": _READ | {"releases:write", "releases:withdraw"},
    "admin": frozenset(PERMISSIONS),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a user, a token, or a part of the manager itself (role `system`)."""

    name: str
    role: str
    request_id: str = ""
    person: str = ""  # the user behind it; empty: a token that is nobody's

    @property
    def who(self) -> str:
        """The person, where one is known: two tokens of one person are one. Approvals count these."""
        return self.person or self.name

    def may(self, permission: Permission) -> bool:
        """True when the role of this actor grants `permission`."""
        return any(role == self.role and permission in granted for role, granted in GRANTS.items())

    def permissions(self) -> tuple[Permission, ...]:
        """Everything that this actor may do, in the order of the table."""
        return tuple(permission for permission in PERMISSIONS if self.may(permission))


def system(part: str) -> Actor:
    """The actor of writes that no person asked for, such as `rollouts` or `enrolment`."""
    return Actor(f"system:{part}", "system")
