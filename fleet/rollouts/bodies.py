"""The parts of a request for a rollout, as they come from outside: checked here, resolved in `plan`.

I/O: none.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet.devices import filtering
from fleet.rollouts import hooks
from shared.identifiers import DeviceId
from shared.shadow import Terms

Ratio = Annotated[float, Field(ge=0, le=1)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TargetBody(Body):
    """Devices by id, by labels, by site, by a filter (docs/filters.md); all of it must hold."""

    ids: tuple[DeviceId, ...] | None = None
    labels: dict[str, str] | None = None
    site: str | None = None
    filter: Annotated[str, Field(max_length=filtering.MAX_LENGTH)] = ""
    channel: str | None = None  # those that follow this alias of the model, and serve the model

    @model_validator(mode="after")
    def _something(self) -> "TargetBody":
        named = (self.ids, self.site, self.channel)
        if all(it is None for it in named) and not self.labels and not self.filter.strip():
            raise ValueError("name ids, labels, a site, a channel or a filter")
        return self


class RampBody(Body):
    """Begin with so many devices a minute; `factor` times as many after each `every` successes."""

    per_minute: Annotated[float, Field(gt=0, le=1_000_000)]
    factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    every: Annotated[int, Field(ge=1)] = 10


class SiteBudgetBody(Body):
    """Bytes that all rollouts together may draw over the line of one site."""

    in_flight_bytes: Annotated[int, Field(ge=1)] | None = None
    hourly_bytes: Annotated[int, Field(ge=1)] | None = None


class CriterionBody(Body):
    """Stop when more than `ratio` of the devices that ended, ended like this."""

    kind: Literal["rolled-back", "refused", "failed", "timed-out", "cancelled", "any"]
    ratio: Ratio
    minimum: Annotated[int, Field(ge=1)] = 1


class GateBody(Body):
    """Guard rails; what is left out comes from the settings."""

    criteria: tuple[CriterionBody, ...] | None = None
    min_success_ratio: Ratio | None = None
    max_error_ratio: Ratio | None = None
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    min_requests: Annotated[int, Field(ge=1)] | None = None
    max_psi: Annotated[float, Field(gt=0)] | None = None
    max_restarts: Annotated[int, Field(ge=0)] | None = None
    silence_seconds: Annotated[float, Field(gt=0)] | None = None
    max_silent_ratio: Ratio | None = None
    require_evidence: bool | None = None
    max_degradation: Annotated[float, Field(ge=0, le=10)] | None = None
    false_abort_level: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_accuracy_loss: Ratio | None = None
    min_labelled: Annotated[int, Field(ge=1)] | None = None
    min_golden_ratio: Ratio | None = None
    webhook: hooks.Body | None = None
    min_shadow_agreement: Ratio | None = None


class ShadowBody(Terms):
    """What a release must show beside what serves, on each device, before it may serve there."""

    model_config = ConfigDict(extra="forbid")
