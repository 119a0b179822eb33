"""Make what the manager needs before its first start; what is there already stays as it is.

I/O: disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import create_async_engine

from fleet.access.first_token import ensure_admin
from fleet.access.secrets import Pepper
from fleet.errors import DataFolderError
from fleet.releases.online_keys import OnlineKeys
from fleet.store.database import HEAD, Database, revision
from shared.clock import SystemClock
from shared.durable import make_folder, replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleet.settings import FleetSettings


async def prepare(settings: FleetSettings, config: Path | None) -> dict[str, Any]:
    """Folder, configuration, database, keys, first token; what was made.

    Raises:
        FlotillaError: one of them could not be made.
    """
    data_dir = settings.data_dir
    try:
        make_folder(data_dir)
        written = _write_config(config or data_dir / "fleet.yaml", data_dir)
    except OSError as error:
        raise DataFolderError(f"cannot use {data_dir}: {error}") from error
    database = Database(settings.database_url)
    await database.open()
    try:
        pepper = Pepper.open(data_dir / "keys" / "pepper")
        OnlineKeys.open(data_dir / "keys")
        token = await ensure_admin(database, pepper, data_dir / "admin-token", SystemClock().now())
    finally:
        await database.close()
    return {
        "data_dir": str(data_dir),
        "config": str(config or data_dir / "fleet.yaml"),
        "config_written": written,
        "admin_token": token,
        "admin_token_file": str(data_dir / "admin-token"),
    }


def told(made: dict[str, Any]) -> Iterator[str]:
    """The same for a person."""
    yield f"data folder    {made['data_dir']}"
    yield f"configuration  {made['config']} ({'written' if made['config_written'] else 'was there'})"
    if made["admin_token"]:
        yield f"admin token    {made['admin_token']}  (shown once; also in {made['admin_token_file']})"
    yield f"Next: flotilla-fleet run --data-dir {made['data_dir']}"


async def migrate(settings: FleetSettings) -> dict[str, str | None]:
    """Bring the database up to date; where it stood and where it stands.

    Raises:
        DatabaseError: it cannot be done.
    """
    before = await _revision(settings)
    database = Database(settings.database_url)
    await database.open()
    await database.close()
    return {"from": before, "to": HEAD}


async def _revision(settings: FleetSettings) -> str | None:
    if settings.database.url is None and not (settings.data_dir / "fleet.sqlite").exists():
        return None
    engine = create_async_engine(settings.database_url)
    try:
        async with engine.connect() as connection:
            return await revision(connection)
    finally:
        await engine.dispose()


def _write_config(path: Path, data_dir: Path) -> bool:
    if path.exists():
        return False
    make_folder(path.absolute().parent)
    replace_file(path, CONFIG.format(data_dir=data_dir.absolute()).encode(), mode=0o640)
    return True


CONFIG = """\
# Flotilla's manager. Everything here is a default; take the # away to change it.
# Order: flag > environment (FLOTILLA_SERVER__PORT=8421) > this file > default.
data_dir: {data_dir}
# log_level: info                    # debug, info, warning, error

# server:
#   host: 127.0.0.1                  # 0.0.0.0: reachable from other machines, by HTTPS
#   port: 8420                       # 0: any free port, see endpoints.json
#   public_url: https://fleet.example.org    # what devices and browsers are told
#   session_idle_minutes: 30
#   tls_certificate: /etc/flotilla/tls/server.crt    # PEM with its chain; with the key: HTTPS
#   tls_key: /etc/flotilla/tls/server.key

# database:
#   url: postgresql+asyncpg://flotilla@db/flotilla   # default: SQLite in the data folder

# mqtt:
#   url: mqtts://broker.example.org:8883     # default: the embedded broker
#   username: flotilla-fleet
#   password: ...
#   embedded_host: 127.0.0.1         # 0.0.0.0: devices on other machines reach it (no TLS: security.use_tls: false)
#   embedded_port: 1883
#   messages_per_second: 20          # of one device, on average
#   burst_messages: 200

# enrolment:
#   invite_hours: 24                 # life of a claim token

# users:
#   session_hours: 12                # how long a browser or a command line stays signed in, at most
#   longest_sign_in_days: 30         # what `flotilla login --expires` may ask for

# security:
#   use_tls: true                    # refuse to start where something would go to other machines in clear text
#   verify_model_signatures: true    # cannot be switched off
#   encrypt_model_transfer: true     # cannot be switched off
#   api_key_length: 32               # random bytes in the API key of a device

# deployment:
#   base_dir: {data_dir}             # another name of data_dir
#   require_device_authentication: true      # false: devices may ask without a claim token, and wait to be accepted
#   max_concurrent_deployments: 5
#   deployment_timeout_minutes: 30
#   heartbeat_interval_seconds: 60   # a device is late after 1.5 and offline after 3 of these in silence
#   performance_monitoring_interval_minutes: 15   # how often accuracy and latency are looked at
#   auto_rollback_on_failure: true

# scheduling:                        # windows, schedules, aliases: see docs/schedules.md
#   enable_auto_updates: true        # moving an alias brings its version to the devices that follow it
#   update_window_start: "02:00"     # on the wall of each device
#   update_window_end: "04:00"
#   weekdays: [mon, tue, wed, thu, fri, sat, sun]
#   blackout_dates: []               # such as [2026-12-24, 2026-12-25]
#   timezone: UTC                    # of devices without the label `timezone`
#   batch_size: 3
#   rollout_strategy: canary         # canary, blue_green, rolling
#   jitter_minutes: 10
#   missed_windows: 2                # then an alert
#   misfire_grace_minutes: 60

# versioning:
#   max_versions_per_device: 3
#   version_retention_days: 30
#   cleanup_old_versions: true

# monitoring:
#   error_rate_threshold: 0.05
#   latency_threshold_ms: 1000
#   performance_degradation_threshold: 0.1   # share of accuracy or median latency that may be lost, without an alert
#   memory_usage_threshold: 0.8              # of a device's memory

# drift_detection:
#   monitoring_interval_hours: 6
#   baseline_window_days: 7          # a device's first days tell how much ordinary days differ
#   detection_window_days: 1
#   min_samples_for_detection: 100
#   enable_statistical_tests: true
#   enable_threshold_rules: false    # true: thresholds.statistical_drift raise alarms as well
#   false_alarms_per_day: 1          # of the whole fleet
#   significance: 0.00005
#   window_retention_days: 30
#   hourly_retention_days: 14
#   daily_retention_days: 400

# thresholds:
#   statistical_drift: {{psi_threshold: 0.2, kl_divergence_threshold: 0.1, js_divergence_threshold: 0.1}}
#   severity_levels: {{low: 0.05, medium: 0.1, high: 0.2, critical: 0.3}}

# alerts:
#   clear_evaluations: 3             # quiet looks in a row before an alert resolves by itself
#   enable_notifications: true
#   notification_channels: [email, webhook]    # names below `channels`, see docs/alerts.md
#   group_wait_seconds: 30           # alerts with one cause that open within it are one message
#   escalation_hours: 24             # without acknowledgement
#   auto_trigger_retraining: false   # channels with `retraining: true` get a request for each drift
#   expiry_days: 14                  # tokens and signed documents that end sooner raise an alert

# channels:                          # try one: flotilla alert test email
#   email: {{kind: email, host: smtp.example.org, username: flotilla, password_file: /etc/flotilla/smtp-password,
#           sender: flotilla@example.org, recipients: [ops@example.org]}}
#   webhook: {{kind: webhook, url: "https://hooks.example.org/flotilla", secret_file: /etc/flotilla/webhook-secret}}
"""
