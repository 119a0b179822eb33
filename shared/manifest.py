"""What a release is made of, byte for byte. The signed TUF role names this file by digest.

I/O: none.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from shared.chunking import CHUNK_BYTES, OVERHEAD_BYTES
from shared.errors import BadInputError
from shared.identifiers import Digest, ModelName, Version, sha256

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAX_CHUNKS: Final = 16_384
MAX_NAMES: Final = 256  # of operator domains, providers, hardware classes

#: Artifacts of a release. `model` is the ONNX file, `golden` an .npz, `baseline` JSON (baseline.py).
ArtifactName = Literal["model", "golden", "baseline"]
#: Name of a tolerance: a release that states it lets TensorRT compute in 16 bits and CUDA in TF32, and be so
#: far off.
HALF_PRECISION: Final = "TensorrtExecutionProvider/fp16"
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]


class Part(BaseModel):
    """Base of everything inside a manifest: frozen and strict; what is unknown is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Chunk(Part):
    """One sealed chunk: `id` is the SHA-256 of its `size_bytes` bytes of ciphertext."""

    id: Digest
    size_bytes: Annotated[int, Field(ge=1, le=CHUNK_BYTES + OVERHEAD_BYTES)]
    plain_bytes: Annotated[int, Field(ge=1, le=CHUNK_BYTES)]


class Artifact(Part):
    """A file of the release: `digest` and `size_bytes` are of the plain file."""

    digest: Digest
    size_bytes: PositiveInt
    chunks: Annotated[tuple[Chunk, ...], Field(min_length=1, max_length=MAX_CHUNKS)]

    @property
    def sealed_bytes(self) -> int:
        """Bytes on the wire."""
        return sum(chunk.size_bytes for chunk in self.chunks)


class Tensor(Part):
    """One input or output, in the words of the Open Inference Protocol; -1 is a free dimension."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    datatype: Datatype
    shape: Annotated[tuple[int, ...], Field(max_length=16)]


class Tolerance(Part):
    """|got - expected| <= absolute + relative * |expected|, for each element of each golden output."""

    absolute: Annotated[float, Field(ge=0)] = 1e-4
    relative: Annotated[float, Field(ge=0)] = 1e-3


class Runtime(Part):
    """What a device must have to run this release."""

    format: Literal["onnx"] = "onnx"
    ir_version: PositiveInt
    opset: Annotated[dict[str, PositiveInt], Field(max_length=MAX_NAMES)]  # operator domain -> version
    providers: Annotated[tuple[str, ...], Field(max_length=MAX_NAMES)] = (
        "CPUExecutionProvider",
    )  # acceptable ones, best first
    hardware: Annotated[tuple[str, ...], Field(max_length=MAX_NAMES)] = ("*",)  # hardware classes (fnmatch patterns)


class Manifest(Part):
    """A release. `counter` grows with every release of the model and never repeats."""

    type: Literal["release-manifest/1"] = "release-manifest/1"
    model: ModelName
    version: Version
    counter: PositiveInt
    minimum_counter: NonNegativeInt = 0  # signed leave to go back as far as this (docs/security.md)
    created: AwareDatetime
    notes: Annotated[str, Field(max_length=4096)] = ""
    runtime: Runtime
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=256)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=256)]
    tolerance: dict[str, Tolerance] = Field(default_factory=lambda: {"default": Tolerance()})  # by provider
    latency_ms: Annotated[float, Field(gt=0)]  # median of one golden row where it was published
    metrics: dict[str, float] = Field(default_factory=dict)  # accuracy and the like, on the reference data
    artifacts: dict[ArtifactName, Artifact]

    @property
    def half_precision(self) -> bool:
        """Whether TensorRT may compute in 16 bits, and CUDA in TF32."""
        return HALF_PRECISION in self.tolerance

    @property
    def sealed_bytes(self) -> int:
        """Bytes that a device without anything must fetch."""
        return sum(artifact.sealed_bytes for artifact in self.artifacts.values())

    @property
    def plain_bytes(self) -> int:
        """Bytes that the release takes in a slot."""
        return sum(artifact.size_bytes for artifact in self.artifacts.values())

    def to_bytes(self) -> bytes:
        """The file that is signed and served."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, data: bytes, digest: str | None = None) -> Self:
        """The manifest in `data`, whose SHA-256 must be `digest` when one is given.

        Raises:
            BadInputError: other bytes than named, too long, or not a manifest.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise BadInputError(f"manifest of {len(data)} bytes; the limit is {MAX_MANIFEST_BYTES}")
        if digest is not None and sha256(data) != digest:
            raise BadInputError(f"manifest {digest[:12]} has other content than its name says")
        try:
            found = cls.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            raise BadInputError(f"not a release manifest: {str(error).splitlines()[0]}") from None
        for name, artifact in found.artifacts.items():
            if sum(chunk.plain_bytes for chunk in artifact.chunks) != artifact.size_bytes:
                raise BadInputError(f"manifest: the chunks of {name!r} do not add up to its size")
        if set(found.artifacts) != {"model", "golden", "baseline"}:
            raise BadInputError("manifest: a release has a model, golden outputs and a baseline")
        return found
