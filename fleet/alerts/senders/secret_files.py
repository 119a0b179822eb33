"""Secrets of channels: from the settings, or from a file that is read anew each time, so that it may be replaced.

I/O: disk.
"""

from pathlib import Path
from typing import Final

from pydantic import SecretStr

from fleet.alerts.senders.failures import ChannelSetupError

_MAX_BYTES: Final = 64 * 1024


def secret(given: SecretStr | None, file: Path | None) -> str:
    """The secret without the line break at its end.

    Raises:
        ChannelSetupError: the file cannot be read or is empty.
    """
    if given is not None:
        return given.get_secret_value()
    if file is None:
        raise ValueError("neither a secret nor a file; the settings refuse that")
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES).decode().strip()
    except OSError as error:
        raise ChannelSetupError(f"{file}: {error.strerror}", remedy=f"make {file} readable for the manager") from error
    except UnicodeDecodeError:
        raise ChannelSetupError(f"{file}: not UTF-8 text", remedy="write the secret as text") from None
    if not text:
        raise ChannelSetupError(f"{file} is empty", remedy="write the secret into it")
    return text
