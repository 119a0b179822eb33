"""How one device looks in a row and on a page.

I/O: none.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fleet.cli.wording import ago, size

Device = Mapping[str, Any]

METRICS: Final = (
    ("END", "end"),
    ("MODEL", lambda row: f"{row.get('model', '–')}@{row.get('version', '–')}"),
    ("REQUESTS", "requests"),
    ("FAILED", "failed"),
    ("P95", lambda row: _milliseconds(row.get("p95_ms"))),
    ("CPU", lambda row: _percent((row.get("host") or {}).get("cpu_ratio"))),
    ("MEMORY", lambda row: size((row.get("host") or {}).get("memory_used_bytes"))),
    ("TEMPERATURE", lambda row: _celsius((row.get("host") or {}).get("temperature_celsius"))),
)


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _celsius(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} °C"


def link(device: Device) -> str:
    """How it is connected: the words of the dashboard."""
    if device.get("lifecycle") != "active":
        return str(device.get("lifecycle", "unknown"))
    if isinstance(said := device.get("link"), str):
        return "never seen" if said == "never" else said
    return "online" if device.get("online") else "offline"


def serving(device: Device) -> str:
    """`digits@1.1.0`, or a dash."""
    return ", ".join(f"{model}@{version}" for model, version in (device.get("serving") or {}).items()) or "–"


def columns(now: datetime) -> list[tuple[str, Any]]:
    """The columns of `device list`."""
    return [
        ("DEVICE", "id"),
        ("LINK", link),
        ("SERVING", serving),
        ("HARDWARE", "hardware"),
        ("SITE", "site"),
        ("LABELS", "labels"),
        ("SEEN", lambda device: ago(device.get("seen_at"), now)),
    ]


def text(device: Device, now: datetime) -> str:
    """The page of `device show`."""
    labels = ", ".join(f"{key}={value}" for key, value in (device.get("labels") or {}).items())
    lines = [
        ("device", f"{device.get('id')} ({device.get('name')})"),
        ("link", f"{link(device)}, seen {ago(device.get('seen_at'), now)}"),
        ("serving", serving(device)),
        *(("slot " + str(slot.get("slot")), _slot(slot)) for slot in device.get("slots") or ()),
        ("hardware", device.get("hardware")),
        ("site", device.get("site")),
        ("labels", labels),
        ("agent", device.get("agent_version")),
        ("lost", _lost(device.get("shed_windows") or 0)),
        ("enrolled", ago(device.get("enrolled_at"), now)),
    ]
    return "\n".join(f"{name:<9} {value or '–'}" for name, value in lines)


def _lost(windows: int) -> str:
    return f"{windows} telemetry windows, thrown away on the device for want of room" if windows else "nothing"


def _slot(slot: Mapping[str, Any]) -> str:
    release = f" {slot.get('model')}@{slot['version']}" if slot.get("version") else ""
    return f"{slot.get('state', 'unknown')}{release}"
