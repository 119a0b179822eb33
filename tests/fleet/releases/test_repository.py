"""Nothing is accepted that a device would refuse; what is accepted stays fresh."""

import base64
import json
from datetime import timedelta

import httpx2
import pytest
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from fleet.devices.assigning import Order
from fleet.releases import ceremony, documents, pinning, rotation
from fleet.releases.documents import Root, Snapshot, Targets, Timestamp
from fleet.releases.errors import EscrowError, MetadataError
from fleet.store import releases as store
from shared import signing
from shared.signing import NaClSigner
from tests.simulators import digits


def ask(workshop, method, path, **arguments):
    headers = {"Authorization": "Bearer admin", **arguments.pop("headers", {})}
    return httpx2.request(method, workshop.url + path, headers=headers, trust_env=False, **arguments)


def trust_of(workshop):
    described = ask(workshop, "GET", "/api/v1/trust").json()
    return described, pinning.verified(workshop.keys, described, lambda version: b"")


def newest(workshop, role, kind):
    return documents.stored_document(kind, workshop.write(store.document, role).data)


def test_snapshot_lists_every_model_role_and_timestamp_names_the_snapshot(founded):
    founded.publish("1.0.0")
    snapshot = newest(founded, "snapshot", Snapshot)
    assert {name: meta.version for name, meta in snapshot.signed.meta.items()} == {
        "targets.json": 2,
        "model-digits.json": 1,
    }
    timestamp = newest(founded, "timestamp", Timestamp)
    assert timestamp.signed.snapshot_meta.version == snapshot.signed.version
    root = newest(founded, "root", Root)
    for name, document in (("snapshot", snapshot), ("timestamp", timestamp)):
        documents.verify(root.signed, name, document, founded.clock.now())


def test_metadata_is_signed_again_after_half_of_its_life_and_not_before(founded):
    refresh = founded.manager.repository.refresh
    now = founded.clock.now()
    assert founded.write(refresh, now + timedelta(hours=11)) is False
    assert founded.write(refresh, now + timedelta(hours=13)) is True
    assert newest(founded, "timestamp", Timestamp).signed.version == 2
    assert newest(founded, "snapshot", Snapshot).signed.version == 1
    assert founded.write(refresh, now + timedelta(days=4)) is True
    assert newest(founded, "snapshot", Snapshot).signed.version == 2
    assert newest(founded, "timestamp", Timestamp).signed.snapshot_meta.version == 2


def test_refresh_before_init_does_nothing(workshop):
    assert workshop.write(workshop.manager.repository.refresh, workshop.clock.now()) is False


def test_only_the_newest_versions_are_kept_but_every_root(founded):
    now = founded.clock.now()
    for day in range(1, 12):
        founded.write(founded.manager.repository.refresh, now + timedelta(days=day))
    assert ask(founded, "GET", "/metadata/1.root.json").status_code == 200
    assert ask(founded, "GET", "/metadata/12.timestamp.json").status_code == 200
    assert ask(founded, "GET", "/metadata/1.timestamp.json").status_code == 404


@pytest.mark.parametrize("name", ["2.root.json", "x.json", "../1.root.json", "root", "0.root.json", "%00"])
def test_unknown_metadata_is_not_found(founded, name):
    assert ask(founded, "GET", f"/metadata/{name}").status_code == 404


def flipped(text):
    document = json.loads(text)
    document["signed"]["expires"] = "2999-01-01T00:00:00Z"
    return json.dumps(document)


def forged_root(workshop):
    """A root signed by nobody we know, that names this manager's own online keys."""
    keys = [NaClSigner.generate() for _ in range(4)]
    described = ask(workshop, "GET", "/api/v1/trust").json()
    online = pinning.online_parts(described)
    root = ceremony.first_root(
        [key.public_key for key in keys[:3]], [keys[3].public_key], snapshot=online.snapshot,
        timestamp=online.timestamp, threshold=1, now=workshop.clock.now(),
    )  # fmt: skip
    root.signed.version = 2
    for key in keys[:3]:
        root.sign(key, append=True)
    targets = ceremony.first_targets(online, workshop.clock.now())
    targets.signed.version = 2
    targets.sign(keys[3])
    return {"root": documents.write(root).decode(), "targets": documents.write(targets).decode(), "roles": {}}


