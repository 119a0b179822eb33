"""`flotilla model`: publish versions of models, look at them, verify them.

I/O: disk, clock.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from fleet.cli import withdrawals
from fleet.cli.errors import CliError, Exit
from fleet.cli.keys import keys_option, keystore
from fleet.cli.shell import Column, Row, Shell, command, group
from fleet.rest.release_door import ReleaseDoor


@group
def model() -> None:
    """Publish and look at versions of models."""


@command(
    model,
    "publish",
    example="flotilla model publish digits 1.0.0 model.onnx --reference data.npz\n"
    'flotilla model publish digits 1.1.0 model.onnx --reference data.npz --notes "more nights" --hardware "orin-*"',
)
@click.argument("name")
@click.argument("version")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--reference", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="DATA.npz",
              help="One array of typical rows per model input (or `x`); `y` holds true classes.")  # fmt: skip
@click.option("--embedding", metavar="OUTPUT",
              help="Output [rows, values] whose drift is watched too, such as the layer before the last.")  # fmt: skip
@click.option("--notes", default="", help="What changed.")
@click.option("--hardware", multiple=True, default=("*",), metavar="PATTERN",
              help="Hardware classes it may run on, such as `orin-*`; repeatable.")  # fmt: skip
@click.option("--provider", "providers", multiple=True, default=("CPUExecutionProvider",), show_default=True,
              help="ONNX Runtime execution providers that are acceptable, best first; repeatable.")  # fmt: skip
@click.option("--fp16", is_flag=True,
              help="TensorRT may compute in 16 bits, CUDA in TF32: faster, and a little off.")  # fmt: skip
@click.option("--minimum-counter", type=click.IntRange(0),
              help="Devices may go back from it as far as this counter. Default: the release before.")  # fmt: skip
@click.option("--threshold", type=click.IntRange(1, 8),
              help="For a new model: release keys that must sign each version.")  # fmt: skip
@click.option("--from", "bases", multiple=True, type=click.Path(path_type=Path, dir_okay=False), metavar="OLD.onnx",
              help="A model file that devices hold: they need only the difference; repeatable. "
              "What was published from this machine is known.")  # fmt: skip
@click.option("--snap", is_flag=True,
              help="Round the change since the last release to a grid, as far as its answers allow: "
              "4 times less to send.")  # fmt: skip
@click.option("--no-deltas", is_flag=True, help="Devices fetch the full file, whatever they hold.")
@keys_option
def publish(
    shell: Shell,
    name: str,
    version: str,
    file: Path,
    reference: Path,
    folder: Path | None,
    threshold: int | None,
    embedding: str | None,
    bases: tuple[Path, ...],
    snap: bool,
    no_deltas: bool,
    **said: Any,
) -> None:
    """Check, measure, encrypt, sign and upload an ONNX file as VERSION of the model NAME.

    The file is run over the reference data, which gives the answers that devices check themselves against, and the
    baseline that live data is compared with. Weights in other files of its folder (external data) become part of it.
    The same file again changes nothing.
    """
    from fleet.releases import publish as steps
    from fleet.releases.delta.cellar import Cellar
    from fleet.releases.errors import VersionExistsError
    from fleet.releases.packing import Label
    from fleet.releases.reading import refuse_other_formats
    from fleet.releases.wording import next_version

    onnx = _model(file)
    refuse_other_formats(file.name, onnx)
    keys = keystore(folder)
    cellar = Cellar(keys.folder)
    known = (*map(_model, bases), *cellar.files(name)) if snap or not no_deltas else ()
    source = steps.Source(
        file.name, onnx, _read(reference), embedding=embedding, snap=snap, deltas=not no_deltas, bases=known
    )
    try:
        found, new, sent = steps.publish(
            source,
            Label(name, version, **said),
            door=ReleaseDoor(shell.api.send),
            keystore=keys,
            teller=shell,
            now=datetime.now(UTC),
            threshold=threshold,
        )
    except VersionExistsError as error:
        remedy = f"flotilla model publish {name} {next_version(version)} {file} --reference {reference}"
        why = "versions never change, so that a device can trust a number"
        raise CliError(error.code, error.detail, why, remedy, Exit.CONFLICT) from None
    if new:
        cellar.put(name, found["counter"], sent)
    released = f"{found['model']}@{found['version']}"
    said_new = "published" if new else "was published before with this very file; nothing changed"
    shell.emit({**found, "published": new}, f"{released}  sha256:{found['manifest_digest'][:8]}  {said_new}")
    if new:
        shell.say(f"Next: flotilla rollout start {released} --target all")


def _model(path: Path) -> bytes:
    """A model file with all its weights."""
    from fleet.releases.weights import gathered

    return gathered(_read(path), path.parent)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CliError("E_FILE", f"cannot read {path}", error.strerror or "", "check the path", Exit.USAGE) from None


@command(model, "diff", example="flotilla model diff old.onnx new.onnx")
@click.argument("old", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False))
def diff(shell: Shell, old: Path, new: Path) -> None:
    """Tell what an update from the file OLD to the file NEW takes, by method and tensor. Nothing is published."""
    made, size = _encoded(shell, old, new)
    rows = [
        {"tensor": row.name, "method": row.method, "plain_bytes": row.plain_bytes, "delta_bytes": row.coded_bytes}
        for row in sorted(made.rows, key=lambda row: -row.coded_bytes)
    ]
    columns: list[Column] = [
        ("TENSOR", "tensor"),
        ("METHOD", "method"),
        ("BYTES", "plain_bytes"),
        ("DELTA", "delta_bytes"),
    ]
    document = {"size_bytes": size, "delta_bytes": len(made.data), "ratio": len(made.data) / size, "tensors": rows}
    shell.table(rows, columns, document=document, empty="Two empty files.")
    shell.say(_compared(made.data, size))


@command(model, "delta", example="flotilla model delta old.onnx new.onnx --output update.delta")
@click.argument("old", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Where to write it.")
def delta(shell: Shell, old: Path, new: Path, output: Path) -> None:
    """Write the delta from the file OLD to the file NEW, proved by the reader that devices have.

    `flotilla model publish` makes and seals deltas by itself; this shows one.
    """
    from fleet.releases.delta import offering
    from shared.durable import replace_file

    made, size = _encoded(shell, old, new)
    offering.prove(made.data, _model(old), _model(new))
    replace_file(output, made.data)
    shell.emit({"size_bytes": size, "delta_bytes": len(made.data), "output": str(output)}, _compared(made.data, size))


def _encoded(shell: Shell, old: Path, new: Path) -> tuple[Any, int]:
    from fleet.releases.delta import encoding

    before, after = _model(old), _model(new)
    try:
        with shell.progress("comparing", len(after)) as done:
            return encoding.encode(before, after, done), max(1, len(after))
    except encoding.TooDifferentError as error:
        why = "no device could rebuild the file in bounded memory"
        remedy = "publish it as it is: devices fetch the full file"
        raise CliError("E_DELTA", str(error), why, remedy, Exit.USAGE) from None


def _compared(data: bytes, size: int) -> str:
    from fleet.releases.wording import readable

    return f"delta {readable(len(data))} of {readable(size)} ({len(data) / size:.1%})"


@command(model, "list", example="flotilla model list --json")
def list_(shell: Shell) -> None:
    """Show all models with their newest version."""
    rows = shell.api.pages("/models")
    columns: list[Column] = [("MODEL", "name"), ("LATEST", "latest"), ("VERSIONS", "versions"), ("SIZE", _size),
               ("ACCURACY", _accuracy), ("PUBLISHED", "published_at")]  # fmt: skip
    shell.table(rows, columns, document={"items": rows}, empty="No models. Next: flotilla model publish --help")


@command(model, "show", example="flotilla model show digits\nflotilla model show digits@1.1.0 --json")
@click.argument("name", metavar="NAME[@VERSION]")
@click.argument("version", required=False)
def show(shell: Shell, name: str, version: str | None) -> None:
    """Show the versions of a model, or all that is known of one version."""
    name, _, after = name.partition("@")
    version = version or after or None
    base = f"/models/{quote(name, safe='')}/versions"
    if version is None:
        rows = shell.api.pages(base)
        columns: list[Column] = [("VERSION", "version"), ("STATE", withdrawals.state), ("COUNTER", "counter"),
                   ("SIZE", _size), ("ACCURACY", _accuracy),
                   ("BY", "published_by"), ("PUBLISHED", "published_at"), ("NOTES", "notes")]  # fmt: skip
        shell.table(rows, columns, document={"items": rows})
        return
    found = shell.api.get(f"{base}/{quote(version, safe='')}")
    shell.emit(found, lambda: _portrait(found))


@command(
    model,
    "alias",
    example="flotilla model alias digits\n"
    "flotilla model alias digits stable 1.2.0\nflotilla model alias digits stable --undo",
)
@click.argument("name")
@click.argument("alias", required=False)
@click.argument("version", required=False)
@click.option("--undo", is_flag=True, help="Back to what it stood for before its last move.")
@click.option("--remove", is_flag=True, help="Nobody follows it any more; devices keep what they have.")
def alias(shell: Shell, name: str, alias: str | None, version: str | None, undo: bool, remove: bool) -> None:
    """Let ALIAS, such as `stable`, stand for VERSION; without more, show the aliases of the model NAME.

    Devices whose label `channel` names it follow (without the label: `stable`), where `scheduling.enable_auto_updates`
    is on: they fetch at once and swap inside their maintenance window.
    """
    base = f"/models/{quote(name, safe='')}/aliases"
    if alias is None:
        rows = shell.api.get(base)["items"]
        columns: list[Column] = [("ALIAS", "alias"), ("VERSION", "version"), ("MOVED", "moved_at"), ("BY", "moved_by"),
                   ("BEFORE", _before)]  # fmt: skip
        nothing = f"No aliases. Next: flotilla model alias {name} stable VERSION"
        shell.table(rows, columns, document={"items": rows}, empty=nothing)
        return
    if sum((version is not None, undo, remove)) != 1:
        raise CliError("E_USAGE", "what shall become of it?", "give a VERSION, --undo or --remove",
                       f"flotilla model alias {name} {alias} VERSION", Exit.USAGE)  # fmt: skip
    path = f"{base}/{quote(alias, safe='')}"
    if remove:
        shell.emit(shell.api.delete(path), f"{name} has no alias {alias} any more.")
        return
    found = shell.api.post(f"{path}/undo") if undo else shell.api.put(path, json={"version": version})
    was = f", it was {found['before']}" if found["before"] not in (None, found["version"]) else ""
    shell.emit(found, f"{name}@{alias} is {found['version']}{was}")
    if found["schedule"]:
        shell.say(f"Devices that follow it: flotilla schedule show {found['schedule']}")


@command(
    model,
    "withdraw",
    example='flotilla model withdraw digits@1.2.0 --reason "sees sevens everywhere" --plan\n'
    'flotilla model withdraw digits@1.2.0 --reason "sees sevens everywhere" --rollback --yes\n'
    'flotilla model withdraw digits@1.2.0 --undo --reason "it was the lamp"',
)
@click.argument("name", metavar="NAME[@VERSION]")
@click.argument("version", required=False)
@click.option("--reason", required=True, help="Why; everybody who looks at the version reads it.")
@click.option("--rollback", is_flag=True, help="Devices that serve it go back, by the rollouts that brought it there.")
@click.option("--undo", is_flag=True, help="Give it out again; what was stopped stays stopped.")
@click.option("--plan", is_flag=True, help="Only tell what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def withdraw(
    shell: Shell, name: str, version: str | None, reason: str, rollback: bool, undo: bool, plan: bool, yes: bool
) -> None:
    """Give a version to no device any more: by no rollout, schedule, alias or bundle.

    Rollouts of it stop, and devices on their way are called back. Devices that serve it keep it and are listed; with
    `--rollback` they go back. Chunks stay until `flotilla model prune`.
    """
    base = _version_path(name, version)
    if undo:
        found = shell.api.post(f"{base}/restore", json={"reason": reason})
        shell.emit(found, f"{found['model']}@{found['version']} may be given out again.")
        return
    body = {"reason": reason, "rollback": rollback}
    found = shell.api.post(f"{base}/withdraw", json=body, params={"dry_run": True})
    if not plan:
        shell.confirm(withdrawals.question(found), yes=yes)
        found = shell.api.post(f"{base}/withdraw", json=body)
    shell.emit(found, lambda: "\n".join(withdrawals.lines(found)))


def _version_path(name: str, version: str | None) -> str:
    name, _, after = name.partition("@")
    chosen = version or after
    if not chosen:
        raise CliError("E_USAGE", "which version?", "", f"{name}@VERSION; flotilla model show {name}", Exit.USAGE)
    return f"/models/{quote(name, safe='')}/versions/{quote(chosen, safe='')}"


@command(model, "prune", example="flotilla model prune --dry-run\nflotilla model prune --yes")
@click.option("--dry-run", is_flag=True, help="Only tell which would go, and why the others stay.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def prune(shell: Shell, dry_run: bool, yes: bool) -> None:
    """Retire versions older than `versioning.version_retention_days` that nothing needs: delete their chunks.

    What a slot, an alias, a rollout, a schedule or a pinned baseline needs stays, and the newest of each model.
    """
    found = shell.api.post("/models/cleanup", params={"dry_run": True})
    gone = [one for one in found["items"] if one["goes"]]
    if not dry_run and gone:
        names = ", ".join(f"{one['model']}@{one['version']}" for one in gone)
        shell.confirm(f"{names} will be retired. Continue?", yes=yes)
        found = shell.api.post("/models/cleanup")
    rows = found["items"]
    columns: list[Column] = [("RELEASE", lambda row: f"{row['model']}@{row['version']}"),
               ("", lambda row: "goes" if row["goes"] else "stays"), ("WHY", "why")]  # fmt: skip
    shell.table(rows, columns, document=found, empty="No versions.")


@command(model, "verify", example="flotilla model verify digits 1.1.0\nflotilla model verify digits 1.1.0 model.onnx")
@click.argument("name")
@click.argument("version")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@keys_option
def verify(shell: Shell, name: str, version: str, file: Path | None, folder: Path | None) -> None:
    """Verify a published version as a device would: root, targets, model role, manifest; and FILE against it."""
    from fleet.releases import pinning
    from fleet.releases.inspection import vouched

    door = ReleaseDoor(shell.api.send)
    trust = pinning.verified(keystore(folder), door.trust(), door.root)
    found = door.version(name, version)
    if found is None:
        raise CliError("E_NOT_FOUND", f"{name}@{version} was not published here", "", f"flotilla model show {name}",
                       Exit.NOT_FOUND)  # fmt: skip
    document = vouched(trust, found, _model(file) if file else None)
    shell.emit(document, f"✔ {name}@{version} is signed by {document['signatures']} of {document['keys']} release keys"
               + (f", and {file} is the file in it" if file else ""))  # fmt: skip


def _before(row: Row) -> str:
    return str(row["moves"][0]["from"] or "") if row["moves"] else ""


def _size(row: Row) -> str:
    from fleet.releases.wording import readable

    return readable(row["size_bytes"])


def _accuracy(row: Row) -> str:
    found = row["metrics"].get("accuracy")
    return f"{found:.1%}" if found is not None else ""


def _in_the_field(found: Row) -> list[str]:
    """How it does on the devices now, where it serves."""
    from fleet.cli import performance

    return [f"  {line}" for line in performance.lines(found.get("performance", ()), datetime.now(UTC))]


def _watched(found: Row) -> int:
    """Features that devices count."""
    return sum(feature["group"] != "right" for feature in found["baseline"]["features"])


def _portrait(found: Row) -> str:
    from fleet.releases.wording import readable, tensors
    from shared.manifest import Manifest

    manifest = Manifest.model_validate(found["manifest"])
    runtime = manifest.runtime
    lines = [
        f"{found['model']}@{found['version']}  {withdrawals.state(found)}  release counter {found['counter']}",
        *withdrawals.portrait(found),
        f"  published  {found['published_at']} by {found['published_by']}",
        f"  size       {_size(found)}; {readable(found['sealed_bytes'])} sealed with all that belongs to it",
        f"  inputs     {tensors(manifest.inputs)}",
        f"  outputs    {tensors(manifest.outputs)}",
        f"  runs on    {', '.join(runtime.hardware)} with {', '.join(runtime.providers)}",
        f"  accuracy   {_accuracy(found) or 'not measured'}, {found['latency_ms']:.2f} ms a row where it was published",
        *_in_the_field(found),
        f"  baseline   {found['baseline']['samples']} rows, {_watched(found)} features",
        f"  manifest   sha256:{found['manifest_digest']}",
        f"  model      sha256:{found['model_digest']}",
    ]
    lines += [f"  bad on     {it['hardware']} ({it['rollout']}: {it['detail']})" for it in found.get("bad_on", ())]
    return "\n".join(lines + ([f"  notes      {found['notes']}"] if found["notes"] else []))
