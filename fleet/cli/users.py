"""`flotilla user`: people who sign in with name and password.

I/O: disk, clock.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from fleet.cli.errors import CliError, Exit
from fleet.cli.shell import Column, Shell, command, group
from fleet.cli.tokens import ROLES
from fleet.cli.wording import ago, duration

_STDIN = "-"
password_option = click.option(
    "--password-file",
    metavar="FILE",
    help="Read the password from the first line of FILE; `-`: from stdin. Without it you are asked.",
)


@group
def user() -> None:
    """People who sign in with name and password."""


@command(
    user,
    "create",
    example="flotilla user create ann --role operator\n"
    "flotilla user create bo --role approver --expires 30d --password-file bo.txt",
)
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True, help="What they may do.")
@click.option("--expires", help="How long they may sign in, such as 90d. Default: until you revoke them.")
@password_option
def create(shell: Shell, name: str, role: str, expires: str | None, password_file: str | None) -> None:
    """Let a person in. They may change the password with `flotilla user passwd`.

    At least 12 characters; the manager keeps only an argon2id hash.
    """
    body: dict[str, Any] = {"name": name, "role": role}
    if expires is not None:
        body["expires_seconds"] = int(duration(expires).total_seconds())
    body["password"] = new_password(shell, name, password_file)
    made = shell.api.post("/users", json=body)
    shell.emit(made, f"{made['name']} may sign in as {made['role']}.")
    shell.say(f"Next, at their machine: flotilla login {shell.session.url} --user {made['name']}")


@command(user, "list", example="flotilla user list")
def list_(shell: Shell) -> None:
    """Show the people: what they may do, until when."""
    now = datetime.now(UTC)
    rows = shell.api.pages("/users")
    columns: list[Column] = [
        ("NAME", "name"),
        ("ROLE", "role"),
        ("STATE", "state"),
        ("CREATED", lambda row: ago(row.get("created_at"), now)),
        ("EXPIRES", lambda row: str(row.get("expires_at") or "never")),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="No users. Next: flotilla user create NAME --role ROLE")


@command(user, "show", example="flotilla user show ann")
@click.argument("name")
def show(shell: Shell, name: str) -> None:
    """Show a person, where they are signed in, and the tokens that they made."""
    found = shell.api.get(_path(name))
    shell.emit(found, lambda: _portrait(found, datetime.now(UTC)))


@command(user, "set", example="flotilla user set ann --role approver\nflotilla user set bo --expires 7d")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), help="Another role: they sign in again, and their tokens end.")
@click.option("--expires", help="They may sign in for so long from now on, such as 30d.")
def set_(shell: Shell, name: str, role: str | None, expires: str | None) -> None:
    """Give a person another role or another end."""
    if role is None and expires is None:
        raise CliError(
            "E_USAGE", "nothing to change", "give --role or --expires", "flotilla user set --help", Exit.USAGE
        )
    body = {"role": role} if role is not None else {}
    said = body | ({"expires_seconds": int(duration(expires).total_seconds())} if expires is not None else {})
    found = shell.api.patch(_path(name), json=said)
    ends = f", until {found['expires_at']}" if found["expires_at"] else ""
    shell.emit(found, f"{found['name']} is {found['role']}{ends}.")


@command(user, "passwd", example="flotilla user passwd\nflotilla user passwd ann")
@click.argument("name", required=False)
@password_option
def passwd(shell: Shell, name: str | None, password_file: str | None) -> None:
    """Change your password; as an admin, that of NAME.

    Every sign-in ends, and yours begins anew here. With `--password-file` the first line is the new password and, for
    your own, the second one the password until now.
    """
    me = shell.api.get("/me")
    if name is None or name == me.get("person") == me["name"]:
        _own(shell, me, password_file)
        return
    found = shell.api.patch(_path(name), json={"password": new_password(shell, name, password_file)})
    shell.emit(found, f"{name} has a new password and is signed out everywhere.")


def _own(shell: Shell, me: Any, password_file: str | None) -> None:
    if me.get("person") != me["name"]:
        raise CliError(
            "E_USAGE",
            f"the token {me['name']!r} has no password",
            "only somebody who signed in with name and password has one of their own",
            "flotilla user passwd NAME, or first: flotilla login URL --user NAME",
            Exit.USAGE,
        )
    lines = _lines(password_file, 2) if password_file is not None else None
    current = lines[1] if lines is not None else asked(shell, f"Password of {me['name']} until now")
    new = lines[0] if lines is not None else new_password(shell, me["name"], None)
    answer = shell.api.request("PATCH", "/me", json={"current_password": current, "password": new})
    again = signed_in(shell, shell.session.url, me["name"], new, None)
    keep(shell, again)
    shell.emit(answer, "Your password is changed; you are signed out everywhere else.")


@command(user, "revoke", example="flotilla user revoke ann --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke(shell: Shell, name: str, yes: bool) -> None:
    """Shut a person out at once, with every token that they made. The name is never given again."""
    ends = shell.api.request("DELETE", _path(name), params={"dry_run": True})
    tokens = ", ".join(f"{one['name']} ({one['id']})" for one in ends["tokens"])
    also = f", and their tokens stop working: {tokens}" if tokens else ""
    shell.confirm(f"{name} is locked out at once{also}. Continue?", yes=yes)
    answer = shell.api.delete(_path(name))
    text = f"{name} is revoked: {len(answer['signed_in'])} sign-ins and {len(answer['tokens'])} tokens ended."
    shell.emit(answer, text)


def signed_in(shell: Shell, url: str, name: str, password: str, seconds: int | None) -> Any:
    """A token for name and password, from the manager at `url`; with it, where it belongs."""
    from fleet.cli.session import Session

    body = {"name": name, "password": password} | ({"expires_seconds": seconds} if seconds is not None else {})
    return {**shell.connect(Session(url, None, {"url": "argument"})).post("/sign-in", json=body), "url": url}


def keep(shell: Shell, made: Any) -> str:
    """Remember what `signed_in` brought; the file."""
    from fleet.cli import session

    path = session.store(made["url"], made["token"])
    if shell.flags.token is not None or "environment" in shell.session.origins.get("token", ""):
        shell.say("FLOTILLA_TOKEN or --token still goes before what was stored.")
    return str(path)


def new_password(shell: Shell, name: str, password_file: str | None) -> str:
    """A password to choose: from the file, or asked twice."""
    if password_file is not None:
        return _lines(password_file, 1)[0]
    first = asked(shell, f"New password of {name}")
    if asked(shell, "Once more") != first:
        raise CliError("E_USAGE", "the two passwords differ", "", "type the same one twice", Exit.USAGE)
    return first


def asked(shell: Shell, question: str) -> str:
    """Typed by a person at a terminal.

    Raises:
        CliError: there is nobody to ask.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or shell.as_json:
        raise CliError(
            "E_NO_PASSWORD",
            "no password was given",
            "there is no terminal to ask at",
            "--password-file FILE, or --password-file - for stdin",
            Exit.USAGE,
        )
    return str(click.prompt(question, hide_input=True, err=True))


