"""Turn a measured model into a release: baseline, sealed chunks, manifest.

I/O: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shared import chunking, sketches
from shared.identifiers import sha256
from shared.manifest import HALF_PRECISION, Artifact, ArtifactName, Chunk, Manifest, Runtime, Tensor, Tolerance
from shared.probes import CATEGORIES
from shared.sketches import FeatureBaseline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from fleet.releases.reference_run import Measured
    from shared.onnx_scan import ModelFacts

MAX_CLASSES: Final = 1000  # messages.Counts has 1024 bins
#: |got - expected| allowed on a device, by what computes there.
TOLERANCE: Final = {
    "default": Tolerance(),
    "CUDAExecutionProvider": Tolerance(absolute=1e-3, relative=1e-2),
    "TensorrtExecutionProvider": Tolerance(absolute=1e-2, relative=5e-2),
}
HALF_TOLERANCE: Final = Tolerance(absolute=2e-2, relative=1e-1)


@dataclass(frozen=True, slots=True)
class Label:
    """What people say of a release."""

    model: str
    version: str
    notes: str = ""
    hardware: tuple[str, ...] = ("*",)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    minimum_counter: int | None = None  # None: the release before, so that a fleet can go one back
    fp16: bool = False  # TensorRT may compute in 16 bits, CUDA in TF32


@dataclass(frozen=True, slots=True)
class Package:
    """A release before it is signed: `chunks` are ciphertext by name."""

    manifest: Manifest
    data: bytes  # the manifest's bytes, which are signed
    chunks: Mapping[str, bytes]
    content_key: bytes
    baseline: bytes


def baseline_of(label: Label, measured: Measured) -> sketches.Baseline:
    """How the model's inputs and outputs are distributed over its reference data."""
    features = []
    rows = 0
    for name, values in sorted(measured.features.items()):
        kind = "category" if name in CATEGORIES else "quantity"
        if kind == "category" and not 1 < measured.classes <= MAX_CLASSES:
            continue
        plain = [float(value) for value in values]
        edges = (
            tuple(index + 0.5 for index in range(measured.classes - 1))
            if kind == "category"
            else sketches.quantile_edges(plain)
        )
        counts, missing = sketches.count(edges, plain)
        rows = max(rows, len(plain))
        features.append(
            FeatureBaseline(
                name=name, group=name.partition(".")[0], kind=kind, edges=edges, counts=tuple(counts), missing=missing
            )
        )
        if name == sketches.CONFIDENCE and measured.right is not None:
            features.append(_right(edges, plain, measured.right))
    return sketches.Baseline(model=label.model, version=label.version, samples=rows, features=tuple(features))


def _right(edges: tuple[float, ...], confidences: Sequence[float], right: NDArray[np.bool_]) -> FeatureBaseline:
    """The right answers among the reference rows of each bin of confidence: what accuracy is estimated by."""
    counts, missing = sketches.count(edges, [it for it, good in zip(confidences, right, strict=True) if good])
    return FeatureBaseline(
        name=sketches.RIGHT, group="right", kind="quantity", edges=edges, counts=tuple(counts), missing=missing
    )


def pack(
    label: Label,
    onnx: bytes,
    facts: ModelFacts,
    measured: Measured,
    *,
    counter: int,
    before: int | None = None,
    content_key: bytes,
    now: datetime,
    progress: Callable[[int], None] = lambda _: None,
) -> Package:
    """Seal everything and write the manifest. `progress` is told the plain bytes of each sealed chunk.

    `before` is the counter of the release before, where that is not the one below.
    """
    baseline = baseline_of(label, measured).model_dump_json().encode()
    plain: dict[ArtifactName, tuple[bytes, Sequence[int]]] = {
        "model": (onnx, facts.borders),
        "golden": (measured.golden, ()),
        "baseline": (baseline, ()),
    }
    chunks: dict[str, bytes] = {}
    artifacts: dict[ArtifactName, Artifact] = {}
    for name, (data, borders) in plain.items():
        artifacts[name] = _sealed(name, data, borders, content_key, chunks, progress)
    manifest = Manifest(
        model=label.model,
        version=label.version,
        counter=counter,
        minimum_counter=(counter - 1 if before is None else before)
        if label.minimum_counter is None
        else label.minimum_counter,
        created=now.replace(microsecond=0),
        notes=label.notes,
        runtime=Runtime(
            ir_version=facts.ir_version, opset=facts.opset, providers=label.providers, hardware=label.hardware
        ),
        inputs=facts.inputs,
        outputs=tuple(_seen(tensor, measured.output_shapes.get(tensor.name)) for tensor in facts.outputs),
        tolerance=TOLERANCE | ({HALF_PRECISION: HALF_TOLERANCE} if label.fp16 else {}),
        latency_ms=max(measured.latency_ms, 1e-6),
        metrics=dict(measured.metrics),
        artifacts=artifacts,
    )
    return Package(manifest, manifest.to_bytes(), chunks, content_key, baseline)


def _sealed(
    name: ArtifactName,
    data: bytes,
    borders: Sequence[int],
    content_key: bytes,
    chunks: dict[str, bytes],
    progress: Callable[[int], None],
) -> Artifact:
    key = chunking.artifact_key(content_key, name)
    pieces = list(chunking.cut(len(data), borders))
    listed = []
    view = memoryview(data)
    for index, (start, end) in enumerate(pieces):
        sealed = chunking.seal(view[start:end], key=key, artifact=name, index=index, count=len(pieces))
        identifier = sha256(sealed)
        chunks[identifier] = sealed
        listed.append(Chunk(id=identifier, size_bytes=len(sealed), plain_bytes=end - start))
        progress(end - start)
    return Artifact(digest=sha256(data), size_bytes=len(data), chunks=tuple(listed))


def _seen(tensor: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    """The declared output; where the file declares no rank, free dimensions of the rank that was seen."""
    if shape is None or len(shape) == len(tensor.shape):
        return tensor
    return Tensor(name=tensor.name, datatype=tensor.datatype, shape=(-1,) * len(shape))
