"""Deltas and snapped models, from the command line to what a device is offered."""

import json

import httpx2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fleet.releases.delta.cellar import KEPT, Cellar
from fleet.store import releases as store
from shared import chunking
from shared.delta.offer import Description, artifact, offers
from shared.delta.rebuild import rebuild
from shared.identifiers import sha256
from shared.manifest import Manifest
from tests.simulators import digits


def first() -> digits.Trained:
    return digits.train(hidden=128)


def tuned(seed: int, size: float = 1e-4) -> digits.Trained:
    """The first model, a little further trained: each weight moves by a part of itself."""
    chance = np.random.default_rng(seed)
    model = onnx.load_from_string(first().onnx_bytes)
    for row in model.graph.initializer:
        values = numpy_helper.to_array(row)
        moved = (values * (1 + size * chance.normal(size=values.shape))).astype(values.dtype)
        row.CopyFrom(numpy_helper.from_array(moved, row.name))
    return first()._replace(onnx_bytes=model.SerializeToString())


def offered(workshop, version):
    release = workshop.write(store.find, "digits", version)
    role = json.loads(workshop.write(store.document, "model-digits").data)
    target = role["signed"]["targets"][f"digits/{version}/manifest.json"]
    return release, Manifest.parse(release.manifest), offers(target["custom"])


def test_a_second_version_is_published_with_a_delta_that_leads_to_its_very_bytes(founded):
    second = tuned(1)
    founded.publish("1.0.0", first())
    founded.publish("1.1.0", second)
    release, manifest, (offer,) = offered(founded, "1.1.0")
    assert offer.base == sha256(first().onnx_bytes)
    assert offer.wire_bytes < 0.7 * manifest.artifacts["model"].sealed_bytes

    data = httpx2.get(f"{founded.url}/chunks/{offer.description}", trust_env=False).content
    described = Description.parse(data, offer, manifest.artifacts["model"])
    content_key = founded.manager.online_keys.open_escrow(release.escrow_key)
    key, listed = chunking.artifact_key(content_key, artifact(offer.base)), described.stream.chunks
    pieces = [
        chunking.unseal(
            httpx2.get(f"{founded.url}/chunks/{chunk.id}", trust_env=False).content,
            key=key, artifact=artifact(offer.base), index=index, count=len(listed), plain_bytes=chunk.plain_bytes,
        )
        for index, chunk in enumerate(listed)
    ]  # fmt: skip
    base = memoryview(first().onnx_bytes)
    assert b"".join(rebuild(base, iter(pieces), result_bytes=described.result_bytes)) == second.onnx_bytes


def test_no_deltas_are_made_when_they_are_not_wanted_or_nothing_is_known(founded):
    founded.publish("1.0.0", first())
    founded.publish("1.1.0", tuned(1), "--no-deltas")
    assert offered(founded, "1.0.0")[2] == offered(founded, "1.1.0")[2] == ()


def test_a_model_is_verified_as_before_with_its_deltas(founded):
    founded.publish("1.0.0", first())
    founded.publish("1.1.0", tuned(1))
    assert founded.asks("model", "verify", "digits", "1.1.0")["verified"]


def test_a_snapped_version_tells_what_was_done_to_it_and_takes_much_less(founded):
    founded.publish("1.0.0", first())
    founded.publish("1.1.0", tuned(1, 1e-2), "--snap")
    _, manifest, (offer,) = offered(founded, "1.1.0")
    told = manifest.metrics
    assert 0 < told["snap_distance"] <= told["snap_distance_fp16"]
    assert told["snap_accuracy_lost"] <= 0
    assert manifest.artifacts["model"].digest != sha256(tuned(1, 1e-2).onnx_bytes)
    assert offer.wire_bytes < 0.5 * manifest.artifacts["model"].sealed_bytes
    assert sha256(Cellar(founded.keys.folder).files("digits")[0]) == manifest.artifacts["model"].digest


def test_a_snap_without_an_earlier_file_says_how_to_name_one(founded):
    file, data = founded.files(first())
    result = founded.flotilla("model", "publish", "digits", "1.0.0", file, "--reference", data, "--snap")
    assert result.exit_code != 0
    assert "E_SNAP" in result.output
    assert "--from OLD.onnx" in result.output


def test_diff_and_delta_tell_the_bytes_of_an_update(founded):
    old, new = founded.folder / "old.onnx", founded.folder / "new.onnx"
    old.write_bytes(first().onnx_bytes)
    new.write_bytes(tuned(1).onnx_bytes)
    found = founded.asks("model", "diff", str(old), str(new))
    assert sum(row["plain_bytes"] for row in found["tensors"]) == found["size_bytes"] == len(tuned(1).onnx_bytes)
    assert sum(row["delta_bytes"] for row in found["tensors"]) == pytest.approx(found["delta_bytes"], abs=64)
    output = founded.folder / "update.delta"
    assert founded.asks("model", "delta", str(old), str(new), "--output", str(output))["delta_bytes"] == len(
        output.read_bytes()
    )


def test_the_cellar_keeps_the_newest_files_and_leaves_damaged_ones_out(tmp_path):
    cellar = Cellar(tmp_path)
    for number in range(1, KEPT + 3):
        cellar.put("digits", number, b"%d" % number)
    assert cellar.files("digits") == [b"%d" % number for number in range(KEPT + 2, 2, -1)]
    next((tmp_path / "published" / "digits").glob(f"{KEPT + 2:08d}-*")).write_bytes(b"other")
    assert cellar.files("digits")[0] == b"%d" % (KEPT + 1)
    assert cellar.files("other") == []