def first_line(password_file: str) -> str:
    """The password in a file, or from stdin for `-`."""
    return _lines(password_file, 1)[0]


def _lines(name: str, least: int) -> list[str]:
    """The lines of a file, or of stdin for `-`: at least `least` of them with something in them."""
    try:
        text = sys.stdin.read(4096) if name == _STDIN else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise CliError("E_FILE", f"cannot read {name}", why, "check the path", Exit.USAGE) from None
    lines = text.splitlines()
    if len(lines) < least or not all(lines[:least]):
        what = "a password in its first line" if least == 1 else "the new password in line 1 and the old one in line 2"
        raise CliError("E_NO_PASSWORD", "no password was given", f"{name} should have {what}", "", Exit.USAGE)
    return lines


def _path(name: str) -> str:
    return f"/users/{quote(name, safe='')}"


def _portrait(found: Any, now: datetime) -> str:
    lines = [
        f"{found['name']}  {found['role']}  {found['state']}",
        f"  created    {found['created_at']} by {found['created_by']}",
        f"  password   chosen {ago(found['password_at'], now)}",
        f"  expires    {found['expires_at'] or 'never'}",
    ]
    lines += [
        f"  signed in  {one['with']} since {one['since']}, until {one['expires_at']}" for one in found["signed_in"]
    ]
    lines += [f"  token      {one['id']}  {one['name']}  {one['role']}" for one in found["tokens"]]
    return "\n".join(lines)
