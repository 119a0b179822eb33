"""A publisher, a manager and its director in one object, made of the real signing and sealing code.

    with ReleaseRepository() as repository:        # keys, root, targets, an HTTP server on loopback
        release = repository.publish("digits", "1.0.0", tiny_model())
        announcement = repository.announce("cam-1", box_key, release)

It can be told to misbehave: sign with an unknown key, expire, hide a release, flip bits, go away.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from shared import chunking, onnx_scan, signing
from shared.identifiers import release_path, sha256
from shared.manifest import Artifact, Chunk, Manifest, Runtime, Tensor, Tolerance
from shared.messages import Announcement
from shared.signing import NaClSigner

signing.install()


def tiny_model(seed: int = 0, *, broken: bool = False) -> bytes:
    """A real ONNX file: 8 numbers in, soft-max over 3 classes out. `broken`: divides by zero."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    weights = random.normal(size=(8, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Softmax", ["s"], ["y"], axis=1)]
    constants = [numpy_helper.from_array(weights, "w")]
    if broken:
        nodes[0] = helper.make_node("MatMul", ["x", "w"], ["t"])
        nodes.insert(1, helper.make_node("Div", ["t", "z"], ["s"]))
        constants.append(numpy_helper.from_array(np.zeros(1, np.float32), "z"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def golden_of(model: bytes, rows: int = 4) -> bytes:
    """Golden inputs and what the very model answers to them."""
    import onnxruntime

    inputs = np.random.default_rng(7).normal(size=(rows, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (output,) = session.run(["y"], {"x": inputs})
    file = io.BytesIO()
    np.savez(file, **{"input.x": inputs, "output.y": output})
    return file.getvalue()


@dataclass(frozen=True)
class Release:
    """What was published."""

    manifest: Manifest
    data: bytes
    content_key: bytes
    chunks: dict[str, bytes]

    @property
    def digest(self) -> str:
        return sha256(self.data)

    @property
    def name(self) -> str:
        return f"{self.manifest.model}@{self.manifest.version}"


@dataclass
class Faults:
    """What the server does wrong; change it while it runs."""

    flip: set[str] = field(default_factory=set)  # paths whose content arrives with one bit flipped
    flip_once: set[str] = field(default_factory=set)
    status: dict[str, int] = field(default_factory=dict)  # path prefix -> status code
    cut: set[str] = field(default_factory=set)  # paths whose first answer ends half-way


class ReleaseRepository:
    """Signed documents and sealed chunks, served over HTTP on loopback."""

    def __init__(self, *, now: datetime | None = None) -> None:
        self.now = now or datetime.now(UTC)
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.files: dict[str, bytes] = {}
        self.root_signers = [NaClSigner.generate() for _ in range(3)]
        self.release_signer = NaClSigner.generate()
        self.snapshot_signer = NaClSigner.generate()
        self.timestamp_signer = NaClSigner.generate()
        self.director_signer = NaClSigner.generate()
        self.roles: dict[str, dict[str, TargetFile]] = {}
        self.versions: Counter[str] = Counter()
        self.assigned: Counter[str] = Counter()
        self.root = b""
        self._server: ThreadingHTTPServer | None = None
        self.sign_root()
        self.sign()

    # signed documents

    def sign_root(self) -> None:
        """The next root version: 2 of 3 keys."""
        self.versions["root"] += 1
        version = self.versions["root"]
        online = {"snapshot": self.snapshot_signer, "timestamp": self.timestamp_signer, "targets": self.release_signer}
        root = Root(version=version, expires=self._in(730), consistent_snapshot=True)
        for signer in self.root_signers:
            root.add_key(signer.public_key, "root")
        root.roles["root"].threshold = 2
        for role, signer in online.items():
            root.add_key(signer.public_key, role)
        metadata = Metadata(root)
        for signer in self.root_signers[:2]:
            metadata.sign(signer, append=True)
        self.files[f"/metadata/{version}.root.json"] = metadata.to_bytes()
        self.root = self.root or metadata.to_bytes()

    def sign(self, *, expired: bool = False) -> bytes:
        """Targets, model roles, snapshot, timestamp; returns the timestamp."""
        days = -1 if expired else 365
        roles = [DelegatedRole("director", [self._key(self.director_signer)], 1, True, ["assign/*"])]
        keys = {self._key(signer): signer.public_key for signer in (self.director_signer, self.release_signer)}
        for name in self.roles:
            model = name.removeprefix("model-")
            roles.append(DelegatedRole(name, [self._key(self.release_signer)], 1, True, [f"{model}/*/manifest.json"]))
        meta = {}
        delegations = Delegations(keys, {role.name: role for role in roles})
        meta["targets.json"] = self._put(
            "targets", Targets(expires=self._in(365), delegations=delegations), self.release_signer
        )
        for name, targets in self.roles.items():
            meta[f"{name}.json"] = self._put(
                name, Targets(expires=self._in(365), targets=dict(targets)), self.release_signer
            )
        snapshot = self._put("snapshot", Snapshot(expires=self._in(7), meta=meta), self.snapshot_signer)
        timestamp = Timestamp(expires=self._in(-1 if days < 0 else 1), snapshot_meta=snapshot)
        self._put("timestamp", timestamp, self.timestamp_signer)
        return self.files["/metadata/timestamp.json"]

    def _put(self, name: str, signed: Any, signer: NaClSigner) -> MetaFile:
        self.versions[name] += 1
        signed.version = self.versions[name]
        metadata: Metadata[Any] = Metadata(signed)
        metadata.sign(signer)
        file = "timestamp" if name == "timestamp" else f"{signed.version}.{name}"
        self.files[f"/metadata/{file}.json"] = metadata.to_bytes()
        return MetaFile(signed.version)

    @staticmethod
    def _key(signer: NaClSigner) -> str:
        return signer.public_key.keyid

    def _in(self, days: int) -> datetime:
        return (self.now + timedelta(days=days)).replace(microsecond=0)

    # releases

    def publish(
        self,
        model: str,
        version: str,
        file: bytes,
        *,
        counter: int | None = None,
        golden: bytes | None = None,
        baseline: bytes = b"{}",
        listed: bool = True,
        chunk_bytes: int = 200,
        old: bytes | None = None,
        **runtime: Any,
    ) -> Release:
        """Seal, sign and serve a release, with a delta from the file `old`. `listed` False: nobody vouches for it.
        `minimum_counter`, `tolerance`, `inputs`, `outputs` and fields of the runtime may be given."""
        content_key = signing.new_content_key()
        minimum, tolerance = runtime.pop("minimum_counter", 0), runtime.pop("tolerance", None)
        inputs = runtime.pop("inputs", (Tensor(name="x", datatype="FP32", shape=(-1, 8)),))
        outputs = runtime.pop("outputs", (Tensor(name="y", datatype="FP32", shape=(-1, 3)),))
        chunks: dict[str, bytes] = {}
        artifacts = {
            "model": _seal("model", file, content_key, chunks, chunk_bytes),
            "golden": _seal("golden", golden or golden_of(file), content_key, chunks, chunk_bytes * 4),
            "baseline": _seal("baseline", baseline, content_key, chunks, chunk_bytes),
        }
        facts = _facts(file)
        self.versions[f"counter-{model}"] += 1
        manifest = Manifest(
            model=model,
            version=version,
            counter=counter or self.versions[f"counter-{model}"],
            minimum_counter=minimum,
            created=self.now,
            runtime=Runtime(**{**facts, **runtime}),
            inputs=inputs,
            outputs=outputs,
            tolerance=tolerance or {"default": Tolerance()},
            latency_ms=0.1,
            artifacts=artifacts,
        )
        release = Release(manifest, manifest.to_bytes(), content_key, chunks)
        self.files[f"/manifests/{release.digest}"] = release.data
        self.files.update({f"/chunks/{name}": data for name, data in chunks.items()})
        if listed:
            path = release_path(model, version)
            custom: dict[str, Any] = {"counter": manifest.counter, "minimum_counter": minimum}
            if old is not None:
                custom["deltas"] = [self._delta(old, file, content_key)]
            target = TargetFile(len(release.data), {"sha256": release.digest}, path, {"custom": custom})
            self.roles.setdefault(f"model-{model}", {})[path] = target
            self.sign()
        return release

    def _delta(self, old: bytes, new: bytes, content_key: bytes) -> dict[str, Any]:
        from fleet.releases.delta import offering

        made = offering.make(old, new, content_key=content_key, full_bytes=len(new))
        assert made is not None
        self.files.update({f"/chunks/{name}": data for name, data in made.chunks.items()})
        return made.offer.model_dump()

    def assign(
        self,
        device: str,
        box_key: bytes,
        release: Release,
        *,
        version: int | None = None,
        signer: NaClSigner | None = None,
        expires_days: int = 30,
        path: str | None = None,
        **custom: Any,
    ) -> str:
        """A signed assignment; `custom` overrides what the director would write."""
        if version is None:
            self.assigned[device] += 1
            version = self.assigned[device]
        orders = {
            "device": device,
            "model": release.manifest.model,
            "version": release.manifest.version,
            "manifest": release.digest,
            "rollout": "ro-test",
            "sealed_key": signing.seal(release.content_key, box_key),
            **custom,
        }
        where = path or f"assign/{device}"
        target = TargetFile(len(release.data), {"sha256": release.digest}, where, {"custom": orders})
        signed = Targets(version=version, expires=self._in(expires_days), targets={where: target})
        metadata: Metadata[Targets] = Metadata(signed)
        metadata.sign(signer or self.director_signer)
        return metadata.to_bytes().decode()

    def announce(self, device: str, box_key: bytes, release: Release, **assign: Any) -> Announcement:
        """What the manager would publish for `device`."""
        timestamp = self.files["/metadata/timestamp.json"].decode()
        return Announcement(timestamp=timestamp, assignment=self.assign(device, box_key, release, **assign))

    # HTTP

    @property
    def url(self) -> str:
        """Of the running server."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path
        self.requests[path] += 1
        status = next((code for prefix, code in self.faults.status.items() if path.startswith(prefix)), 200)
        data = self.files.get(path)
        if data is None or status != 200:
            request.send_error(status if status != 200 else 404)
            return
        if path in self.faults.flip or path in self.faults.flip_once:
            self.faults.flip_once.discard(path)
            data = bytes([data[0] ^ 1]) + data[1:]
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if path in self.faults.cut:
            self.faults.cut.discard(path)
            data = data[: len(data) // 2]
        with contextlib.suppress(ConnectionError):  # whoever had enough has hung up
            request.wfile.write(data)


def _seal(name: str, plain: bytes, content_key: bytes, chunks: dict[str, bytes], chunk_bytes: int) -> Artifact:
    key = chunking.artifact_key(content_key, name)
    ranges = list(chunking.cut(len(plain), target_bytes=chunk_bytes))
    listed = []
    for index, (start, end) in enumerate(ranges):
        sealed = chunking.seal(plain[start:end], key=key, artifact=name, index=index, count=len(ranges))
        chunks[sha256(sealed)] = sealed
        listed.append(Chunk(id=sha256(sealed), size_bytes=len(sealed), plain_bytes=end - start))
    return Artifact(digest=sha256(plain), size_bytes=len(plain), chunks=tuple(listed))


def _facts(file: bytes) -> dict[str, Any]:
    """What the scan says, also of files that it refuses."""
    try:
        found = onnx_scan.scan(file)
    except onnx_scan.OnnxError:
        return {"ir_version": 10, "opset": {"ai.onnx": 17}}
    return {"ir_version": found.ir_version, "opset": found.opset}
