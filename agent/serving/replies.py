"""Answers that the front gives without a worker: health, metadata, index, metrics, feedback.

I/O: none.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Final, Protocol

from agent.serving import dispatch, documents, routes
from agent.serving.observations import Feedback
from agent.serving.worker_wire import NO_HEADER

_KEPT: Final = 8192  # answers that feedback may still refer to


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"
    extra: Mapping[str, str] | None = None


class State(Protocol):
    """What is told about."""

    table: dispatch.Dispatch
    loaded: dict[dispatch.Key, documents.Loaded]
    server_version: str
    deaths: int

    @property
    def tallies(self) -> Mapping[dispatch.Key, documents.Tally]: ...

    @property
    def connections(self) -> Sized: ...


def infer_header(headers: Mapping[str, str], size: int) -> tuple[int, str | None]:
    """Length of the JSON part of a body of `size` bytes, and what is wrong with the header that says it."""
    text = headers.get("inference-header-content-length")
    if text is None:
        return NO_HEADER, None
    if not (text.isascii() and text.isdigit()) or int(text[:12]) > size or len(text) > 12:
        return (
            NO_HEADER,
            f"inference header content length {text[:20]!r} is not within the request body of {size} bytes",
        )
    return int(text), None


def local_answer(state: State, route: routes.Route) -> Answer:
    """The answer to everything but inference and feedback."""
    match route.call:
        case routes.Call.LIVE:
            return Answer(200, b"")
        case routes.Call.SERVER:
            return Answer(200, documents.server(state.server_version))
        case routes.Call.READY:
            return _server_ready(state)
        case routes.Call.INDEX:
            rows = [(*key, state.table.is_up(key)) for key in sorted(state.table.versions())]
            return Answer(200, documents.index(rows))
        case routes.Call.METRICS:
            return Answer(200, documents.metrics(state.tallies, _gauges(state)), "text/plain; version=0.0.4")
        case routes.Call.CHANGE:
            return _error(
                400,
                "explicit model load / unload is not allowed: versions come as signed releases from the manager; "
                "use `flotilla rollout start`",
            )
        case routes.Call.GPU_MEMORY_STATUS:
            return Answer(200, b"[]")
        case routes.Call.GPU_MEMORY_UNREGISTER:
            return Answer(200, b"")
        case routes.Call.GPU_MEMORY_REGISTER:
            return _error(400, "CUDA shared memory is not offered by this endpoint; use system shared memory")
        case routes.Call.STATS if route.model is None:
            return Answer(200, documents.statistics({key: state.tallies[key] for key in state.table.versions()}))
        case _:
            return _about_model(state, route)


def _server_ready(state: State) -> Answer:
    if any(state.table.answering(model) for model in state.table.routes):
        return Answer(200, b"")
    refusal = state.table.check("", None)
    if refusal is not None and refusal.status == 503:
        return _error(503, refusal.text, retry_seconds=refusal.retry_seconds)
    return _error(503, "no loaded model answers at this moment")


def _about_model(state: State, route: routes.Route) -> Answer:
    model = route.model or ""
    refusal = state.table.check(model, route.version)
    if refusal is not None:
        return _error(refusal.status, refusal.text, retry_seconds=refusal.retry_seconds)
    version = route.version or state.table.answering(model) or state.table.routes.get(model, "")
    key = (model, version)
    if key not in state.loaded:
        return _error(503, f"model '{model}' is being prepared and does not answer yet")
    match route.call:
        case routes.Call.MODEL_READY:
            up = state.table.is_up(key)
            return Answer(200, b"") if up else _error(503, f"the worker of model '{model}' is being restarted")
        case routes.Call.CONFIG:
            return Answer(200, documents.configuration(state.loaded[key]))
        case routes.Call.STATS:
            keys = state.table.versions(model) if route.version is None else [key]
            return Answer(200, documents.statistics({entry: state.tallies[entry] for entry in keys}))
        case _:
            first = [version] if route.version is None else []
            others = sorted(name for _, name in state.table.versions(model) if name not in first)
            return Answer(200, documents.model(state.loaded[key], first + others))


def _gauges(state: State) -> dict[str, tuple[str, str, float]]:
    return {
        "flotilla_inference_waiting": ("gauge", "Requests that wait for a worker.", state.table.waiting),
        "flotilla_inference_connections": ("gauge", "Open client connections.", len(state.connections)),
        "flotilla_inference_redispatched_total": (
            "counter",
            "Requests tried again after their worker died.",
            state.table.redispatched,
        ),
        "flotilla_inference_worker_deaths_total": ("counter", "Workers that ended unasked.", state.deaths),
    }


def _error(status: int, text: str, *, retry_seconds: int = 1) -> Answer:
    retry = {"Retry-After": str(retry_seconds)} if status == 503 else None
    return Answer(status, documents.error(text), extra=retry)


@dataclass(slots=True)
class _Given:
    """An answer that was given: its classes, and whether the truth about it is known."""

    version: str
    classes: Sequence[int]
    correct: bool | None = None


class Recent:
    """The newest answers that had an id of their client's, for feedback to refer to."""

    def __init__(self) -> None:
        self._given: OrderedDict[tuple[str, str], _Given] = OrderedDict()

    def remember(self, model: str, version: str, request_id: str, classes: Sequence[int]) -> None:
        self._given.pop((model, request_id), None)
        self._given[model, request_id] = _Given(version, classes)
        if len(self._given) > _KEPT:
            self._given.popitem(last=False)

    def join(self, model: str, body: bytes) -> tuple[int, bytes, list[Feedback]]:
        """Status, document and what was learnt from a feedback body `{"id", "label"}`.

        `label` is the true class as a number, or a list of them, one per row. Repeating it counts once.
        """
        try:
            document = json.loads(body)
            request_id, label = str(document["id"]), document["label"]
            labels = [int(entry) for entry in (label if isinstance(label, list) else [label])]
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            text = 'feedback is {"id": "of the inference request", "label": class number, or one per row}'
            return 400, documents.error(text), []
        given = self._given.get((model, request_id))
        if given is None:
            text = f"no recent answer of model '{model}' has the id '{request_id[:80]}'; give each request its own id"
            return 404, documents.error(text), []
        if len(labels) != len(given.classes):
            text = f"the answer has {len(given.classes)} classified rows, the feedback {len(labels)} labels"
            return 400, documents.error(text), []
        learnt: list[Feedback] = []
        if given.correct is None:
            pairs = list(zip(labels, given.classes, strict=True))
            given.correct = all(label == found for label, found in pairs)
            learnt = [
                Feedback(model, given.version, request_id, label == found, label, found) for label, found in pairs
            ]
        answer = {"id": request_id, "model_version": given.version, "correct": given.correct}
        return 200, documents.encode(answer), learnt
