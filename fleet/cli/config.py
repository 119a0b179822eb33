"""`flotilla login`, `logout` and `config`: which manager, as whom, and where that was said.

I/O: disk.
"""

import sys
from collections.abc import Mapping
from typing import Any

import click

from fleet.cli import session, users
from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Column, Shell, command, group
from fleet.cli.wording import duration

_STDIN = "-"


@command(
    name="login",
    example="flotilla login http://127.0.0.1:8420 --user ann\n"
    "flotilla login https://fleet.example --token - < token-file",
)
@click.argument("address", metavar="URL")
@click.option("--user", metavar="NAME", help="Sign in with name and password instead of a token.")
@users.password_option
@click.option("--expires", help="With --user: how long you stay signed in, such as 8h.  [default: 12h]")
def login(shell: Shell, address: str, user: str | None, password_file: str | None, expires: str | None) -> None:
    """Sign in: remember a manager's address and a token for later commands.

    With `--user` you are asked for the password, and get a token that ends by itself. Without, give a token: the
    manager wrote the first one to `admin-token` in its data folder; `--token -` reads it from stdin. Address and token
    are kept in ~/.config/flotilla/cli.yaml, readable by you alone, after the manager has accepted them.
    """
    url = address.rstrip("/")
    if user is not None:
        _with_password(shell, url, user, password_file, expires)
        return
    if password_file is not None or expires is not None:
        raise CliError(
            "E_USAGE",
            "whose password?",
            "--password-file and --expires belong to --user NAME",
            "--user NAME",
            Exit.USAGE,
        )
    found = session.Session(url, _token(shell), {"url": "argument"})
    who = shell.connect(found).get("/me")
    path = session.store(found.url, found.token or "")
    _signed_in(shell, {"url": found.url, "name": who.get("name", "?"), "role": who.get("role", "?"), "file": str(path)})


def _with_password(shell: Shell, url: str, name: str, password_file: str | None, expires: str | None) -> None:
    if shell.flags.token is not None:
        raise CliError("E_USAGE", "give --user or --token, not both", "", "flotilla login --help", Exit.USAGE)
    seconds = int(duration(expires).total_seconds()) if expires is not None else None
    password = (
        users.first_line(password_file) if password_file is not None else users.asked(shell, f"Password of {name}")
    )
    made = users.signed_in(shell, url, name, password, seconds)
    document = {"url": url, "name": made["name"], "role": made["role"], "file": users.keep(shell, made)}
    _signed_in(shell, {**document, "expires_at": made["expires_at"]})


def _signed_in(shell: Shell, document: dict[str, Any]) -> None:
    ends = f", until {document['expires_at']}" if document.get("expires_at") else ""
    shell.emit(document, f"Signed in to {document['url']} as {document['name']} ({document['role']}){ends}.")
    shell.say("Next: flotilla status")


def _token(shell: Shell) -> str:
    token = shell.flags.token
    if token == _STDIN:
        token = sys.stdin.readline().strip()
    elif token is None and sys.stdin.isatty() and not shell.as_json:
        token = str(click.prompt("Token", hide_input=True, err=True)).strip()
    if not token:
        raise CliError(
            "E_NO_TOKEN", "no token was given", "", "flotilla login URL --user NAME, or --token TOKEN", Exit.USAGE
        )
    return token


@command(name="logout", example="flotilla logout")
def logout(shell: Shell) -> None:
    """Forget the address and the token that `login` kept.

    A token from name and password ends with it, where the manager can be reached; another one stays valid: see
    `flotilla token revoke`.
    """
    path, stored = session.file_path(), session.read_file(session.file_path())
    ended = _ended(shell, stored)
    present = session.forget()
    document = {"file": str(path), "removed": present, "token_ended": ended}
    shell.emit(document, f"Removed {path}." if present else "Nothing was stored.")


def _ended(shell: Shell, stored: Mapping[str, str]) -> bool:
    """Whether the manager ended the stored token."""
    if "url" not in stored or "token" not in stored:
        return False
    try:
        found = session.Session(stored["url"], stored["token"], {"url": "file"})
        return bool(shell.connect(found).post("/sign-out").get("ended"))
    except CliError as error:
        if error.exit != Exit.NOT_ALLOWED:  # that one is over already
            shell.say(f"The manager was not told ({error.what}); a token from name and password ends by itself.")
        return False


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
