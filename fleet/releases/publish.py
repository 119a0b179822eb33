"""Publish one version of one model: from an ONNX file to a signed release on the manager.

    read, scan -> taken already? -> trust -> run on reference data -> pack, sign -> upload what is missing -> submit

I/O: process, chance.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from fleet.releases import ceremony, pinning, reference_run, rotation
from fleet.releases.delta import offering, snap_gate
from fleet.releases.delta.snap_gate import Snapped
from fleet.releases.documents import role_of
from fleet.releases.errors import EmbeddingError, EscrowError, RestoredError, VersionExistsError
from fleet.releases.floors import following
from fleet.releases.packing import Label, Package, pack
from fleet.releases.reading import read_model
from fleet.releases.reference_data import made_up, read_reference
from fleet.releases.wording import described, readable
from shared import signing
from shared.delta.offer import MAX_OFFERS
from shared.identifiers import checked, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from fleet.releases.ceremony import Trust
    from fleet.releases.keystore import Keystore
    from fleet.releases.reference_run import Measured
    from shared.onnx_scan import ModelFacts

GOLDEN_ROWS: Final = 32
FEW_ROWS: Final = 100  # below it the drift baseline is rough


class Door(Protocol):
    """The manager, as far as publishing needs it."""

    def version(self, model: str, version: str) -> Mapping[str, Any] | None:
        """What is published under this name, or None."""

    def trust(self) -> Mapping[str, Any]:
        """`GET /trust`."""

    def root(self, version: int) -> bytes:
        """One signed root."""

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those chunks that are not there."""

    def upload(self, name: str, chunk: bytes) -> None:
        """One chunk."""

    def submit(self, model: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """`POST /models/{model}/versions`."""


class Teller(Protocol):
    """Where progress is shown; `fleet.cli.shell.Shell` is one."""

    def say(self, text: str) -> None:
        """One line for people."""

    def progress(self, label: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A bar; what it yields is told what was just done."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is published: the files as they are. Without `reference` drift cannot be seen.

    `metrics` are what its makers measured, such as mAP50; those measured here on labels win.
    """

    name: str
    onnx: bytes
    reference: bytes | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    embedding: str | None = None  # the output whose projection is watched as well
    deltas: bool = True  # from each of `bases`
    snap: bool = False  # round the change since the first of `bases`
    bases: Sequence[bytes] = ()  # model files that devices may hold, newest first: a delta is made from each


def publish(
    source: Source,
    label: Label,
    *,
    door: Door,
    keystore: Keystore,
    teller: Teller,
    now: datetime,
    threshold: int | None = None,
) -> tuple[Mapping[str, Any], bool, bytes]:
    """The published version as the manager describes it; False when the same content was there before; the model file
    as it is published, which is another than the source's when it was snapped.

    Raises:
        FlotillaError: many leaves; each says what to do.
    """
    checked("model name", label.model)
    checked("version", label.version)
    facts = read_model(source.name, source.onnx)
    teller.say(f"✔ {described(facts, len(source.onnx))}")
    known = door.version(label.model, label.version)
    if known is not None:
        return _known(known, source.onnx), False, source.onnx
    trust_described = door.trust()
    trust = pinning.verified(keystore, trust_described, door.root)
    snapped = _snapped(source, facts, teller) if source.snap else Snapped(source.onnx, {}, {})
    source = replace(source, onnx=snapped.onnx)
    measured = _measure(source, facts, teller)
    measured = replace(measured, metrics={**measured.metrics, **snapped.metrics})
    if (why := rotation.behind(trust)) is not None:
        raise RestoredError(f"{why}, and its signed documents are from before that")
    before = last_counter(trust, label.model)
    package = _packed(source, label, facts, measured, before=before, floor=trust.floor, teller=teller, now=now)
    made = _deltas(source, package, snapped, teller)
    role, targets = ceremony.with_release(
        trust,
        package.manifest,
        package.data,
        signers=keystore.signers("targets"),
        threshold=threshold,
        now=now,
        deltas=[each.offer for each in made],
    )
    _upload(package, made, door, teller)
    body = {
        "manifest": package.data.decode(),
        "role": role.decode(),
        "targets": targets.decode() if targets is not None else None,
        "escrow_key": signing.seal(package.content_key, _escrow(trust_described)),
        "baseline": package.baseline.decode(),
    }
    return door.submit(label.model, body), True, source.onnx


def last_counter(trust: Trust, model: str) -> int:
    """The highest of any signed release of the model; 0 before the first."""
    role = trust.roles.get(role_of(model))
    targets = role.signed.targets.values() if role else ()
    return max((int(target.unrecognized_fields["custom"]["counter"]) for target in targets), default=0)


def _known(known: Mapping[str, Any], onnx: bytes) -> Mapping[str, Any]:
    if known["model_digest"] == sha256(onnx):
        return known
    name = f"{known['model']}@{known['version']}"
    raise VersionExistsError(
        f"{name} is already published with other content (sha256:{known['model_digest'][:8]}, "
        f"yours sha256:{sha256(onnx)[:8]})",
    )


def _snapped(source: Source, facts: ModelFacts, teller: Teller) -> Snapped:
    if not source.bases:
        raise snap_gate.SnapError(
            "no earlier release of this model is known on this machine to snap to",
            remedy="name its file: --from OLD.onnx",
        )
    if source.reference is None:
        raise snap_gate.SnapError(
            "without reference data nobody could tell what rounding does to the answers",
            remedy="give reference data, or publish without snap",
        )
    inputs, labels = read_reference(source.reference, facts.inputs)
    made = snap_gate.snapped(source.bases[0], source.onnx, inputs, labels, declared=facts.inputs, say=teller.say)
    teller.say(f"✔ snapped: outputs {made.metrics['snap_distance']:.2e} of their size away from the file given")
    return made


def _measure(source: Source, facts: ModelFacts, teller: Teller) -> Measured:
    if source.reference is None:
        inputs, labels = made_up(facts.inputs, GOLDEN_ROWS), None
    else:
        inputs, labels = read_reference(source.reference, facts.inputs)
    rows = len(next(iter(inputs.values())))
    declared = sorted(tensor.name for tensor in facts.outputs)
    if source.embedding is not None and source.embedding not in declared:
        raise EmbeddingError(f"the model has no output {source.embedding!r}; it has {', '.join(declared)}")
    measured = reference_run.run(
        source.onnx,
        inputs,
        labels,
        declared=facts.inputs,
        golden_rows=GOLDEN_ROWS,
        embedding=source.embedding,
    )
    measured = replace(measured, metrics={**source.metrics, **measured.metrics})
    if source.reference is None:
        teller.say("! no reference data: devices check themselves on made-up inputs, and drift cannot be seen")
        return replace(measured, features={})
    accuracy = f", accuracy {measured.accuracy:.1%}" if measured.accuracy is not None else ""
    teller.say(f"✔ ran on {rows} reference rows: {measured.latency_ms:.2f} ms each{accuracy}")
    if rows < FEW_ROWS:
        teller.say(f"! {rows} rows make a rough drift baseline; {FEW_ROWS} or more are better")
    return measured


def _packed(
    source: Source,
    label: Label,
    facts: ModelFacts,
    measured: Measured,
    *,
    before: int,
    floor: int,
    teller: Teller,
    now: datetime,
) -> Package:
    with teller.progress("sealing", len(source.onnx) + len(measured.golden)) as done:
        return pack(
            label,
            source.onnx,
            facts,
            measured,
            counter=following(before, floor),
            before=before,
            content_key=signing.new_content_key(),
            now=now,
            progress=done,
        )


def _deltas(source: Source, package: Package, snapped: Snapped, teller: Teller) -> list[offering.Made]:
    """One delta from each base that is worth it."""
    full = package.manifest.artifacts["model"].sealed_bytes
    if not source.deltas:
        return []
    bases = list({sha256(base): base for base in source.bases if base != source.onnx}.values())[:MAX_OFFERS]
    found = []
    for base in bases:
        with teller.progress("making a delta", len(source.onnx)) as done:
            made = offering.make(
                base,
                source.onnx,
                content_key=package.content_key,
                full_bytes=full,
                progress=done,
                grids=snapped.grids if base is source.bases[0] else {},
            )
        name = f"sha256:{sha256(base)[:8]}"
        if made is None:
            teller.say(f"✔ no delta from {name}: the full file is as small")
        else:
            size = made.offer.wire_bytes
            teller.say(f"✔ delta from {name}: {readable(size)} instead of {readable(full)} ({size / full:.1%})")
            found.append(made)
    return found


def _upload(package: Package, made: Sequence[offering.Made], door: Door, teller: Teller) -> None:
    chunks = dict(package.chunks)
    for each in made:
        chunks |= each.chunks
    missing = door.missing(list(chunks))
    with teller.progress("uploading", sum(len(chunks[name]) for name in missing)) as done:
        for name in missing:
            door.upload(name, chunks[name])
            done(len(chunks[name]))
    size = readable(sum(map(len, chunks.values())))
    teller.say(f"✔ {len(chunks)} chunks, {size} sealed, {len(missing)} uploaded")


def _escrow(trust_described: Mapping[str, Any]) -> bytes:
    try:
        key = base64.b64decode(trust_described["escrow_key"], validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise EscrowError("the manager's escrow key is not a key")
    return key