@pytest.mark.parametrize("what", ["root", "targets", "forged", "garbage", "skips"])
def test_trust_that_a_device_would_refuse_is_refused(founded, what):
    before = ask(founded, "GET", "/api/v1/trust").json()
    described, trust = trust_of(founded)
    body = rotation.changed(founded.keys, trust, pinning.online_parts(described), now=founded.clock.now())
    if what in ("root", "targets"):
        body[what] = flipped(body[what])
    elif what == "forged":
        body = forged_root(founded)
    elif what == "garbage":
        body["root"] = '{"signed": {"_type": "root"}, "signed": 1}'
    else:
        root = documents.read(Root, body["root"].encode())
        root.signed.version = 3
        body["root"] = ceremony.sign_next_root(trust.root, root, founded.keys.signers("root")).decode()
    answer = ask(founded, "POST", "/api/v1/trust", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "E_METADATA")
    assert ask(founded, "GET", "/api/v1/trust").json() == before


def test_trust_for_another_managers_online_keys_is_refused(founded):
    described, trust = trust_of(founded)
    stranger = NaClSigner.generate().public_key
    online = pinning.online_parts(described)
    for foreign in (
        ceremony.OnlineParts(stranger, online.timestamp, online.director),
        ceremony.OnlineParts(online.snapshot, online.timestamp, stranger),
    ):
        body = rotation.changed(founded.keys, trust, foreign, now=founded.clock.now())
        answer = ask(founded, "POST", "/api/v1/trust", json=body)
        assert answer.json()["code"] == "E_ONLINE_KEYS"


def test_one_key_under_two_names_does_not_count_twice(founded):
    described, trust = trust_of(founded)
    root = ceremony.next_root(
        trust.root, root_keys=[key.public_key for key in founded.keys.signers("root")],
        release_keys=[key.public_key for key in founded.keys.signers("targets")],
        snapshot=trust.root.signed.keys[trust.root.signed.roles["snapshot"].keyids[0]],
        timestamp=trust.root.signed.keys[trust.root.signed.roles["timestamp"].keyids[0]], now=founded.clock.now(),
    )  # fmt: skip
    twin = signing.NaClKey("f" * 64, "ed25519", "ed25519", dict(founded.keys.signer("release-1").public_key.keyval))
    root.signed.add_key(twin, "targets")
    body = {"root": ceremony.sign_next_root(trust.root, root, founded.keys.signers("root")).decode()}
    answer = ask(founded, "POST", "/api/v1/trust", json={**body, "targets": described["targets"]})
    assert answer.json()["code"] == "E_METADATA"
    assert "digest" in answer.json()["detail"]


def test_targets_that_delegate_other_paths_are_refused(founded):
    described, trust = trust_of(founded)
    targets = documents.stored_document(Targets, described["targets"].encode())
    role = documents.model_role("digits", [founded.keys.signer("release-1").public_key], 1)
    role.paths = ["*/*/manifest.json"]
    targets.signed.delegations.roles["model-digits"] = role
    targets.signed.version += 1
    signed = ceremony.sign(targets, trust.root.signed.roles["targets"], "targets", founded.keys.signers("targets"))
    answer = ask(founded, "POST", "/api/v1/trust", json={"root": described["root"], "targets": signed.decode()})
    assert "other paths" in answer.json()["detail"]


class Tampering:
    """Hands a real submission on, changed."""

    def __init__(self, workshop, change):
        self.workshop, self.change = workshop, change

    def __call__(self):
        from fleet.releases import packing, publish
        from fleet.releases.publish import Source
        from fleet.rest.errors import ProblemError
        from fleet.rest.release_door import ReleaseDoor

        sent = {}

        def send(call):
            arguments = call.arguments()
            if call.method == "POST" and call.path.endswith("/versions"):
                sent.update(arguments["json"])
                arguments["json"] = self.change(dict(arguments["json"]))
            answer = ask(self.workshop, call.method, call.full_path, **arguments)
            if call.path.endswith("/versions"):
                self.answer = answer
                return None
            if answer.status_code == 404:
                raise ProblemError(404, {"code": "E_NOT_FOUND"})
            return answer.json()

        class Quiet:
            def say(self, text): ...

            def progress(self, label, total):
                from contextlib import nullcontext

                return nullcontext(lambda done: None)

        trained = digits.train(2)
        publish.publish(
            Source("m.onnx", trained.onnx_bytes, trained.reference_npz()),
            packing.Label("digits", "1.1.0"),
            door=ReleaseDoor(send),
            keystore=self.workshop.keys,
            teller=Quiet(),
            now=self.workshop.clock.now(),
        )
        return self.answer


def other_manifest(body):
    return {**body, "manifest": body["manifest"].replace('"notes":""', '"notes":"evil"')}


def other_role(body):
    role = json.loads(body["role"])
    role["signed"]["targets"].popitem()
    return {**body, "role": json.dumps(role)}


def older_role(workshop):
    return lambda body: {**body, "role": workshop.write(store.document, "model-digits").data.decode()}


def foreign_escrow(body):
    return {**body, "escrow_key": signing.seal(b"k" * 32, bytes(signing.PrivateKey.generate().public_key))}


