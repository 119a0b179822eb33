"""Keys come and go; devices that trusted the first root follow."""

import json
import shutil
from datetime import timedelta

import pytest

from fleet.releases import documents, pinning, rotation
from fleet.releases.documents import Root
from fleet.releases.online_keys import KeyFileError, OnlineKeys
from fleet.releases.repository import Repository
from fleet.store import releases as store
from tests.fleet.releases.test_publish import device
from tests.simulators import digits


def root_of(workshop):
    return documents.stored(Root, workshop.write(store.document, "root").data)


def test_a_release_key_is_replaced_and_old_releases_stay_good(founded, tmp_path):
    founded.publish("1.0.0")
    device(founded, tmp_path)
    old = founded.keys.signer("release-1").public_key.keyid
    answer = founded.asks("key", "rotate", "release-1")
    assert answer["root_version"] == 2
    assert founded.keys.names() == ["root-1", "root-2", "root-3", "release-2"]
    assert old not in root_of(founded).roles["targets"].keyids
    founded.publish("1.1.0", digits.train(2))
    updater = device(founded, tmp_path)
    assert updater.get_targetinfo("digits/1.0.0/manifest.json")
    assert updater.get_targetinfo("digits/1.1.0/manifest.json")
    (tmp_path / "keys" / "release-2.key").unlink()
    shutil.move(tmp_path / "keys" / "release-1.retired", tmp_path / "keys" / "release-1.key")
    file, data = founded.files(digits.train(3))
    result = founded.flotilla("model", "publish", "digits", "1.2.0", file, "--reference", data)
    assert "needs 1 signatures; this folder holds 0" in result.stderr


def test_a_root_key_is_replaced(founded, tmp_path):
    founded.publish("1.0.0")
    founded.asks("key", "rotate", "root-2")
    founded.asks("key", "rotate", "root-1")
    assert root_of(founded).version == 3
    assert founded.keys.names() == ["root-3", "root-4", "root-5", "release-1"]
    assert device(founded, tmp_path).get_targetinfo("digits/1.0.0/manifest.json")
    assert founded.publish("1.1.0", digits.train(2))["published"]


def test_another_release_key_can_be_made_first(founded):
    made = founded.asks("key", "generate", "release-7")
    shown = {item["name"]: item for item in founded.asks("key", "show")["items"]}
    assert shown["release-7"] == {"name": "release-7", "keyid": made["keyid"], "trusted": False}
    founded.asks("key", "rotate", "release-1", "--to", "release-7")
    shown = {item["name"]: item for item in founded.asks("key", "show")["items"]}
    assert shown["release-7"]["trusted"]
    assert "release-1" not in shown


def test_revoking_needs_enough_keys_left(workshop, tmp_path):
    workshop.asks("init")
    result = workshop.flotilla("key", "revoke", "release-1", "--yes")
    assert result.exit_code == 1
    assert "flotilla key generate" in result.stderr
    assert workshop.flotilla("key", "revoke", "root-3").exit_code == 2  # nobody there to say yes
    workshop.asks("key", "revoke", "root-3", "--yes")
    assert len(root_of(workshop).roles["root"].keyids) == 2
    assert device(workshop, tmp_path)


def test_revoking_an_untrusted_key_says_so(founded):
    founded.asks("key", "generate", "release-2")
    result = founded.flotilla("key", "revoke", "release-2", "--yes")
    assert "not trusted" in result.stderr


def test_a_manager_with_new_online_keys_is_trusted_again(founded, tmp_path):
    founded.publish("1.0.0")
    device(founded, tmp_path)
    shutil.rmtree(tmp_path / "fleet" / "keys")
    escrow = founded.manager.online_keys.escrow
    keys = OnlineKeys.open(tmp_path / "fleet" / "keys")
    founded.manager.online_keys = OnlineKeys(keys.snapshot, keys.timestamp, keys.director, escrow)
    founded.manager.repository = Repository(founded.manager.online_keys)
    file, data = founded.files(digits.train(2))
    refused = founded.flotilla("model", "publish", "digits", "1.1.0", file, "--reference", data)
    assert refused.exit_code == 5
    assert "flotilla key rotate online" in refused.stderr
    assert founded.write(founded.manager.repository.refresh, founded.clock.now() + timedelta(days=1)) is False
    assert founded.asks("key", "rotate", "online")["root_version"] == 2
    founded.publish("1.1.0", digits.train(2))
    assert device(founded, tmp_path).get_targetinfo("digits/1.1.0/manifest.json")


def test_init_renews_what_grows_old(founded):
    described = founded.asks("init")
    assert not described["changed"]
    trust = pinning.verified(founded.keys, trust_document(founded), lambda version: b"")
    online = pinning.online_parts(trust_document(founded))
    now = founded.clock.now()
    assert rotation.due(trust, online, now + timedelta(days=180)) is None
    assert rotation.due(trust, online, now + timedelta(days=190)) is not None


def trust_document(workshop):
    import httpx2

    headers = {"Authorization": "Bearer admin"}
    return httpx2.get(f"{workshop.url}/api/v1/trust", headers=headers, trust_env=False).json()


def test_root_keys_on_different_machines_sign_one_file(founded, tmp_path):
    founded.publish("1.0.0")
    file = tmp_path / "root-2.json"
    founded.asks("key", "generate", "release-2")
    made = founded.asks("key", "root", "create", str(file), "--without", "release-1", "--with", "release-2")
    assert (made["version"], made["signatures"]) == (2, 0)
    keys = tmp_path / "keys"
    for away in ("root-2", "root-3"):
        (keys / f"{away}.key").rename(tmp_path / away)
    assert founded.asks("key", "root", "sign", str(file))["signatures"] == 1
    refused = founded.flotilla("key", "root", "sign", str(file), "--upload")
    assert refused.exit_code == 1
    assert "1/2 keys" in refused.stderr
    (keys / "root-1.key").rename(tmp_path / "root-1")
    (tmp_path / "root-3").rename(keys / "root-3.key")
    assert founded.asks("key", "root", "sign", str(file), "--upload")["uploaded"]
    assert root_of(founded).version == 2
    assert "2 of 3" in founded.flotilla("key", "root", "show").stdout
    assert device(founded, tmp_path).get_targetinfo("digits/1.0.0/manifest.json")


def test_a_manager_that_went_back_is_noticed(founded, tmp_path):
    old = trust_document(founded)
    founded.asks("key", "rotate", "release-1")
    with pytest.raises(documents.MetadataError, match="has seen 2"):
        pinning.verified(founded.keys, old, lambda version: b"")


def test_a_publisher_who_missed_a_rotation_follows_the_chain(founded, tmp_path):
    pinned = (tmp_path / "keys" / "root.json").read_bytes()
    founded.asks("key", "rotate", "root-1")
    founded.asks("key", "rotate", "root-2")
    (tmp_path / "keys" / "root.json").write_bytes(pinned)
    assert founded.publish("1.0.0")["published"]
    assert json.loads((tmp_path / "keys" / "root.json").read_bytes())["signed"]["version"] == 3


def test_online_keys_survive_a_restart_and_are_private(tmp_path):
    first = OnlineKeys.open(tmp_path / "keys")
    again = OnlineKeys.open(tmp_path / "keys")
    assert (first.public(), first.escrow_public()) == (again.public(), again.escrow_public())
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    (tmp_path / "keys" / "director.key").write_bytes(b"short")
    with pytest.raises(KeyFileError):
        OnlineKeys.open(tmp_path / "keys")
