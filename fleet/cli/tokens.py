"""`flotilla token`: access for programs, and for people without a password.

I/O: clock.
"""

from datetime import UTC, datetime

import click

from fleet.cli.shell import Column, Row, Shell, command, group
from fleet.cli.wording import ago, duration, instant

ROLES = ("viewer", "operator", "approver", "releaser", "admin")


@group
def token() -> None:
    """Access tokens for people and programs."""


@command(token, "create", example="flotilla token create night-shift --role operator --expires 30d")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default="viewer", show_default=True, help="What it may do.")
@click.option("--expires", default="90d", show_default=True, help="How long it is valid, such as 12h or 90d.")
def create(shell: Shell, name: str, role: str, expires: str) -> None:
    """Make a token. It is shown once: the manager keeps only its hash.

    It is yours: it ends when you are revoked. People sign in with name and password: `flotilla user create`.
    """
    body = {"name": name, "role": role, "expires_seconds": int(duration(expires).total_seconds())}
    made = shell.api.post("/tokens", json=body)
    shell.emit(made, str(made["token"]))
    shell.say(f"{role} token {made['id']} for {name}, shown once; valid for {expires}.")
    shell.say(f"Next: flotilla login {shell.session.url} --token -")


@command(token, "list", example="flotilla token list")
def list_(shell: Shell) -> None:
    """Show the tokens: whose, what they may do, until when."""
    now = datetime.now(UTC)
    rows = shell.api.pages("/tokens")
    columns: list[Column] = [
        ("ID", "id"),
        ("NAME", "name"),
        ("ROLE", "role"),
        ("STATE", lambda row: _state(row, now)),
        ("CREATED", lambda row: ago(row.get("created_at"), now)),
        ("EXPIRES", lambda row: str(row.get("expires_at") or "never")),
        ("OF", lambda row: str(row.get("person") or "")),
    ]
    shell.table(rows, columns, document={"items": rows}, empty="No tokens.")


def _state(row: Row, now: datetime) -> str:
    if row.get("revoked_at"):
        return "revoked"
    expires = row.get("expires_at")
    return "expired" if expires and instant(expires) <= now else "valid"


@command(token, "revoke", example="flotilla token revoke tok-7f3k --yes")
@click.argument("token_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke(shell: Shell, token_id: str, yes: bool) -> None:
    """End a token at once."""
    shell.confirm(f"Whoever uses {token_id} is locked out at once. Continue?", yes=yes)
    answer = shell.api.delete(f"/tokens/{token_id}")
    shell.emit(answer or {"id": token_id, "revoked": True}, f"{token_id} is revoked.")
