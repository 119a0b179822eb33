"""`flotilla login`, `logout` and `config`: which manager, as whom, and where that was said.

I/O: disk.
"""

import sys

import click

from fleet.cli import session
from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Column, Shell, command, group

_STDIN = "-"


@command(
    name="login",
    example="flotilla login http://127.0.0.1:8420 --token TOKEN\n"
    "flotilla login https://fleet.example --token - < token-file",
)
@click.argument("address", metavar="URL")
def login(shell: Shell, address: str) -> None:
    """Remember a manager's address and your token for later commands.

    The manager wrote the first token to `admin-token` in its data folder. `--token -` reads it from stdin. Both are
    kept in ~/.config/flotilla/cli.yaml, readable by you alone, after the manager has accepted them.
    """
    found = session.Session(address.rstrip("/"), _token(shell), {"url": "argument"})
    who = shell.connect(found).get("/me")
    path = session.store(found.url, found.token or "")
    name, role = who.get("name", "?"), who.get("role", "?")
    document = {"url": found.url, "name": name, "role": role, "file": str(path)}
    shell.emit(document, f"Signed in to {found.url} as {name} ({role}).")
    shell.say("Next: flotilla status")


def _token(shell: Shell) -> str:
    token = shell.flags.token
    if token == _STDIN:
        token = sys.stdin.readline().strip()
    elif token is None and sys.stdin.isatty() and not shell.as_json:
        token = str(click.prompt("Token", hide_input=True, err=True)).strip()
    if not token:
        raise CliError("E_NO_TOKEN", "no token was given", "", "flotilla login URL --token TOKEN", Exit.USAGE)
    return token


@command(name="logout", example="flotilla logout")
def logout(shell: Shell) -> None:
    """Forget the address and the token that `login` kept. The token itself stays valid: see `flotilla token revoke`."""
    path, present = session.file_path(), session.forget()
    shell.emit({"file": str(path), "removed": present}, f"Removed {path}." if present else "Nothing was stored.")


@group
def config() -> None:
    """Settings of this command line: flag, then environment, then file, then default."""


@command(config, "show", example="flotilla config show --origin")
@click.option("--origin", is_flag=True, help="Tell where each value comes from.")
def show(shell: Shell, origin: bool) -> None:
    """Show the address and whether there is a token (never the token itself)."""
    found = shell.session
    values = {"url": found.url, "token": "set" if found.token else "none"}
    rows = [{"key": key, "value": value, "origin": found.origins.get(key, "none")} for key, value in values.items()]
    columns: list[Column] = [("KEY", "key"), ("VALUE", "value"), *([("ORIGIN", "origin")] if origin else [])]
    document = {
        row["key"]: {"value": row["value"], "origin": row["origin"]} if origin else row["value"] for row in rows
    }
    shell.table(rows, columns, document=document)


@command(config, "path", example="flotilla config path")
def path_(shell: Shell) -> None:
    """Show where `login` keeps address and token."""
    path = session.file_path()
    shell.emit({"path": str(path), "exists": path.exists()}, str(path))
