"""Templates and what every page has in common: filters, the side bar, the palette, the headers that go with HTML.

I/O: disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fleet.access.roles import Actor
from fleet.dashboard import drawing, facts
from fleet.dashboard.conditions import SYMBOL, active

HERE: Final = Path(__file__).parent
#: No inline script or style, nothing from outside, no framing: what a device says can only ever be text.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Nav:
    """The numbers of the side bar."""

    devices: int
    running: int


@dataclass(frozen=True, slots=True)
class Palette:
    """What Ctrl-K finds beside the fixed commands."""

    devices: Sequence[facts.Device] = ()
    rollouts: Sequence[facts.Rollout] = ()

    @classmethod
    def of(cls, devices: Sequence[facts.Device], rollouts: Sequence[facts.Rollout]) -> "Palette":
        """The first devices, and the newest rollouts with those under way in front."""
        going = active(rollouts)
        return cls(devices[:200], [*going, *(one for one in rollouts if one not in going)][:8])


@dataclass(frozen=True, slots=True)
class May:
    """Which buttons work for this visitor, and why the others do not."""

    rollouts: bool
    alerts: bool
    why_rollouts: str
    why_alerts: str

    @classmethod
    def of(cls, actor: Actor) -> "May":
        """What `actor` may do."""
        why = f"the role {actor.role} may only look; ask an admin for a token with the role operator"
        return cls(actor.may("rollouts:write"), actor.may("alerts:write"), why, why)


def environment(*more: Path) -> Environment:
    """Jinja with autoescape on: every value is text unless a template says otherwise, and none does.

    Templates are those of the pages, and those in the folders of `more`.
    """
    made = Environment(
        loader=FileSystemLoader([HERE / "templates", *more]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(many=drawing.many, initials=drawing.initials)
    made.globals.update(SYMBOL=SYMBOL)
    return made


def fragments(made: Environment, names: Mapping[str, str], context: Mapping[str, Any]) -> Mapping[str, str]:
    """Target id -> HTML, for a table of target id -> template."""
    return {target: made.get_template(name).render(context) for target, name in names.items()}
