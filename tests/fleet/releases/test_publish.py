"""`flotilla init` and `flotilla model publish` against a manager, and a device that believes neither without proof."""

import io
import json
import shutil

import httpx2
import numpy as np
import pytest
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from fleet.devices.assigning import Order
from fleet.releases import documents
from fleet.store import releases as store
from shared import chunking, signing
from shared.identifiers import sha256
from shared.manifest import Manifest
from shared.sketches import Baseline
from tests.simulators import digits


class Fetcher(FetcherInterface):
    def _fetch(self, url):
        answer = httpx2.get(url, trust_env=False)
        if answer.status_code != 200:
            from tuf.api.exceptions import DownloadHTTPError

            raise DownloadHTTPError("no", answer.status_code)
        return iter([answer.content])


def device(workshop, tmp_path, name="device"):
    """What a device does: from root 1, refresh over HTTP."""
    folder = tmp_path / name
    first = httpx2.get(f"{workshop.url}/metadata/1.root.json", trust_env=False).content
    folder.mkdir(exist_ok=True)
    updater = Updater(
        str(folder), f"{workshop.url}/metadata/", str(folder), f"{workshop.url}/targets/", Fetcher(), bootstrap=first
    )
    updater.refresh()
    return updater


def test_a_published_version_is_accepted_opened_and_run_by_a_device(founded, tmp_path):
    found = founded.publish("1.0.0")
    assert found["published"]
    assert found["metrics"]["accuracy"] > 0.85

    target = device(founded, tmp_path).get_targetinfo("digits/1.0.0/manifest.json")
    assert target is not None
    data = httpx2.get(f"{founded.url}/manifests/{target.hashes['sha256']}", trust_env=False).content
    target.verify_length_and_hashes(data)
    manifest = Manifest.parse(data, target.hashes["sha256"])
    assert target.unrecognized_fields["custom"] == {"counter": 1, "minimum_counter": 0}

    release = founded.write(store.find, "digits", "1.0.0")
    box = signing.PrivateKey.generate()
    now = founded.clock.now()
    assigned = founded.manager.director.assign(
        device="cam-1",
        box_key=bytes(box.public_key),
        release=release,
        order=Order("ro-1"),
        version=7,
        now=founded.clock.now(),
    )
    assignment = documents.read(documents.Targets, assigned.encode())
    top = documents.stored(documents.Targets, founded.write(store.document, "targets").data)
    documents.verify(top, "director", assignment, now)
    said = assignment.signed.targets["assign/cam-1"].custom
    assert (assignment.signed.version, said["device"], said["manifest"]) == (7, "cam-1", sha256(data))
    key = signing.unseal(said["sealed_key"], bytes(box))

    plain = {name: opened(founded, artifact, name, key) for name, artifact in manifest.artifacts.items()}
    assert plain["model"] == digits.train().onnx_bytes
    golden = np.load(io.BytesIO(plain["golden"]))
    assert golden["input.image"].shape == (32, 8, 8)
    assert golden["output.scores"].shape == (32, 10)
    baseline = Baseline.model_validate_json(plain["baseline"])
    assert baseline.samples == len(digits.train().reference_x)
    names = {feature.name for feature in baseline.features}
    assert {"input.brightness", "output.confidence", "class.predicted"} <= names
    classes = next(feature for feature in baseline.features if feature.name == "class.predicted")
    assert (classes.kind, len(classes.counts), sum(classes.counts)) == ("category", 10, baseline.samples)


def opened(workshop, artifact, name, content_key):
    key = chunking.artifact_key(content_key, name)
    plain = b""
    for index, chunk in enumerate(artifact.chunks):
        sealed = httpx2.get(f"{workshop.url}/chunks/{chunk.id}", trust_env=False).content
        chunking.check(sealed, chunk.id)
        plain += chunking.unseal(
            sealed, key=key, artifact=name, index=index, count=len(artifact.chunks), plain_bytes=chunk.plain_bytes
        )
    assert sha256(plain) == artifact.digest
    return plain


def test_init_is_repeatable(workshop):
    assert workshop.asks("init")["changed"] is True
    again = workshop.asks("init")
    assert (again["changed"], again["root_version"]) == (False, 1)
    assert (workshop.folder / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (workshop.folder / "keys").iterdir()} == {0o600}


def test_init_with_other_keys_is_a_conflict(founded):
    shutil.move(founded.folder / "keys", founded.folder / "lost")
    founded.keys.create()
    result = founded.flotilla("init")
    assert result.exit_code == 5
    assert "other keys" in result.stderr


def test_publishing_before_init_says_what_to_type(workshop):
    file, data = workshop.files(digits.train())
    result = workshop.flotilla("model", "publish", "digits", "1.0.0", file, "--reference", data)
    assert result.exit_code == 1
    assert "E_NOT_INITIALISED" in result.stderr
    assert "flotilla init" in result.stderr


def test_same_content_again_is_a_no_op_and_other_content_is_refused(founded):
    first = founded.publish("1.0.0")
    again = founded.publish("1.0.0")
    assert again["published"] is False
    assert again["manifest_digest"] == first["manifest_digest"]

    file, data = founded.files(digits.train(2), "other.onnx")
    result = founded.flotilla("model", "publish", "digits", "1.0.0", file, "--reference", data)
    assert result.exit_code == 5
    assert "E_VERSION_EXISTS" in result.stderr
    assert "flotilla model publish digits 1.0.1 " in result.stderr


