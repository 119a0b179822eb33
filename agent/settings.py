"""What an operator may set on a device: `agent.yaml`, one section for each package.

Read by `shared.configuration`: flag > FLOTILLA_... > file > default; unknown keys are errors.

I/O: none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from shared.peers import private

Ratio = Annotated[float, Field(ge=0, le=1)]
#: YAML reads a bare on and off as true and false.
Switch = Annotated[
    Literal["off", "on"], BeforeValidator(lambda value: ("off", "on")[value] if isinstance(value, bool) else value)
]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelServing(Section):
    """How one model is served."""

    max_batch_rows: PositiveInt = 1  # waiting requests are joined up to so many rows, where the model's shape allows
    batch_delay_microseconds: Annotated[int, Field(ge=0, le=1_000_000)] = 0  # to wait for more of them
    threads: PositiveInt | None = None  # of one inference; None: serving.threads


class ServingSettings(Section):
    """The inference endpoint for applications on this device."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8600  # 0: any free port, see `endpoints.json`
    uds_path: Path | None = None  # None: <state_dir>/inference.sock
    grpc_host: str = "127.0.0.1"
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = 8601  # 0: any free port; None: no gRPC
    # Who may hand over tensors in memory that he shares: only clients of the Unix socket, or also of TCP and gRPC.
    shared_memory: Literal["off", "unix", "loopback"] = "unix"
    worker_python: str | None = None  # interpreter that has onnxruntime; None: our own
    providers: tuple[str, ...] | None = None  # None: those of the release, best first
    cpu_fallback: bool = False  # the CPU may stand in where no accelerator that the release names takes the model
    fp16: Literal["auto", "off"] = "auto"  # TensorRT in 16 bits, CUDA in TF32, where releases allow it
    gpu_memory_bytes: PositiveInt | None = None  # for one version on a GPU; None: what it takes
    when_memory_is_short: Literal["refuse", "stop-start"] = "refuse"  # stop-start: the old version ends before
    threads: PositiveInt = 1  # of one inference
    max_connections: PositiveInt = 1024  # beyond it whoever has been idle for longest is closed
    queue_limit: PositiveInt = 256  # requests that may wait for one model; beyond it 503 with Retry-After
    request_timeout_seconds: PositiveFloat = 10.0
    load_timeout_seconds: PositiveFloat = 60.0
    wakeful: Literal["auto", "off"] = "auto"  # keep processors from sleeping while requests come, where we may
    probes: Literal["on", "off"] = "on"  # off: no features, so no drift; counts and latencies stay
    models: Mapping[str, ModelServing] = Field(default_factory=dict)  # by name, where a model needs its own
    realtime: Literal["auto", "off"] = "auto"  # answers before other programs, where the system grants it


class UpdateSettings(Section):
    """How carefully a new version is let in."""

    probation_seconds: PositiveFloat = 60.0  # watched at least this long
    probation_requests: PositiveInt = 100  # and over at least this many requests,
    probation_limit_seconds: PositiveFloat = 300.0  # but no longer than this
    tries: PositiveInt = 3  # starts of a version on probation before it is given up
    max_error_ratio: Ratio = 0.01
    max_latency_ratio: PositiveFloat = 2.0  # p95 against the version before, on this device
    max_accuracy_drop: Ratio = 0.1  # from feedback, against the version before on this device
    min_labelled: PositiveInt = 30  # answers with known truth before accuracy is judged
    self_test_timeout_seconds: PositiveFloat = 60.0
    self_test_memory_bytes: PositiveInt = 4 * 1024**3  # address space of the throw-away child
    engine_build_timeout_seconds: PositiveFloat = 1800.0  # of a self-test that must compile engines first
    max_self_test_latency_ratio: PositiveFloat = 4.0  # golden run against the version that serves, on this device
    memory_margin_bytes: NonNegativeInt = 128 * 1024**2  # to be left over while a version is loaded
    max_temperature_celsius: PositiveFloat = 85.0  # hotter: self-test and swap wait
    max_cpu_ratio: Annotated[float, Field(gt=0, le=1)] | None = None  # busier: they wait; None: no reason to wait
    defer_limit_seconds: PositiveFloat = 900.0  # of such waiting, for each of them
    after_defer: Literal["refuse", "go-on"] = "refuse"  # what happens then
    fetch_connections: PositiveInt = 4
    fetch_idle_seconds: PositiveFloat = 30.0  # a silent source is given up after this,
    fetch_minimum_bytes_per_second: NonNegativeInt = 128  # and one that is slower for so long; 0: none is
    max_bytes_per_second: PositiveInt | None = None  # of downloads, all connections together; None: no limit
    site_cache_url: Annotated[str, Field(pattern=r"^https?://.")] | None = (
        None  # asked for chunks and manifests before the manager
    )
    mqtt_chunks: Switch = "off"  # releases through the broker, where HTTP brings nothing
    mqtt_after_seconds: PositiveFloat = 120.0  # without any progress by HTTP
    install_threads: PositiveInt = 2  # that open chunks and write the model, at most;
    install_nice: Annotated[int, Field(ge=0, le=19)] = 10  # they let others go first: 0 as any thread, 19 whenever
    minimum_free_bytes: PositiveInt = 64 * 1024**2  # left on the disk after an update


class PeerSettings(Section):
    """Whether chunks are shared with other devices of the site; the manager must want it for the site, too."""

    share: Switch = "off"
    # Where this device serves them: its own address in the local network; None: it only takes.
    address: Annotated[str, AfterValidator(private)] | None = None
    port: Annotated[int, Field(ge=0, le=65535)] = 8602  # 0: any free port
    max_connections: PositiveInt = 16
    max_bytes_per_second: PositiveInt = 8 * 1024**2  # served, all connections together
    keep_hours: NonNegativeFloat = 24.0  # chunks of the newest release stay for others, while there is room
    wait_seconds: PositiveFloat = 300.0  # without anything from peers; then the manager is asked in any case


class TelemetrySettings(Section):
    """What is measured and how long it is kept until the manager has it."""

    window_seconds: PositiveFloat = 60.0  # of a version that is new, on probation or in trouble
    quiet_window_seconds: PositiveFloat = 3600.0  # afterwards windows grow to this and end at its multiples
    settle_minutes: NonNegativeFloat = 10.0  # how long a version is new
    outbox_bytes: PositiveInt = 64 * 1024**2  # beyond it the oldest telemetry is shed; reports never
    resend_seconds: PositiveFloat = 15.0  # without the manager's ack, send again


class AgentSettings(Section):
    """The whole of `agent.yaml`."""

    state_dir: Path = Path("/var/lib/flotilla-agent")
    hardware: str | None = None  # hardware class; None: found out
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    heartbeat_seconds: PositiveFloat = 30.0
    serving: ServingSettings = ServingSettings()
    update: UpdateSettings = UpdateSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    peers: PeerSettings = PeerSettings()
