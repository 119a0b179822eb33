"""`flotilla bundle`: releases in a folder, for devices that the network does not reach.

I/O: disk.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Shell, command, group
from fleet.cli.wording import duration, size
from shared import bundle as layout
from shared import chunking
from shared.durable import make_folder, replace_file
from shared.identifiers import sha256
from shared.manifest import Chunk, Manifest


@group
def bundle() -> None:
    """Releases in a folder, for devices that the network does not reach."""


@command(
    bundle,
    "export",
    example="flotilla bundle export digits@1.1.0 --device cam-7 --output usb --yes\n"
    "flotilla bundle export digits@1.1.0 faces@2.0.0 --site hall-3 --expires 14d --output usb --yes",
)
@click.argument("releases", metavar="MODEL@VERSION...", nargs=-1, required=True)
@click.option("--device", "devices", multiple=True, metavar="ID", help="For this device; repeatable.")
@click.option("--site", help="For all active devices of this site.")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="A folder that is new or empty.")  # fmt: skip
@click.option("--expires", default="30d", show_default=True, help="How long it may be installed.")
@click.option("--plan", is_flag=True, help="Only tell what would be assigned.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def export(
    shell: Shell,
    releases: tuple[str, ...],
    devices: tuple[str, ...],
    site: str | None,
    output: Path,
    expires: str,
    plan: bool,
    yes: bool,
) -> None:
    """Assign releases to devices and write all that they need into a folder.

    On each device: flotilla-agent install DIR. Devices that are connected get the last of the releases at once.
    """
    if bool(devices) == (site is not None):
        raise CliError("E_USAGE", "name devices or a site", "", "--device ID, or --site SITE", Exit.USAGE)
    body: dict[str, Any] = {
        "releases": [_named(one) for one in releases],
        "devices": list(devices),
        "expires_seconds": int(duration(expires).total_seconds()),
        **({"site": site} if site is not None else {}),
    }
    planned = shell.api.post("/bundles", json=body, params={"dry_run": "true"})
    what = f"{', '.join(planned['releases'])} for {len(planned['devices'])} devices"
    if plan:
        shell.emit(planned, f"would assign {what}: {', '.join(planned['devices'])}")
        return
    _empty(output)
    shell.confirm(f"assign {what}?", yes=yes)
    made = shell.api.post("/bundles", json=body)
    written = _write(shell, output, made["files"], layout.Bundle.model_validate(made["description"]))
    said = {
        "folder": str(output.absolute()),
        "bytes": written,
        **{key: made[key] for key in ("releases", "devices", "expires")},
    }
    shell.emit(said, f"{said['folder']}  {size(written)}  {what}, until {made['expires']}")
    shell.say(f"On each device:  flotilla-agent install {output.name}")


def _named(text: str) -> dict[str, str]:
    model, at, version = text.partition("@")
    if not at or not model or not version:
        raise CliError("E_USAGE", f"{text!r} is not MODEL@VERSION", "", "such as digits@1.1.0", Exit.USAGE)
    return {"model": model, "version": version}


def _empty(folder: Path) -> None:
    try:
        full = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise _no_file(folder, error) from None
    if full:
        raise CliError("E_FILE", f"{folder} is not empty", "", "a new folder with --output", Exit.USAGE)


def _write(shell: Shell, folder: Path, files: Mapping[str, str], described: layout.Bundle) -> int:
    """Write everything, the description last: a folder without it was not finished. The bytes written."""
    manifests = {
        one.manifest: _fetched(shell, f"//manifests/{one.manifest}", one.manifest) for one in described.releases
    }
    chunks: dict[str, Chunk] = {}
    for digest, data in manifests.items():
        for artifact in Manifest.parse(data, digest).artifacts.values():
            chunks |= {chunk.id: chunk for chunk in artifact.chunks}
    total = 0
    try:
        with shell.progress("export", sum(chunk.size_bytes for chunk in chunks.values())) as advance:
            for name in chunks:
                data = _fetched(shell, f"//chunks/{name}", name)
                total += _put(folder / layout.chunk_path(name), data)
                advance(len(data))
        for digest, data in manifests.items():
            total += _put(folder / layout.manifest_path(digest), data)
        for path in sorted(files, key=lambda path: path == layout.DESCRIPTION):
            total += _put(folder / path, files[path].encode())
    except OSError as error:
        raise _no_file(folder, error) from None
    return total


def _fetched(shell: Shell, path: str, name: str) -> bytes:
    data, _ = shell.api.download(path)
    if sha256(data) != name:
        raise CliError(
            chunking.DamagedChunkError.code, f"{path[2:]} arrived with other content", "", "run the command again"
        )
    return data


def _put(path: Path, data: bytes) -> int:
    make_folder(path.parent, mode=0o755)
    replace_file(path, data, mode=0o644)
    return len(data)


def _no_file(folder: Path, error: OSError) -> CliError:
    return CliError(
        "E_FILE", f"cannot write {folder}", error.strerror or "", "another folder with --output", Exit.USAGE
    )
