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

from fleet.releases import ceremony, pinning, reference_run
from fleet.releases.documents import role_of
from fleet.releases.errors import EmbeddingError, EscrowError, VersionExistsError
from fleet.releases.packing import Label, Package, pack
from fleet.releases.reading import read_model
from fleet.releases.reference_data import made_up, read_reference
from fleet.releases.wording import described, readable
from shared import signing
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


def publish(
    source: Source,
    label: Label,
    *,
    door: Door,
    keystore: Keystore,
    teller: Teller,
    now: datetime,
    threshold: int | None = None,
) -> tuple[Mapping[str, Any], bool]:
    """The published version as the manager describes it; False beside it when the same content was there before.

    Raises:
        FlotillaError: many leaves; each says what to do.
    """
    checked("model name", label.model)
    checked("version", label.version)
    facts = read_model(source.name, source.onnx)
    teller.say(f"✔ {described(facts, len(source.onnx))}")
    known = door.version(label.model, label.version)
    if known is not None:
        return _known(known, source.onnx), False
    trust_described = door.trust()
    trust = pinning.verified(keystore, trust_described, door.root)
    measured = _measure(source, facts, teller)
    package = _packed(source, label, facts, measured, counter=next_counter(trust, label.model), teller=teller, now=now)
    role, targets = ceremony.with_release(
        trust, package.manifest, package.data, signers=keystore.signers("targets"), threshold=threshold, now=now
    )
    _upload(package, door, teller)
    body = {
        "manifest": package.data.decode(),
        "role": role.decode(),
        "targets": targets.decode() if targets is not None else None,
        "escrow_key": signing.seal(package.content_key, _escrow(trust_described)),
        "baseline": package.baseline.decode(),
    }
    return door.submit(label.model, body), True


def next_counter(trust: Trust, model: str) -> int:
    """One more than any signed release of the model."""
    role = trust.roles.get(role_of(model))
    targets = role.signed.targets.values() if role else ()
    return 1 + max((int(target.unrecognized_fields["custom"]["counter"]) for target in targets), default=0)


def _known(known: Mapping[str, Any], onnx: bytes) -> Mapping[str, Any]:
    if known["model_digest"] == sha256(onnx):
        return known
    name = f"{known['model']}@{known['version']}"
    raise VersionExistsError(
        f"{name} is already published with other content (sha256:{known['model_digest'][:8]}, "
        f"yours sha256:{sha256(onnx)[:8]})",
    )


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
    counter: int,
    teller: Teller,
    now: datetime,
) -> Package:
    with teller.progress("sealing", len(source.onnx) + len(measured.golden)) as done:
        return pack(
            label,
            source.onnx,
            facts,
            measured,
            counter=counter,
            content_key=signing.new_content_key(),
            now=now,
            progress=done,
        )


def _upload(package: Package, door: Door, teller: Teller) -> None:
    missing = door.missing(list(package.chunks))
    with teller.progress("uploading", sum(len(package.chunks[name]) for name in missing)) as done:
        for name in missing:
            door.upload(name, package.chunks[name])
            done(len(package.chunks[name]))
    size = readable(sum(map(len, package.chunks.values())))
    teller.say(f"✔ {len(package.chunks)} chunks, {size} sealed, {len(missing)} uploaded")


def _escrow(trust_described: Mapping[str, Any]) -> bytes:
    try:
        key = base64.b64decode(trust_described["escrow_key"], validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise EscrowError("the manager's escrow key is not a key")
    return key
