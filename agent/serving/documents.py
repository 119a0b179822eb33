"""What the endpoint tells about itself and its models, in the forms that stock clients read.

I/O: none.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agent.serving.worker_batch import possible
from agent.serving.worker_wire import Reply

SERVER_NAME: Final = "flotilla"
EXTENSIONS: Final = (
    *("binary_tensor_data", "classification", "model_configuration", "model_repository"),
    *("statistics", "system_shared_memory"),
)
_PLATFORM: Final = "onnxruntime_onnx"


@dataclass(slots=True)
class Tally:
    """Counts of one model version since the front started. Durations in microseconds."""

    success: int = 0
    failed: dict[str, int] = field(default_factory=dict)  # kind -> how many
    total_us: int = 0
    failed_us: int = 0
    input_us: int = 0
    infer_us: int = 0
    output_us: int = 0
    last_ms: int = 0  # wall clock, of the newest request
    rows: int = 0
    executions: int = 0
    batches: dict[int, list[int]] = field(default_factory=dict)  # rows run at once -> times, input, infer, output us

    def ran(self, reply: Reply) -> None:
        """A right answer."""
        self.input_us += reply.input_us
        self.infer_us += reply.infer_us
        self.output_us += reply.output_us
        self.rows += reply.rows
        if not reply.execution:
            return
        self.executions += 1
        batch = self.batches.get(reply.execution)
        if batch is None:
            batch = self.batches[reply.execution] = [0, 0, 0, 0]
        batch[0] += 1
        batch[1] += reply.input_us
        batch[2] += reply.infer_us
        batch[3] += reply.output_us

    @property
    def failures(self) -> int:
        return sum(self.failed.values())


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded version as the daemon described it: tensors are {"name", "datatype", "shape"}."""

    model: str
    version: str
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    most_rows: int = 1  # that its worker joins
    delay_us: int = 0  # that it waits for more


def loaded(order: Mapping[str, Any]) -> Loaded:
    """From an order of the daemon. Joining is possible only where the first axis of all tensors is free."""
    tensors = [*order["inputs"], *order["outputs"]]
    joins = possible([entry["shape"] for entry in tensors])
    most = int(order.get("max_batch_rows", 1)) if joins else 1
    delay = int(order.get("batch_delay_microseconds", 0))
    return Loaded(str(order["model"]), str(order["version"]), order["inputs"], order["outputs"], most, delay)


def encode(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def error(text: str) -> bytes:
    return encode({"error": text})


def server(version: str) -> bytes:
    return encode({"name": SERVER_NAME, "version": version, "extensions": list(EXTENSIONS)})


def model(loaded: Loaded, versions: Iterable[str]) -> bytes:
    """Metadata of a model, seen through the version that answers."""
    return encode(
        {
            "name": loaded.model,
            "versions": list(versions),
            "platform": _PLATFORM,
            "inputs": [_tensor(entry) for entry in loaded.inputs],
            "outputs": [_tensor(entry) for entry in loaded.outputs],
        }
    )


def configuration(loaded: Loaded) -> bytes:
    """As Triton tells it: where requests are joined, shapes leave out the first axis."""
    joins = loaded.most_rows > 1
    batching = {"preferred_batch_size": [], "max_queue_delay_microseconds": loaded.delay_us}
    return encode(
        {
            "name": loaded.model,
            "platform": _PLATFORM,
            "backend": "onnxruntime",
            "max_batch_size": loaded.most_rows if joins else 0,
            "input": [_configured(entry, skip=joins) for entry in loaded.inputs],
            "output": [_configured(entry, skip=joins) for entry in loaded.outputs],
            **({"dynamic_batching": batching} if joins else {}),
        }
    )


def index(rows: Iterable[tuple[str, str, bool]]) -> bytes:
    """(model, version, ready) of each loaded version."""
    return encode(
        [
            {
                "name": name,
                "version": version,
                "state": "READY" if ready else "UNAVAILABLE",
                "reason": "" if ready else "its worker is being restarted",
            }
            for name, version, ready in rows
        ]
    )


def statistics(rows: Mapping[tuple[str, str], Tally]) -> bytes:
    return encode({"model_stats": [_statistics(*key, tally) for key, tally in rows.items()]})


def _statistics(name: str, version: str, tally: Tally) -> dict[str, Any]:
    def part(count: int, microseconds: int) -> dict[str, int]:
        return {"count": count, "ns": microseconds * 1000}

    done = tally.success
    queue = max(0, tally.total_us - tally.input_us - tally.infer_us - tally.output_us)
    return {
        "name": name,
        "version": version,
        "last_inference": tally.last_ms,
        "inference_count": tally.rows,
        "execution_count": tally.executions,
        "inference_stats": {
            "success": part(done, tally.total_us),
            "fail": part(tally.failures, tally.failed_us),
            "queue": part(done, queue),
            "compute_input": part(done, tally.input_us),
            "compute_infer": part(done, tally.infer_us),
            "compute_output": part(done, tally.output_us),
            "cache_hit": part(0, 0),
            "cache_miss": part(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": part(count, read),
                "compute_infer": part(count, infer),
                "compute_output": part(count, write),
            }
            for rows, (count, read, infer, write) in sorted(tally.batches.items())
        ],
    }


def metrics(rows: Mapping[tuple[str, str], Tally], gauges: Mapping[str, tuple[str, str, float]]) -> bytes:
    """Prometheus text. `gauges`: name -> (type, help, value)."""
    lines = [
        "# HELP flotilla_inference_requests_total Requests answered, by outcome.",
        "# TYPE flotilla_inference_requests_total counter",
    ]
    for (name, version), tally in rows.items():
        labels = f'model="{name}",version="{version}"'
        lines.append(f'flotilla_inference_requests_total{{{labels},outcome="ok"}} {tally.success}')
        lines.extend(
            f'flotilla_inference_requests_total{{{labels},outcome="{kind}"}} {count}'
            for kind, count in tally.failed.items()
        )
    lines.append("# HELP flotilla_inference_latency_seconds Time from the last byte in to the first byte out.")
    lines.append("# TYPE flotilla_inference_latency_seconds summary")
    for (name, version), tally in rows.items():
        labels = f'model="{name}",version="{version}"'
        lines.append(f"flotilla_inference_latency_seconds_sum{{{labels}}} {tally.total_us / 1e6:.6f}")
        lines.append(f"flotilla_inference_latency_seconds_count{{{labels}}} {tally.success}")
    for name, (kind, text, value) in gauges.items():
        lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value:g}"))
    return ("\n".join(lines) + "\n").encode()


def _tensor(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": entry["name"], "datatype": entry["datatype"], "shape": list(entry["shape"])}


def _configured(entry: Mapping[str, Any], *, skip: bool) -> dict[str, Any]:
    kind = "STRING" if entry["datatype"] == "BYTES" else entry["datatype"]
    return {"name": entry["name"], "data_type": f"TYPE_{kind}", "dims": list(entry["shape"])[skip:]}
