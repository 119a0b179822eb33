"""Every MQTT payload. JSON, at most 96 KiB, frozen; unknown fields are ignored (ADR 6).

Telemetry windows travel in a compact form of the same fields (`to_wire`, ADR 20); `parse` takes both.

I/O: none.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from shared import compact
from shared.errors import BadInputError
from shared.identifiers import DeviceId, ModelName, Version

MAX_PAYLOAD_BYTES: Final = 96 * 1024


class Message(BaseModel):
    """Base of all payloads: immutable, parsed once at the edge."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """Compact JSON, UTF-8."""
        return self.model_dump_json(exclude_none=True).encode()

    def to_wire(self) -> bytes:
        """The payload as it is sent."""
        return self.to_bytes()

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """The message in `payload`.

        Raises:
            BadInputError: too long, not JSON, or not of this form.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise BadInputError(f"{cls.__name__} of {len(payload)} bytes; the limit is {MAX_PAYLOAD_BYTES}")
        try:
            return cls._read(payload)
        except (ValidationError, RecursionError) as error:
            raise BadInputError(f"not a {cls.__name__}: {_first(error)}") from None
        except BadInputError as error:
            raise BadInputError(f"not a {cls.__name__}: {error.detail}") from None

    @classmethod
    def _read(cls, payload: bytes) -> Self:
        return cls.model_validate_json(payload)


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, found['loc'])) or 'payload'}: {found['msg']}"
    return "nested too deeply"


class Phase(StrEnum):
    """Where one update of one device stands; the words of reports, API and dashboard."""

    ANNOUNCED = "announced"
    VERIFIED = "verified"
    FETCHING = "fetching"
    ASSEMBLED = "assembled"
    STAGED = "staged"
    SELF_TESTED = "self-tested"
    SHADOWING = "shadowing"
    PROBATION = "probation"
    COMMITTED = "committed"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True when nothing more will follow for this assignment."""
        return self in _FINAL


_FINAL: Final = frozenset({Phase.COMMITTED, Phase.REFUSED, Phase.FAILED, Phase.ROLLED_BACK, Phase.CANCELLED})


class Announcement(Message):
    """Manager -> device on ANNOUNCE. A hint: only the two signed documents inside prove anything."""

    type: Literal["announcement/1"] = "announcement/1"
    timestamp: str  # TUF timestamp, the signed bytes as UTF-8 text
    assignment: str  # TUF targets of role `director`, the signed bytes as UTF-8 text


class Ack(Message):
    """Manager -> device on ACK: everything up to these sequences is durable at the manager."""

    type: Literal["ack/1"] = "ack/1"
    stream: str  # the outbox that these numbers belong to
    report: NonNegativeInt = 0
    telemetry: NonNegativeInt = 0


class Want(Message):
    """Device -> manager on WANT: send me these pieces. Signed like a report."""

    type: Literal["want/1"] = "want/1"
    device: DeviceId
    transfer: Annotated[str, Field(pattern=r"^[0-9a-f]{8,32}$")]  # names the answer's pieces
    kind: Literal["chunk", "manifest", "metadata"]
    name: Annotated[str, Field(max_length=128)]
    missing: Annotated[str, Field(pattern=r"^[0-9a-f]{1,32}$")]  # bitmap (shared.pieces)
    window: Annotated[int, Field(ge=1, le=16)]  # so many at most; then I ask again


class Piece(Message):
    """Manager -> device on PIECE, with the bytes behind a line feed. `size_bytes` 0: it is not to be had."""

    type: Literal["piece/1"] = "piece/1"
    transfer: Annotated[str, Field(pattern=r"^[0-9a-f]{8,32}$")]
    index: NonNegativeInt = 0
    size_bytes: NonNegativeInt  # of the whole


class SlotState(Message):
    """One slot as the device sees it."""

    slot: Literal["a", "b"]
    state: str  # agent.update.slots.State
    model: ModelName | None = None
    version: Version | None = None


class DeviceState(Message):
    """Device -> manager on STATE, retained; the last will has `online` false and little else."""

    type: Literal["device-state/1"] = "device-state/1"
    device: DeviceId
    online: bool
    boot: str = ""  # changes at each start of the agent
    agent_version: str = ""
    assignment: NonNegativeInt = 0  # highest assignment version seen
    features: tuple[str, ...] = ()  # what this agent can do that older ones cannot: `windows`, `keep-versions`
    hardware: str = ""  # hardware class, such as `orin-nano-8g` or `x86_64`
    slots: tuple[SlotState, ...] = ()
    serving: dict[str, str] = Field(default_factory=dict)  # model -> version
    troubles: dict[str, str] = Field(default_factory=dict)  # model -> code and why it is not served as it should be
    at: AwareDatetime | None = None


class Queued(Message):
    """A message that leaves the device's outbox only when the manager acknowledged it.

    `after` is the sequence of the message before it in the same outbox, so that the manager knows
    a gap (resend) from a shed message (go on). Sequences survive reboots; `stream` changes when the
    outbox is new, and then they start at 1.
    """

    device: DeviceId
    stream: str
    sequence: NonNegativeInt
    after: NonNegativeInt = 0
    at: AwareDatetime  # device clock: shown to people, never compared


class ShadowFigures(Message):
    """What was seen of a candidate in the shadow of the version that serves. Read by `shared.shadow`."""

    seconds: float = 0.0  # that it was there
    requests: NonNegativeInt = 0  # that it answered, too
    samples: NonNegativeInt = 0  # answers compared: each row of class scores, else each request
    agreed: NonNegativeInt = 0  # of the samples
    failed: NonNegativeInt = 0  # requests that it could not answer
    crashes: NonNegativeInt = 0
    dropped: NonNegativeInt = 0  # sampled requests that it did not look at in time
    skipped: NonNegativeInt = 0  # requests not sampled because the device was busy or hot
    difference: float = 0.0  # largest absolute difference between two outputs
    serving: dict[int, NonNegativeInt] = Field(default_factory=dict)  # one inference, sketches.latency_bin of ms
    candidate: dict[int, NonNegativeInt] = Field(default_factory=dict)  # the same requests


class UpdateReport(Queued):
    """Device -> manager on REPORT, one per phase of an update."""

    type: Literal["update-report/1"] = "update-report/1"
    model: ModelName | None = None
    version: Version | None = None
    rollout: str | None = None
    assignment: NonNegativeInt
    phase: Phase
    reason: str | None = None  # FlotillaError.code when the phase is not a happy one
    detail: str | None = None
    took_ms: float | None = None  # time since the phase before
    fetched_bytes: NonNegativeInt | None = None
    total_bytes: NonNegativeInt | None = None
    sources: Annotated[dict[str, NonNegativeInt], Field(max_length=16)] | None = None  # bytes that came, by source
    shadow: ShadowFigures | None = None  # from the phase `shadowing` on


Counts = Annotated[tuple[NonNegativeInt, ...], Field(max_length=1024)]
#: True class, predicted class, how often.
Confused = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
#: Classes from this one on are counted together: 32 x 32 pairs at most.
LAST_CLASS: Final = 31
Word = Annotated[str, Field(max_length=32)]
#: At most so many of one kind; a machine with more tells of the first.
MAX_PARTS: Final = 16
MAX_CORES: Final = 64
Parts = Annotated[dict[Word, float], Field(max_length=MAX_PARTS)]


class FeatureCounts(Message):
    """Counts of one feature over the fixed bins of the release's baseline."""

    edges: str  # the beginning of the digest of the bin edges; other edges are never merged
    counts: Counts
    missing: NonNegativeInt = 0


