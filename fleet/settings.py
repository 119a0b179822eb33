"""What an operator may set on the manager: `fleet.yaml`, one section for each subject.

Read by `shared.configuration`: flag > FLOTILLA_... > file > default; unknown keys are errors.

I/O: none.
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)

from fleet.alerts.channels import Channel, ChannelName
from shared.errors import BadInputError
from shared.windows import WEEKDAYS, Hours, WallTime, Weekday, ZoneName, check_zone

Ratio = Annotated[float, Field(ge=0, le=1)]
#: YAML reads a bare on and off as true and false.
Switch = Annotated[
    Literal["off", "on"], BeforeValidator(lambda value: ("off", "on")[value] if isinstance(value, bool) else value)
]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _always(why: str) -> Callable[[bool], bool]:
    """A check that a protection is on."""

    def check(said: bool) -> bool:
        if not said:
            raise ValueError(f"this cannot be switched off: {why}")
        return said

    return check


class ServerSettings(Section):
    """Where REST, the dashboard and the chunks are served."""

    host: str = "127.0.0.1"
    port: Port = 8420  # 0: any free port, see `endpoints.json`
    public_url: str | None = None  # what devices are told; None: http://host:port
    max_body_bytes: PositiveInt = 8 * 1024**2  # of one request
    session_idle_minutes: PositiveFloat = 30.0  # a browser that does nothing for longer signs in again
    tls_certificate: Path | None = None  # PEM, with what it is signed by; with `tls_key`: HTTPS
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("server.tls_certificate and server.tls_key belong together")
        return self


class DatabaseSettings(Section):
    """Where the manager remembers."""

    url: str | None = None  # None: SQLite in the data folder


class ReleaseSettings(Section):
    """Where sealed chunks are kept, and from where devices load them."""

    store: str | None = None  # a folder, or a URL such as s3://bucket/prefix (extra `bucket`); None: in the data folder
    public_url: str | None = None  # the same folder as devices see it, at any web server; None: the manager serves it


class MqttSettings(Section):
    """The broker between manager and devices."""

    url: str | None = None  # mqtt:// or mqtts://; None: the embedded broker
    username: str | None = None
    password: str | None = None
    public_url: str | None = None  # what devices are told; None: `url`, or the embedded broker
    embedded_host: str = "127.0.0.1"
    embedded_port: Port = 1883  # 0: any free port
    messages_per_second: PositiveFloat = 20.0  # of one device, on average;
    burst_messages: PositiveInt = 200  # more at once are dropped, and sent again by the device
    chunks: Switch = "off"  # whether devices that ask may get releases through the broker
    chunk_bytes_per_second: PositiveInt = 256 * 1024  # of such, all devices together
    require_signatures: bool = False  # refuse reports and telemetry that are not signed by the device's own key


class PeerSettings(Section):
    """Sites whose devices bring a release there once, and serve it to each other (docs/devices.md)."""

    sites: tuple[str, ...] = ()  # names of sites; `*`: every device that has a site
    copies: PositiveInt = 2  # of one chunk, at most, to a site that shares
    turn_seconds: PositiveFloat = 60.0  # until another device may fetch a chunk that one is fetching
    patience_seconds: PositiveFloat = 300.0  # a device that comes to nothing for so long is served in any case


class EnrolmentSettings(Section):
    """How devices become known."""

    invite_hours: PositiveFloat = 24.0  # life of a claim token
    attempts_per_minute: PositiveInt = 60  # of one address


class UserSettings(Section):
    """How long people stay signed in. Roles, and who there is: `flotilla user`."""

    session_hours: PositiveFloat = 12.0  # a browser signs in again after it, whatever it does; so does `flotilla login`
    longest_sign_in_days: PositiveFloat = 30.0  # what `flotilla login --expires` may ask for


class SecuritySettings(Section):
    """What protects the fleet. Signatures and encryption cannot be switched off: devices take nothing else."""

    use_tls: bool = True  # refuse to start where something would travel to other machines in clear text
    verify_model_signatures: Annotated[
        bool, AfterValidator(_always("a device takes only what a release key signed"))
    ] = True
    encrypt_model_transfer: Annotated[
        bool, AfterValidator(_always("chunks exist only sealed, at rest and on the wire"))
    ] = True
    api_key_length: Annotated[int, Field(ge=16, le=128)] = 32  # random bytes in the API key of a device


class DeploymentSettings(Section):
    """How far and how fast rollouts go."""

    base_dir: Path | None = None  # the manager's folder: another name of `data_dir`

    max_concurrent_deployments: PositiveInt = 5
    deployment_timeout_minutes: PositiveFloat = 30.0
    heartbeat_interval_seconds: PositiveFloat = 60.0  # late after 1.5 of these in silence, offline after 3
    performance_monitoring_interval_minutes: PositiveFloat = 15.0  # how often performance is looked at
    auto_rollback_on_failure: bool = True
    rollback_devices_per_minute: PositiveFloat = 1000.0  # called back by one rollout
    site_in_flight_bytes: PositiveInt | None = None  # downloads of one site at a time; None: as the places allow
    site_hourly_bytes: PositiveInt | None = None  # downloads of one site in an hour; None: no limit
    require_device_authentication: bool = True  # false: devices may ask without a claim token, and wait to be accepted


class SchedulingSettings(Section):
    """When devices change what they serve: scheduled and automatic updates, and rollouts with `--in-window`."""

    enable_auto_updates: bool = True  # moving an alias brings its version to the devices that follow it
    update_window_start: WallTime = "02:00"  # on the wall of each device
    update_window_end: WallTime = "04:00"  # on the next day if it is earlier; 24:00 is midnight
    batch_size: PositiveInt = 3  # of automatic updates: a batch, or the first wave of a canary
    rollout_strategy: Literal["canary", "blue_green", "rolling"] = "canary"  # of automatic updates
    weekdays: tuple[Weekday, ...] = WEEKDAYS  # that a window may begin on
    blackout_dates: tuple[date, ...] = ()  # no swap on these, from midnight to midnight
    timezone: ZoneName = "UTC"  # of devices without the label `timezone`
    jitter_minutes: NonNegativeFloat = 10.0  # devices begin spread over so long
    missed_windows: PositiveInt = 2  # windows that a device may let pass before an alert tells of it
    misfire_grace_minutes: NonNegativeFloat = 60.0  # a schedule that is later than this is skipped

    @field_validator("update_window_start", "update_window_end", mode="before")
    @classmethod
    def _wall_time(cls, said: object) -> object:
        """YAML reads 22:00 without quotes as 1320, in base 60."""
        if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= 24 * 60:
            return f"{said // 60:02d}:{said % 60:02d}"
        return said

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            check_zone(self.timezone)
        except BadInputError as error:
            raise ValueError(error.detail) from None
        if not self.weekdays or self.update_window_start in (self.update_window_end, "24:00"):
            raise ValueError("the window needs a weekday, and other times to begin and to end at")
        return self

    @property
    def hours(self) -> Hours:
        """The window."""
        return Hours(
            start=self.update_window_start,
            end=self.update_window_end,
            weekdays=self.weekdays,
            blackouts=self.blackout_dates,
        )


class VersioningSettings(Section):
    """How many versions are kept, and for how long."""

    max_versions_per_device: PositiveInt = 3  # of each model; two at least, for going back without download
    version_retention_days: PositiveFloat = 30.0  # of chunks that nothing needs, since their release was published
    cleanup_old_versions: bool = True  # remove them by itself, once an hour


class MonitoringSettings(Section):
    """Guard rails of a new version, beyond which its rollout stops, and of what serves, which raise alerts."""

    error_rate_threshold: Ratio = 0.05
    latency_threshold_ms: PositiveFloat = 1000.0
    performance_degradation_threshold: Annotated[float, Field(gt=0, le=1)] = 0.1  # more errors, less accuracy, slower
    memory_usage_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8  # of a device's memory


class GateSettings(Section):
    """What gates of rollouts ask and keep."""

    secret: SecretStr | None = None  # signs what is posted to a webhook that a rollout names by its URL
    secret_file: Path | None = None
    allow_private: bool = False  # such a URL may lead to private networks and to this machine
    ca_file: Path | None = None
    verdict_retention_days: PositiveFloat = 90.0

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("give either secret or secret_file, not both")
        if self.secret is not None and len(self.secret.get_secret_value()) < 16:  # as of channels
            raise ValueError("the secret is shorter than 16 characters; make one with: openssl rand -hex 32")
        return self


class DriftSettings(Section):
    """When distributions are compared."""

    monitoring_interval_hours: PositiveFloat = 6.0
    baseline_window_days: Annotated[int, Field(ge=2, le=60)] = (
        7  # a device's first days, and the past it is compared with
    )
    detection_window_days: PositiveFloat = 1.0  # what is shown; alarms look at 1/24 of it, 2/24 ... 128/24
    min_samples_for_detection: PositiveInt = 100
    enable_statistical_tests: bool = True  # the calibrated alarm
    enable_threshold_rules: bool = False  # as well: `thresholds.statistical_drift`, without regard to chance
    false_alarms_per_day: PositiveFloat = 1.0  # of the whole fleet, all models and features together
    significance: Annotated[float, Field(gt=0, lt=1)] = 0.00005  # p below it is a warning; drift ends above it
    window_retention_days: PositiveFloat = 30.0  # of single telemetry windows
    hourly_retention_days: Annotated[float, Field(ge=7)] = 14.0  # of sums over an hour
    daily_retention_days: Annotated[float, Field(ge=60)] = 400.0  # of sums over a day
    enable_visualization: bool = True  # write a report for each drift alert, and daily for each model that serves
    output_dir: Path | None = None  # where to; None: `reports` in the data folder
    report_files_kept: Annotated[int, Field(ge=2)] = 200  # the newest ones; each report is a page and a plot


class StatisticalThresholds(Section):
    """Distances that count as drift: for rollouts, and for all with `enable_threshold_rules`."""

    psi_threshold: PositiveFloat = 0.2
    kl_divergence_threshold: PositiveFloat = 0.1  # nats
    js_divergence_threshold: PositiveFloat = 0.1  # nats; the divergence, not its square root


class PerformanceThresholds(Section):
    """How much worse than on its reference data, or than this device before, a release may be, for certain."""

    accuracy_threshold: Annotated[float, Field(gt=0, le=1)] = 0.05  # a difference of ratios
    precision_threshold: Annotated[float, Field(gt=0, le=1)] = 0.05
    recall_threshold: Annotated[float, Field(gt=0, le=1)] = 0.05
    latency_threshold: PositiveFloat = 0.2  # a share of the p95 before


class SeverityLevels(Section):
    """From which distance on an alert is low, medium, high, critical."""

    low: PositiveFloat = 0.05
    medium: PositiveFloat = 0.1
    high: PositiveFloat = 0.2
    critical: PositiveFloat = 0.3


class Thresholds(Section):
    """Where ordinary ends."""

    performance_drift: PerformanceThresholds = PerformanceThresholds()
    statistical_drift: StatisticalThresholds = StatisticalThresholds()
    severity_levels: SeverityLevels = SeverityLevels()


class AlertSettings(Section):
    """What becomes of alarms."""

    clear_evaluations: PositiveInt = 3  # quiet looks in a row before an alert resolves by itself
    enable_notifications: bool = True  # tell people; what happened is in feed, API and dashboard in any case
    notification_channels: tuple[str, ...] = ("email", "webhook")  # names below `channels`
    group_wait_seconds: NonNegativeFloat = 30.0  # alerts with one cause that open within it go out as one message
    escalation_hours: PositiveFloat = 24.0  # an alert that nobody acknowledged for so long escalates
    auto_trigger_retraining: bool = False  # channels with `retraining: true` get a request for each drift
    expiry_days: PositiveFloat = 14.0  # tokens and signed documents that end sooner raise an alert


class FleetSettings(Section):
    """The whole of `fleet.yaml`."""

    data_dir: Path = Path("/var/lib/flotilla-fleet")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    releases: ReleaseSettings = ReleaseSettings()
    mqtt: MqttSettings = MqttSettings()
    peers: PeerSettings = PeerSettings()
    enrolment: EnrolmentSettings = EnrolmentSettings()
    users: UserSettings = UserSettings()
    security: SecuritySettings = SecuritySettings()
    deployment: DeploymentSettings = DeploymentSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    versioning: VersioningSettings = VersioningSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    gates: GateSettings = GateSettings()
    drift_detection: DriftSettings = DriftSettings()
    thresholds: Thresholds = Thresholds()
    alerts: AlertSettings = AlertSettings()
    channels: dict[ChannelName, Channel] = Field(default_factory=dict)  # where alerts are told

    @model_validator(mode="before")
    @classmethod
    def _one_folder(cls, said: Any) -> Any:
        """`deployment.base_dir` is `data_dir`."""
        deployment = said.get("deployment") if isinstance(said, dict) else None
        base = deployment.get("base_dir") if isinstance(deployment, dict) else None
        if base is None:
            return said
        if str(said.get("data_dir", base)) != str(base):
            raise ValueError(f"data_dir and deployment.base_dir name two folders: {said['data_dir']} and {base}")
        return {**said, "data_dir": base}

    @model_validator(mode="after")
    def _channels_exist(self) -> Self:
        known = {*self.channels, *AlertSettings().notification_channels}
        if lacking := [name for name in self.alerts.notification_channels if name not in known]:
            raise ValueError(f"alerts.notification_channels names {lacking[0]!r}, which is not below `channels`")
        return self

    @property
    def reports_dir(self) -> Path:
        """Where reports of drift are written."""
        return self.drift_detection.output_dir or self.data_dir / "reports"

    @property
    def database_url(self) -> str:
        """The configured database, or SQLite in the data folder."""
        return self.database.url or f"sqlite+aiosqlite:///{self.data_dir / 'fleet.sqlite'}"