def other_content_key(workshop):
    escrow = base64.b64decode(workshop.manager.online_keys.escrow_public())
    return lambda body: {**body, "escrow_key": signing.seal(b"k" * 32, escrow)}


def other_baseline(body):
    return {**body, "baseline": body["baseline"].replace('"samples":', '"samples": ')}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: other_manifest, "E_METADATA"),
        (lambda w: other_role, "E_METADATA"),
        (older_role, "E_METADATA"),
        (lambda w: foreign_escrow, "E_ESCROW"),
        (other_content_key, "E_ESCROW"),
        (lambda w: other_baseline, "E_ESCROW"),
    ],
)
def test_a_tampered_release_is_refused_and_leaves_nothing(founded, change, code):
    founded.publish("1.0.0")
    before = ask(founded, "GET", "/api/v1/trust").json()
    answer = Tampering(founded, change(founded))()
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == code
    assert ask(founded, "GET", "/api/v1/trust").json() == before
    assert founded.asks("model", "list")["items"][0]["latest"] == "1.0.0"
    assert founded.publish("1.1.0", digits.train(2))["published"]


def test_a_release_whose_chunks_are_not_here_is_refused(founded):
    def forget(body):
        chunk = json.loads(body["manifest"])["artifacts"]["model"]["chunks"][0]["id"]
        founded.manager.depot.path(chunk).unlink()
        return body

    answer = Tampering(founded, forget)()
    assert (answer.status_code, answer.json()["code"]) == (409, "E_CHUNKS_MISSING")


def test_a_release_whose_delta_is_not_here_is_refused(founded):
    offer = {"base": "1" * 64, "description": "2" * 64, "description_bytes": 9, "sealed_bytes": 9}

    def offers(body):
        role = json.loads(body["role"])
        role["signed"]["targets"]["digits/1.1.0/manifest.json"]["custom"]["deltas"] = [offer]
        return {**body, "role": json.dumps(role)}

    answer = Tampering(founded, offers)()
    assert (answer.status_code, answer.json()["code"]) == (409, "E_CHUNKS_MISSING")


def test_repeating_a_submission_is_harmless(founded):
    bodies = []
    first = Tampering(founded, lambda body: bodies.append(body) or body)()
    assert first.status_code == 201
    again = ask(founded, "POST", "/api/v1/models/digits/versions", json=bodies[0])
    assert (again.status_code, again.json()) == (200, first.json())


def test_a_publisher_does_not_sign_what_a_taken_manager_hands_out(founded):
    """A manager that was taken over widens a delegation; the publisher notices before signing."""
    described, _ = trust_of(founded)
    targets = documents.stored_document(Targets, described["targets"].encode())
    mallory = NaClSigner.generate()
    targets.signed.delegations.keys[mallory.public_key.keyid] = mallory.public_key
    targets.signed.delegations.roles["model-digits"] = documents.model_role("digits", [mallory.public_key], 1)
    with pytest.raises(MetadataError, match="targets"):
        pinning.verified(founded.keys, {**described, "targets": documents.write(targets).decode()}, lambda v: b"")


def test_assignments_of_an_unopenable_release_are_refused(founded):
    founded.publish("1.0.0")
    release = founded.write(store.find, "digits", "1.0.0")
    release.escrow_key = signing.seal(b"k" * 32, bytes(signing.PrivateKey.generate().public_key))
    with pytest.raises(EscrowError):
        founded.manager.director.assign(
            device="cam-1", box_key=b"b" * 32, release=release, order=Order("ro-1"), version=1, now=founded.clock.now()
        )


def test_announcement_carries_the_newest_timestamp(founded):
    announcement = founded.write(founded.manager.director.announcement, "signed")
    assert announcement.assignment == "signed"
    timestamp = Metadata.from_bytes(announcement.timestamp.encode())
    newest(founded, "root", Root).signed.verify_delegate("timestamp", timestamp.signed_bytes, timestamp.signatures)
    with pytest.raises(RepositoryError):
        newest(founded, "root", Root).signed.verify_delegate("targets", timestamp.signed_bytes, timestamp.signatures)


def test_only_those_who_may_write_trust_and_releases(founded):
    for role, path, body in (
        ("releaser", "/api/v1/trust", {"root": "", "targets": ""}),
        ("operator", "/api/v1/chunks/missing", {"ids": []}),
        ("viewer", "/api/v1/models/digits/versions", {}),
    ):
        headers = {"Authorization": f"Bearer {role}"}
        assert httpx2.post(founded.url + path, json=body, headers=headers, trust_env=False).status_code == 403
        assert httpx2.post(founded.url + path, json=body, trust_env=False).status_code == 401
