"""`flotilla init` and `flotilla key`: signing keys, which stay with the people who sign.

I/O: disk, clock.
"""

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group
from fleet.rest.release_door import ReleaseDoor

F = TypeVar("F", bound=Callable[..., Any])


def keys_option(function: F) -> F:
    """`--keys DIR`, for every command that signs."""
    return click.option(
        "--keys", "folder", envvar="FLOTILLA_KEYS", type=click.Path(path_type=Path), metavar="DIR",
        help="Folder of signing keys (or FLOTILLA_KEYS)  [default: ~/.config/flotilla/keys]",
    )(function)  # fmt: skip


def keystore(folder: Path | None) -> Any:
    """The keystore in `folder`, or in its default place."""
    from fleet.releases.keystore import Keystore, default_folder

    return Keystore(folder or default_folder(), passphrase=os.environ.get("FLOTILLA_KEYS_PASSPHRASE"))


@command(None, "init", example="flotilla init\nflotilla init --threshold 2 --keys /media/stick/keys")
@keys_option
@click.option("--threshold", default=1, show_default=True, type=click.IntRange(1, 8),
              help="Release keys that must agree on every release; 2 for production.")  # fmt: skip
def init(shell: Shell, folder: Path | None, threshold: int) -> None:
    """Make signing keys and give the manager its root of trust.

    Makes three root keys (two decide) and the release keys in the key folder, asks the manager for its online public
    keys, and signs who may do what. Repeat it at any time: it only does what is missing, and renews what grows old.
    """
    from fleet.releases import founding
    from fleet.releases.keystore import KeystoreError

    keys = keystore(folder)
    try:
        done = founding.set_up(keys, ReleaseDoor(shell.api.send), threshold=threshold, now=datetime.now(UTC))
    except KeystoreError as error:
        raise _other_keys(keys, error) from None
    document = founding.summary(keys, done.described)
    if not done.new:
        words = "renewed" if done.why else "this manager was set up before; nothing to do"
        if done.why is not None:
            shell.say(f"! {done.why}: signed anew")
        shell.emit({**document, "changed": done.why is not None}, f"✔ {words}: root {document['root_version']}")
        return
    shell.say(f"✔ keys in {keys.folder}: {', '.join(keys.names())}")
    shell.emit({**document, "changed": True}, f"✔ {shell.session.url} trusts these keys: root 1")
    shell.say("Keep two of the three root keys on sticks in different drawers; releases do not need them.")
    shell.say("Next: flotilla model publish NAME VERSION model.onnx --reference data.npz")


def _verified(keys: Any, described: Mapping[str, Any], door: ReleaseDoor) -> Any:
    from fleet.releases import pinning
    from fleet.releases.keystore import KeystoreError

    try:
        return pinning.verified(keys, described, door.root)
    except KeystoreError as error:
        raise _other_keys(keys, error) from None


def _other_keys(keys: Any, error: Any) -> CliError:
    return CliError(error.code, error.detail, f"the folder is {keys.folder}", error.remedy, Exit.CONFLICT)


@group
def key() -> None:
    """Signing keys. They stay with you; the manager never sees them."""


@command(key, "generate", example="flotilla key generate release-2")
@click.argument("name", required=False)
@keys_option
def generate(shell: Shell, name: str | None, folder: Path | None) -> None:
    """Make one more key (root-N or release-N; default the next release key). Nothing trusts it yet."""
    keys = keystore(folder)
    chosen = name or keys.next_name("release")
    made = keys.generate(chosen).public_key
    shell.emit({"name": chosen, "keyid": made.keyid}, f"{chosen}  {made.keyid}")
    shell.say(f"Next: flotilla key rotate OLD --to {chosen}")


@command(key, "show", example="flotilla key show")
@keys_option
def show(shell: Shell, folder: Path | None) -> None:
    """Show the keys in the folder, and which of them the pinned root trusts."""
    from tuf.api._payload import Root

    from fleet.releases import documents

    keys = keystore(folder)
    pinned = keys.pinned_root()
    trusted: dict[str, list[str]] = {"root": [], "targets": []}
    if pinned is not None:
        root = documents.stored(Root, pinned)
        trusted = {role: list(root.roles[role].keyids) for role in trusted}
    rows = []
    for name in keys.names():
        keyid = keys.signer(name).public_key.keyid
        role = "root" if name.startswith("root-") else "targets"
        rows.append({"name": name, "keyid": keyid, "trusted": keyid in trusted[role]})
    columns = [("KEY", "name"), ("ID", "keyid"), ("TRUSTED", "trusted")]
    shell.table(rows, columns, document={"keys": str(keys.folder), "items": rows},
                empty=f"No keys in {keys.folder}. Next: flotilla init")  # fmt: skip


