"""Where the manager is and as whom to ask it: flag > environment > file > default.

I/O: disk.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.cli.errors import CliError, Exit
from shared.durable import make_folder, replace_file

DEFAULT_URL: Final = "http://127.0.0.1:8420"


@dataclass(frozen=True, slots=True)
class Session:
    """The manager to talk to; `origins` tells where each value came from."""

    url: str
    token: str | None
    origins: Mapping[str, str]


def file_path(environment: Mapping[str, str] | None = None) -> Path:
    """`~/.config/flotilla/cli.yaml`, or below XDG_CONFIG_HOME where that is set."""
    environment = os.environ if environment is None else environment
    folder = environment.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "flotilla" / "cli.yaml"


def find(url: str | None = None, token: str | None = None) -> Session:
    """The session that the flags `url` and `token`, the environment and the file make together.

    Raises:
        CliError: the file is damaged.
    """
    path = file_path()
    sources = (
        ("flag", {"url": url, "token": token}),
        ("environment", {"url": os.environ.get("FLOTILLA_URL"), "token": os.environ.get("FLOTILLA_TOKEN")}),
        (str(path), read_file(path)),
        ("default", {"url": DEFAULT_URL}),
    )
    found: dict[str, str] = {}
    origins: dict[str, str] = {}
    for key in ("url", "token"):
        for origin, values in sources:
            if value := values.get(key):
                found[key], origins[key] = (
                    value,
                    f"{origin} FLOTILLA_{key.upper()}" if origin == "environment" else origin,
                )
                break
    if "token" in found and origins["token"] == str(path) and _origin_differs(found["url"], read_file(path).get("url")):
        del found["token"], origins["token"]  # a stored token goes only to the manager that it was stored for
    return Session(found["url"].rstrip("/"), found.get("token"), origins)


def _origin_differs(url: str, stored: str | None) -> bool:
    return stored is not None and url.rstrip("/") != stored.rstrip("/")


def read_file(path: Path) -> dict[str, str]:
    """What `flotilla login` stored; empty without a file.

    Raises:
        CliError: not a YAML mapping of texts.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from None
    import yaml  # only when there is a file: 20 ms

    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise _damaged(path, " ".join(str(error).split())) from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _damaged(path, "it should hold `url: ...` and `token: ...`")
    if unknown := set(found) - {"url", "token"}:
        raise _damaged(path, f"unknown key {min(map(str, unknown))!r}; allowed are url and token")
    return found


def _damaged(path: Path, why: str) -> CliError:
    return CliError("E_CONFIG", f"cannot read {path}", why, "flotilla login URL --token TOKEN", Exit.USAGE)


def store(url: str, token: str) -> Path:
    """Keep both for later commands, readable by the user alone."""
    import yaml

    path = file_path()
    make_folder(path.parent)
    replace_file(path, yaml.safe_dump({"url": url, "token": token}, sort_keys=False).encode(), mode=0o600)
    return path


def forget() -> bool:
    """Remove what was stored; False when there was nothing."""
    path = file_path()
    present = path.exists()
    path.unlink(missing_ok=True)
    return present
