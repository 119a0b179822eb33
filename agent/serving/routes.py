"""Paths of the endpoint: a method and a path become what is asked for.

I/O: none.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import unquote


class Call(StrEnum):
    SERVER = "server"
    LIVE = "live"
    READY = "ready"
    SERVING = "serving"  # a probe through the workers
    MODEL = "model"
    MODEL_READY = "model-ready"
    CONFIG = "config"
    STATS = "stats"
    INFER = "infer"
    FEEDBACK = "feedback"
    INDEX = "index"
    CHANGE = "change"  # explicit load or unload: refused
    MEMORY_STATUS = "memory-status"
    MEMORY_REGISTER = "memory-register"
    MEMORY_UNREGISTER = "memory-unregister"
    GPU_MEMORY_STATUS = "gpu-memory-status"  # there is none: system memory is shared on a Jetson, too
    GPU_MEMORY_REGISTER = "gpu-memory-register"
    GPU_MEMORY_UNREGISTER = "gpu-memory-unregister"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Route:
    call: Call
    model: str | None = None
    version: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Nothing is there, or not with this method."""

    status: int
    text: str


_MODEL: Final = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_ONE: Final = r"/region/(?P<region>[^/]+)"
_MEMORY: Final = rf"/v2/systemsharedmemory(?:{_ONE})?"
_GPU_MEMORY: Final = rf"/v2/cudasharedmemory(?:{_ONE})?"
_TABLE: Final = tuple(
    (method, re.compile(pattern), call)
    for method, pattern, call in (
        ("POST", _MODEL + "/infer", Call.INFER),
        ("GET", "/v2/health/live", Call.LIVE),
        ("GET", "/v2/health/ready", Call.READY),
        ("GET", "/v2/health/serving", Call.SERVING),
        ("GET", "/v2/?", Call.SERVER),
        ("GET", _MODEL + "/ready", Call.MODEL_READY),
        ("GET", _MODEL + "/config", Call.CONFIG),
        ("GET", "/v2/models/stats", Call.STATS),
        ("GET", _MODEL + "/stats", Call.STATS),
        ("POST", _MODEL + "/feedback", Call.FEEDBACK),
        ("GET", _MODEL, Call.MODEL),
        ("POST", "/v2/repository/index", Call.INDEX),
        ("POST", r"/v2/repository/models/(?P<model>[^/]+)/(?:un)?load", Call.CHANGE),
        ("GET", _MEMORY + "/status", Call.MEMORY_STATUS),
        ("POST", "/v2/systemsharedmemory" + _ONE + "/register", Call.MEMORY_REGISTER),
        ("POST", _MEMORY + "/unregister", Call.MEMORY_UNREGISTER),
        ("GET", _GPU_MEMORY + "/status", Call.GPU_MEMORY_STATUS),
        ("POST", "/v2/cudasharedmemory" + _ONE + "/register", Call.GPU_MEMORY_REGISTER),
        ("POST", _GPU_MEMORY + "/unregister", Call.GPU_MEMORY_UNREGISTER),
        ("GET", "/metrics", Call.METRICS),
    )
)


@lru_cache(maxsize=1024)
def find(method: str, path: str) -> Route | NoRoute:
    """What `method` on `path` (without its query) asks for."""
    allowed: list[str] = []
    for wanted, pattern, call in _TABLE:
        found = pattern.fullmatch(path)
        if found is None:
            continue
        if method == wanted or (method == "HEAD" and wanted == "GET"):
            return Route(call, **{name: unquote(text) for name, text in found.groupdict().items() if text is not None})
        allowed.append(wanted)
    if allowed:
        return NoRoute(405, f"{method} is not possible here, {' or '.join(allowed)} is")
    return NoRoute(404, f"nothing is at {path}")