@command(key, "rotate", example="flotilla key rotate release-1\nflotilla key rotate online")
@click.argument("name", metavar="KEY|online")
@click.option("--to", "new", metavar="NEW", help="A key made with `key generate`; default: a new one.")
@keys_option
def rotate(shell: Shell, name: str, new: str | None, folder: Path | None) -> None:
    """Replace a key: sign a new root, and with it everything that the old key had signed.

    `online` takes over the manager's present online keys, after its key folder was lost or replaced.
    """
    keys = keystore(folder)
    if name == "online":
        _change(shell, keys, what="the manager's online keys", without=None, with_new=None)
        return
    keys.signer(name)
    chosen = new or keys.next_name(name.partition("-")[0])
    if chosen not in keys.names():
        keys.generate(chosen)
    _change(shell, keys, what=f"{name} replaced by {chosen}", without=name, with_new=chosen)
    keys.retire(name)


@command(key, "revoke", example="flotilla key revoke release-2 --yes")
@click.argument("name", metavar="KEY")
@click.option("--yes", is_flag=True, help="Do not ask.")
@keys_option
def revoke(shell: Shell, name: str, yes: bool, folder: Path | None) -> None:
    """Trust a key no longer, without a successor. Enough others must be left."""
    keys = keystore(folder)
    keys.signer(name)
    shell.confirm(f"Devices will refuse everything that only {name} signed. Revoke it?", yes=yes)
    _change(shell, keys, what=f"{name} revoked", without=name, with_new=None)
    keys.retire(name)


def _change(shell: Shell, keys: Any, *, what: str, without: str | None, with_new: str | None) -> None:
    from fleet.releases import founding, pinning, rotation

    door = ReleaseDoor(shell.api.send)
    described = door.trust()
    trust = _verified(keys, described, door)
    online = pinning.online_parts(described)
    body = rotation.changed(keys, trust, online, now=datetime.now(UTC), without=without, with_new=with_new)
    document = founding.summary(keys, founding.give(keys, door, body))
    shell.emit({**document, "changed": True}, f"✔ {what}: root {document['root_version']}")


@group
def root() -> None:
    """The root of trust as a file, for keys that live on different machines."""


key.add_command(root)


@command(root, "create", example="flotilla key root create root-2.json --without release-1 --with release-2")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--without", metavar="KEY", help="A key of this folder to leave out.")
@click.option("--with", "with_new", metavar="KEY", help="A key of this folder to take in.")
@keys_option
def create(shell: Shell, file: Path, without: str | None, with_new: str | None, folder: Path | None) -> None:
    """Write the next root, unsigned, with everything that goes with it, for others to sign.

    The online keys and thresholds stay as the pinned root has them.
    """
    from fleet.releases import root_file

    keys = keystore(folder)
    document = root_file.create(keys, file, without=without, with_new=with_new, now=datetime.now(UTC))
    shell.emit(document, f"{file}: root {document['version']}, {document['signatures']} signatures")
    shell.say(f"Next, on each machine with a root key: flotilla key root sign {file}")


@command(root, "sign", example="flotilla key root sign root-2.json\nflotilla key root sign root-2.json --upload")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--upload", is_flag=True, help="Give it to the manager; needs the release keys in this folder.")
@keys_option
def sign(shell: Shell, file: Path, upload: bool, folder: Path | None) -> None:
    """Add the signatures of this folder's root keys to a root file."""
    from fleet.releases import founding, pinning, root_file

    keys = keystore(folder)
    document = root_file.sign(keys, file)
    if upload:
        door = ReleaseDoor(shell.api.send)
        described = door.trust()
        trust = _verified(keys, described, door)
        body = root_file.body(keys, file, trust, pinning.online_parts(described), now=datetime.now(UTC))
        founding.give(keys, door, body)
        document["uploaded"] = True
    shell.emit(document, f"{file}: root {document['version']}, {document['signatures']} signatures"
               f"{', uploaded' if upload else ''}")  # fmt: skip


@command(root, "show", example="flotilla key root show\nflotilla key root show root-2.json --json")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@keys_option
def root_show(shell: Shell, file: Path | None, folder: Path | None) -> None:
    """Show a root file, or the root that this folder has pinned: version, expiry, keys, signatures."""
    from fleet.releases import root_file

    document = root_file.describe(keystore(folder), file)
    shell.emit(document, lambda: root_file.text(document))
