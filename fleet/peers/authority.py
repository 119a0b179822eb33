"""Passports: certificates by which devices of one site know each other, and nobody else believes anything.

The authority's key comes from the manager's pepper, so that all managers of a fleet have the same one and nothing
more is to be kept. A passport names device and site, and says nothing about what the device sends.

I/O: none.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.identifiers import sha256
from shared.peers import server_name

#: A device asks for the next one when half of this is over.
LIFE: Final = timedelta(days=14)
#: Clocks of devices may be behind by so much.
_BEFORE: Final = timedelta(days=2)
_BEGINNING: Final = datetime(2024, 1, 1, tzinfo=UTC)
_END: Final = datetime(2124, 1, 1, tzinfo=UTC)


class Authority:
    """Signs passports. The same seed makes the same authority, byte for byte."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Flotilla peers")])
        public = self._key.public_key()
        self._certificate = (
            self._begun(public, _BEGINNING, _END, serial=1)
            .subject_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, None)
        )
        self.certificate: str = self._certificate.public_bytes(Encoding.PEM).decode()

    def passport(self, *, device: str, site: str, key: bytes, now: datetime) -> str:
        """PEM; `site` is a `shared.peers.site_name`, `key` the device's public Ed25519 key."""
        public = Ed25519PublicKey.from_public_bytes(key)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        serial = int(sha256(f"{device} {site} {now.isoformat()} {key.hex()}".encode())[:30], 16) | 1
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return (
            self._begun(public, now - _BEFORE, now + LIFE, serial=serial)
            .subject_name(name)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name(device, site))]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, None)
            .public_bytes(Encoding.PEM)
            .decode()
        )

    def _begun(
        self, public: Ed25519PublicKey, begins: datetime, ends: datetime, *, serial: int
    ) -> x509.CertificateBuilder:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(serial)
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(issuer, critical=False)
        )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
