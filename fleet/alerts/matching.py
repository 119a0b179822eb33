"""Which alerts a silence covers.

I/O: none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.alerts.states import Severity

Pattern = Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, slots=True)
class Traits:
    """What silences look at. `labels` are those of the alert's device, with its `site`."""

    kind: str
    scope: str
    subject: str
    severity: str
    labels: Mapping[str, str]


class Matcher(BaseModel):
    """What is given must fit, all of it; what is left out does not matter. `*` and `?` stand for any text, any sign."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Pattern | None = None
    scope: Pattern | None = None
    subject: Pattern | None = None
    severity: Severity | None = None
    labels: Annotated[dict[Annotated[str, Field(max_length=64)], Pattern], Field(max_length=16)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.kind or self.scope or self.subject or self.severity or self.labels):
            raise ValueError("name one of kind, scope, subject, severity, labels; kind `*` silences everything")
        return self

    @classmethod
    def exactly(cls, kind: str, scope: str, subject: str) -> Self:
        """One cause and no other, whatever signs are in its names."""
        return cls(kind=_literal(kind), scope=_literal(scope), subject=_literal(subject))

    def fits(self, traits: Traits) -> bool:
        """True when an alert with these traits is covered."""
        patterns = ((self.kind, traits.kind), (self.scope, traits.scope), (self.subject, traits.subject))
        return (
            all(pattern is None or fnmatchcase(value, pattern) for pattern, value in patterns)
            and self.severity in (None, traits.severity)
            and all(
                key in traits.labels and fnmatchcase(traits.labels[key], value) for key, value in self.labels.items()
            )
        )


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence that nobody ended."""

    id: str
    matcher: Matcher
    until: datetime


def covering(silences: Iterable[Silence], traits: Traits, now: datetime) -> Silence | None:
    """The silence that covers such an alert for longest; None when it may be heard."""
    fitting = (silence for silence in silences if silence.until > now and silence.matcher.fits(traits))
    return max(fitting, key=lambda silence: silence.until, default=None)


def _literal(text: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in text)
