"""Everything but inference: which HTTP request a method of the service is, and its answer as the message's fields.

I/O: none.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from agent.serving.grpc_translate import model_path

HEALTH: Final = frozenset({"ServerLive", "ServerReady", "ModelReady"})  # the status is the answer
MEMORY: Final = "SystemSharedMemory"  # such methods depend on who asks


@dataclass(frozen=True, slots=True)
class Question:
    """One HTTP request. `body` None: a GET."""

    path: str
    body: bytes | None = None


def question(method: str, request: Any) -> Question:
    """What to ask the front for `method`."""
    match method:
        case "ServerLive":
            return Question("/v2/health/live")
        case "ServerReady":
            return Question("/v2/health/ready")
        case "ServerMetadata":
            return Question("/v2")
        case "ModelReady":
            return Question(model_path(request.name, request.version) + "/ready")
        case "ModelMetadata":
            return Question(model_path(request.name, request.version))
        case "ModelConfig":
            return Question(model_path(request.name, request.version) + "/config")
        case "ModelStatistics":
            path = model_path(request.name, request.version) if request.name else "/v2/models"
            return Question(path + "/stats")
        case "RepositoryIndex":
            return _post("/v2/repository/index", {"ready": request.ready})
        case "RepositoryModelLoad" | "RepositoryModelUnload":
            verb = "load" if method.endswith("Load") else "unload"
            return _post(f"/v2/repository/models/{quote(request.model_name, safe='')}/{verb}", {})
        case "TraceSetting":
            model = f"/models/{quote(request.model_name, safe='')}" if request.model_name else ""
            return _settings(f"/v2{model}/trace/setting", request)
        case "LogSettings":
            return _settings("/v2/logging", request)
        case _:
            return _memory(method, request)


def _memory(method: str, request: Any) -> Question:
    kind = "systemsharedmemory" if method.startswith(MEMORY) else "cudasharedmemory"
    region = f"/region/{quote(request.name, safe='')}" if request.name else ""
    if method.endswith("Status"):
        return Question(f"/v2/{kind}{region}/status")
    if method.endswith("Unregister"):
        return _post(f"/v2/{kind}{region}/unregister", {})
    if method.startswith(MEMORY):
        place = {"key": request.key, "offset": request.offset, "byte_size": request.byte_size}
    else:
        handle = base64.b64encode(request.raw_handle).decode()
        place = {"raw_handle": {"b64": handle}, "device_id": request.device_id, "byte_size": request.byte_size}
    return _post(f"/v2/{kind}{region}/register", place)


def _settings(path: str, request: Any) -> Question:
    return _post(path, dict.fromkeys(request.settings, "")) if request.settings else Question(path)


def _post(path: str, document: Mapping[str, Any]) -> Question:
    return Question(path, json.dumps(document, separators=(",", ":")).encode())


def fields(method: str, request: Any, body: bytes) -> dict[str, Any]:
    """The fields of the answer to `method` from the front's document."""
    match method:
        case "ServerMetadata" | "ModelMetadata" | "ModelStatistics":
            return _object(body)
        case "ModelConfig":
            return {"config": _object(body)}
        case "RepositoryIndex":
            rows = json.loads(body)
            return {"models": [row for row in rows if row["state"] == "READY" or not request.ready]}
        case "SystemSharedMemoryStatus" | "CudaSharedMemoryStatus":
            return {"regions": {row["name"]: row for row in json.loads(body)}}
        case _:  # the others say nothing but that they were done, or have no settings to tell
            return {}


def _object(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("the front answered something else than an object")
    return found
