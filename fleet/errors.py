"""Errors of the manager as a whole; each part has its own beside it.

I/O: none.
"""

from shared.errors import BrokenError


class DataFolderError(BrokenError):
    """The data folder cannot be used."""

    code = "E_DATA_DIR"
    default_remedy = "make it and give it to this user, or name another: flotilla-fleet run --data-dir DIR"


class ListenError(BrokenError):
    """The address for HTTP cannot be opened."""

    code = "E_HTTP_PORT"
    default_remedy = "choose another server.port (0 takes a free one), or end what listens there"


class ClearTextError(BrokenError):
    """Something would travel to other machines in clear text, and `security.use_tls` forbids it."""

    code = "E_CLEAR_TEXT"
    default_remedy = "use TLS as the text says, or allow clear text: security.use_tls: false"


class TlsError(BrokenError):
    """The certificate or its key cannot be used."""

    code = "E_TLS"
    default_remedy = "server.tls_certificate: PEM with the whole chain; server.tls_key: its key, without a passphrase"


class RunningError(BrokenError):
    """Another manager works on this data folder."""

    code = "E_RUNNING"
    default_remedy = "end the other one first, or use another --data-dir"
