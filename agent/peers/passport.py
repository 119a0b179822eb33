"""The certificate by which other devices of the site know this one, and how it knows them.

    <state_dir>/identity/peer.pem    private key, certificate, who signed it; 0600

The key is derived from the device's own, so that a device that lost the file has the same one again.

I/O: disk, network, clock.
"""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent import identity
from agent.errors import IdentityError
from shared.durable import make_folder, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

_CONTEXT: Final = b"flotilla/peers/tls/1"


class Passport:
    """Key and certificate. `version` changes with each certificate that comes."""

    def __init__(
        self, state_dir: Path, *, seed: bytes, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._path, self._now = state_dir / identity.FOLDER / "peer.pem", now
        derived = HKDF(SHA256(), 32, salt=None, info=_CONTEXT).derive(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(derived)
        self._certificate: x509.Certificate | None = None
        self._authority = ""
        self.version = 0
        self._load()

    @property
    def public_key(self) -> str:
        """32 bytes in hexadecimal."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @property
    def domain(self) -> str | None:
        """What names of devices of this site end with; None without a certificate."""
        if self._certificate is None:
            return None
        names = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)[0].partition(".")[2]

    @property
    def wanted(self) -> bool:
        """True when there is none, or half of its time is over."""
        known = self._certificate
        if known is None:
            return True
        half = (known.not_valid_after_utc - known.not_valid_before_utc) / 2
        return self._now() >= known.not_valid_before_utc + half

    def keep(self, certificate: str, authority: str) -> None:
        """Store what the manager sent, durably.

        Raises:
            IdentityError: it is not a certificate of our key.
        """
        parsed = _parsed(certificate)
        if parsed is None or _parsed(authority) is None or parsed.public_key() != self._key.public_key():
            raise IdentityError("the manager sent a certificate that does not fit this device's key")
        private = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        make_folder(self._path.parent)
        replace_file(self._path, private + certificate.encode() + authority.encode())
        self._load()

    def server(self) -> ssl.SSLContext:
        """For the side that serves: only who has a certificate of the same authority comes in."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._filled(context)

    def client(self) -> ssl.SSLContext:
        """For the side that asks."""
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        if self._certificate is None:
            raise RuntimeError("no certificate yet")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self._authority)
        context.load_cert_chain(self._path)
        return context

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
            found, authority = x509.load_pem_x509_certificates(data)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            logger.warning("peer certificate not usable, asking for another path=%s error=%s", self._path, error)
            return
        if found.public_key() == self._key.public_key():
            self._certificate = found
            self._authority = authority.public_bytes(Encoding.PEM).decode()
            self.version += 1


def _parsed(pem: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return None
