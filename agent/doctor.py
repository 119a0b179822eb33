"""What must hold for this device to work, checked one by one, each with what to do about it.

I/O: disk, network, process, clock.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Literal

import httpx2

from agent import identity
from agent.errors import NotEnrolledError
from agent.serving import interpreter
from shared.errors import FlotillaError
from shared.link_terms import BrokerAddress, BrokerUrlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.settings import AgentSettings

TIMEOUT_SECONDS: Final = 10.0
IMPORT_TIMEOUT_SECONDS: Final = 60.0
#: Times below this are a clock that was never set.
OLDEST_SANE: Final = datetime(2025, 1, 1, tzinfo=UTC)
MOST_SKEW: Final = timedelta(minutes=5)
_PROVIDERS: Final = (
    interpreter.QUIET + "import json, onnxruntime as o; print(json.dumps([o.__version__, o.get_available_providers()]))"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    result: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str = ""


def examine(settings: AgentSettings) -> Iterator[Check]:
    """All checks, one after the other."""
    yield _disk(settings)
    runtime = _onnxruntime(settings)
    yield runtime
    if runtime.result == "ok":
        yield from _accelerators(settings)
    try:
        enrolled = identity.enrolment(settings.state_dir)
        keys = identity.keys(settings.state_dir)
    except FlotillaError as error:
        yield _clock(None)
        mild = isinstance(error, NotEnrolledError)
        yield Check("identity", "warning" if mild else "failed", error.detail, error.remedy)
        return
    yield Check("identity", "ok", f"{enrolled.device_id}, keys {keys.fingerprint}")
    manager, date = _manager(enrolled.manager_url)
    yield _clock(date)
    yield manager
    yield _broker(enrolled.mqtt.url)


def _disk(settings: AgentSettings) -> Check:
    folder = settings.state_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free, least = shutil.disk_usage(folder).free, settings.update.minimum_free_bytes
    detail = f"{free / 1024**2:.0f} MiB free at {folder}"
    if free < least:
        return Check("disk", "failed", detail, f"free at least {least / 1024**2:.0f} MiB, plus twice the model's size")
    return Check("disk", "ok", detail)


def _onnxruntime(settings: AgentSettings) -> Check:
    python = settings.serving.worker_python or sys.executable
    remedy = "install ONNX Runtime for this interpreter, or name one that has it in serving.worker_python"
    try:
        done = subprocess.run(
            [python, "-c", _PROVIDERS], capture_output=True, text=True, timeout=IMPORT_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("onnxruntime", "failed", f"{python}: {error}", remedy)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return Check("onnxruntime", "failed", f"{python}: {reason}", remedy)
    try:
        number, providers = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return Check("onnxruntime", "failed", f"{python}: gave no answer", remedy)
    wanted = settings.serving.providers or ()
    missing = [name for name in wanted if name not in providers]
    detail = f"{number} under {python}: {', '.join(providers)}"
    if missing:
        return Check("onnxruntime", "failed", f"{detail}; asked for {', '.join(missing)}", "correct serving.providers")
    return Check("onnxruntime", "ok", detail)


def _accelerators(settings: AgentSettings) -> Iterator[Check]:
    """Whether those come up that the runtime was built with; nothing where there is none."""
    remedy = "look at the GPU's driver and at the libraries that ONNX Runtime wants; `nvidia-smi` must find the GPU"
    command = interpreter.command("agent.serving.worker_check", python=settings.serving.worker_python)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_SECONDS, check=False)
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        yield Check("gpu", "warning", f"a model of one node did not come to an end: {error}", remedy)
        return
    up = [name for name, why in found.items() if not why]
    down = [why for why in found.values() if why]
    detail = "; ".join([*(f"{name} comes up" for name in up), *down])
    if set(settings.serving.providers or ()) & (set(found) - set(up)):
        yield Check("gpu", "failed", detail, remedy)
    elif found:
        yield Check("gpu", "ok", detail) if up else Check("gpu", "warning", detail, remedy)


def _manager(url: str) -> tuple[Check, datetime | None]:
    remedy = "check the network and that flotilla-fleet is running there"
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/healthz", timeout=TIMEOUT_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Check("manager", "failed", f"{url}: {str(error) or type(error).__name__}", remedy), None
    date = _date(answer.headers.get("date"))
    if not answer.is_success:
        return Check("manager", "failed", f"{url} answered {answer.status_code}", remedy), date
    return Check("manager", "ok", url), date


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _clock(managers: datetime | None) -> Check:
    now = datetime.now(UTC)
    remedy = "set up time synchronisation: timedatectl set-ntp true"
    if now < OLDEST_SANE:
        return Check("clock", "failed", f"the clock says {now:%Y-%m-%d}", remedy)
    if managers is not None and abs(now - managers) > MOST_SKEW:
        off = (now - managers).total_seconds()
        return Check("clock", "failed", f"{off:+.0f} s against the manager's clock", remedy)
    return Check("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _broker(url: str) -> Check:
    try:
        address = BrokerAddress.parse(url)
        with socket.create_connection((address.host, address.port), timeout=TIMEOUT_SECONDS):
            return Check("broker", "ok", url)
    except BrokerUrlError as error:
        return Check("broker", "failed", error.detail, "enroll again")
    except OSError as error:
        return Check("broker", "failed", f"{url}: {error.strerror or error}", "check the network and the broker")