class HostMetrics(Message):
    """The host during the window, in jtop's words. Ratios are 0 to 1, temperatures in Celsius."""

    cpu_ratio: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    gpu_ratio: float | None = None
    temperature_celsius: float | None = None  # the hottest sensor
    swap_used_bytes: int | None = None
    power_watts: float | None = None  # of the whole board
    fan_ratio: float | None = None
    power_mode: Word | None = None
    cores_ratio: Annotated[tuple[float, ...], Field(max_length=MAX_CORES)] = ()
    engines_mhz: Parts = Field(default_factory=dict)  # NVENC, NVDEC, VIC, ...; 0 is off
    rails_watts: Parts = Field(default_factory=dict)  # VDD_IN, VDD_SOC, ...
    temperatures_celsius: Parts = Field(default_factory=dict)  # sensor -> its temperature
    throttled: Annotated[tuple[Word, ...], Field(max_length=MAX_PARTS)] = ()  # what slows the machine down


class TelemetryWindow(Queued):
    """Device -> manager on TELEMETRY: what one model version did between two instants."""

    type: Literal["telemetry-window/1"] = "telemetry-window/1"
    boot: str
    model: ModelName
    version: Version
    manifest: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]  # its digest, or the beginning of that
    phase: Literal["probation", "serving"]
    start: AwareDatetime
    end: AwareDatetime
    requests: NonNegativeInt
    errors: dict[str, NonNegativeInt] = Field(default_factory=dict)
    latency: dict[int, NonNegativeInt] = Field(default_factory=dict)  # sketches.LatencyBins, 2 % bins of ms
    features: dict[str, FeatureCounts] = Field(default_factory=dict)
    labelled: NonNegativeInt = 0  # answers for which `feedback` gave the truth
    correct: NonNegativeInt = 0
    confusion: Annotated[tuple[Confused, ...], Field(max_length=1024)] = ()  # of the labelled ones
    batches: dict[NonNegativeInt, NonNegativeInt] = Field(default_factory=dict)  # k: runs of 2^k to 2^(k+1)-1 rows
    restarts: NonNegativeInt = 0  # workers that died
    shed: NonNegativeInt = 0  # windows of this stream that were thrown away for want of room, up to now
    host: HostMetrics = HostMetrics()

    def to_wire(self) -> bytes:
        """The compact form, or JSON where that cannot hold it."""
        document = self.model_dump(mode="json", exclude_none=True)
        return compact.pack(document) if compact.packable(document) else self.to_bytes()

    @classmethod
    def _read(cls, payload: bytes) -> Self:
        if payload.startswith(compact.MARK):
            return cls.model_validate(compact.unpack(payload))
        return cls.model_validate_json(payload)