def test_versions_count_up_and_are_listed(founded, tmp_path):
    founded.publish("1.0.0")
    second = founded.publish("1.1.0", digits.train(2), "--notes", "better")
    assert (second["counter"], second["minimum_counter"]) == (2, 1)  # one back, unless the release says otherwise
    assert [item["version"] for item in founded.asks("model", "show", "digits")["items"]] == ["1.1.0", "1.0.0"]
    assert founded.asks("model", "list")["items"][0]["latest"] == "1.1.0"
    shown = founded.flotilla("model", "show", "digits", "1.1.0")
    assert "image[any,8,8] FP32" in shown.stdout
    assert founded.flotilla("model", "show", "nothing").exit_code == 3
    verified = founded.asks("model", "verify", "digits", "1.1.0", str(founded.folder / "model.onnx"))
    assert verified["verified"]
    updater = device(founded, tmp_path)
    assert updater.get_targetinfo("digits/1.0.0/manifest.json")
    assert updater.get_targetinfo("digits/1.1.0/manifest.json")


def test_verify_refuses_another_file(founded):
    founded.publish("1.0.0")
    (founded.folder / "other.onnx").write_bytes(digits.train(2).onnx_bytes)
    result = founded.flotilla("model", "verify", "digits", "1.0.0", str(founded.folder / "other.onnx"))
    assert result.exit_code == 1
    assert "not the one" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("model.pt", b"PK\x03\x04", "torch.onnx.export"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "export('model.onnx'"),
        ("model.tflite", b"\0\0\0\0TFL3", "tf2onnx"),
        ("model.engine", b"ftrt", "ONNX file it was built from"),
        ("model.pkl", b"\x80\x04", "skl2onnx"),
        ("disguised.onnx", b"PK\x03\x04", "torch.onnx.export"),
    ],
)
def test_other_formats_are_refused_with_how_to_export(founded, name, content, remedy):
    (founded.folder / name).write_bytes(content)
    _, data = founded.files(digits.train())
    result = founded.flotilla("model", "publish", "digits", "1.0.0", str(founded.folder / name), "--reference", data)
    assert result.exit_code == 1
    assert "E_NOT_ONNX" in result.stderr
    assert remedy in result.stderr


def test_garbage_is_not_onnx(founded):
    (founded.folder / "model.onnx").write_bytes(b"hello, world")
    _, data = founded.files(digits.train(), "real.onnx")
    file = str(founded.folder / "model.onnx")
    result = founded.flotilla("model", "publish", "digits", "1.0.0", file, "--reference", data)
    assert result.exit_code == 1
    assert "E_ONNX" in result.stderr


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pixels": np.zeros((3, 8, 8), np.float32)}, "image"),
        ({"image": np.zeros((3, 9, 8), np.float32)}, "anyx8x8"),
        ({"image": np.array([["a"]])}, "float32"),
        ({"image": np.zeros((3, 8, 8), np.float32), "y": np.zeros(2)}, "different numbers of rows"),
        ({"image": np.full((3, 8, 8), np.nan, np.float32)}, "NaN"),
    ],
)
def test_reference_data_that_does_not_fit_is_explained(founded, arrays, said):
    file, _ = founded.files(digits.train())
    np.savez(founded.folder / "wrong.npz", **arrays)
    wrong = str(founded.folder / "wrong.npz")
    result = founded.flotilla("model", "publish", "digits", "1.0.0", file, "--reference", wrong)
    assert result.exit_code == 1, result.output
    assert said in result.stderr


def test_reference_data_may_be_called_x(founded):
    trained = digits.train()
    file, _ = founded.files(trained)
    np.savez(founded.folder / "x.npz", x=trained.reference_x.astype(np.float64))
    found = founded.asks("model", "publish", "digits", "1.0.0", file, "--reference", str(founded.folder / "x.npz"))
    assert found["metrics"] == {}


def test_two_release_keys_must_agree_where_asked(workshop, tmp_path):
    workshop.asks("init", "--threshold", "2")
    assert "release-2" in workshop.keys.names()
    workshop.publish("1.0.0")
    (workshop.folder / "keys" / "release-2.key").rename(workshop.folder / "release-2.away")
    file, data = workshop.files(digits.train(2))
    result = workshop.flotilla("model", "publish", "digits", "1.1.0", file, "--reference", data)
    assert result.exit_code == 1
    assert "needs 2 signatures" in result.stderr
    assert device(workshop, tmp_path).get_targetinfo("digits/1.0.0/manifest.json")


def test_keys_under_a_passphrase(workshop):
    workshop.environment["FLOTILLA_KEYS_PASSPHRASE"] = "correct horse"
    workshop.asks("init")
    workshop.publish("1.0.0")
    workshop.environment["FLOTILLA_KEYS_PASSPHRASE"] = "wrong"
    result = workshop.flotilla("key", "show")
    assert result.exit_code == 1
    assert "passphrase" in result.stderr


def test_progress_goes_to_stderr_and_json_alone_to_stdout(founded):
    file, data = founded.files(digits.train())
    result = founded.flotilla("model", "publish", "digits", "1.0.0", file, "--reference", data, "--json")
    assert json.loads(result.stdout)["version"] == "1.0.0"
    assert "✔ ONNX opset 17, image[any,8,8] FP32 -> scores[any,10] FP32" in result.stderr
