"""Every key under `security`, and those of `deployment` beside it, has an effect."""

import base64
import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet import exposure
from fleet.errors import ClearTextError, TlsError
from fleet.rest.embedded import EmbeddedManager
from fleet.settings import FleetSettings
from shared.configuration import ConfigurationError, load


def settings(**sections: Any) -> FleetSettings:
    return FleetSettings.model_validate(sections)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"server": {"host": "0.0.0.0"}}, "HTTP on 0.0.0.0"),
        ({"server": {"host": "fleet.example.org"}}, "HTTP on fleet.example.org"),
        ({"mqtt": {"embedded_host": "::"}}, "embedded broker on ::"),
        ({"mqtt": {"url": "mqtt://broker.example.org"}}, "mqtt://broker.example.org"),
    ],
)
def test_nothing_goes_to_other_machines_in_clear_text_unless_that_is_allowed(
    sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(ClearTextError, match=said) as refused:
        exposure.check(settings(**sections))
    assert "security.use_tls: false" in refused.value.remedy
    exposure.check(settings(**sections, security={"use_tls": False}))


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"server": {"host": "::1"}, "mqtt": {"url": "mqtt://127.0.0.1:1883"}},
        {"server": {"host": "0.0.0.0", "public_url": "https://fleet.example.org"}},
        {"server": {"host": "0.0.0.0", "tls_certificate": "a.crt", "tls_key": "a.key"}},
        {"mqtt": {"url": "mqtts://broker.example.org"}},
    ],
)
def test_what_stays_here_or_is_under_tls_may_start(sections: dict[str, Any]) -> None:
    exposure.check(settings(**sections))


def test_a_manager_in_clear_text_does_not_even_make_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ClearTextError):
        EmbeddedManager(tmp_path / "data", {"server": {"host": "0.0.0.0"}}).start()
    assert not (tmp_path / "data").exists()


def certificate(folder: Path) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet under test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "server.crt", folder / "server.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return files


def test_with_a_certificate_the_manager_speaks_https_alone(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    manager = EmbeddedManager(tmp_path / "data", {"server": {"tls_certificate": str(chain), "tls_key": str(key)}})
    url, _ = manager.start()
    try:
        assert url.startswith("https://127.0.0.1:")
        with httpx2.Client(verify=ssl.create_default_context(cafile=chain)) as client:
            assert client.get(f"{url}/healthz").status_code == 200
        with httpx2.Client() as plain, pytest.raises(httpx2.TransportError):
            plain.get(url.replace("https:", "http:") + "/healthz")
    finally:
        manager.close()


def test_a_certificate_without_its_key_is_refused_with_the_reason(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    key.write_text("not a key")
    with pytest.raises(TlsError, match=r"server\.crt"):
        EmbeddedManager(tmp_path / "data", {"server": {"tls_certificate": str(chain), "tls_key": str(key)}}).start()
    with pytest.raises(ConfigurationError, match="belong together"):
        load(FleetSettings, None, overrides={"server.tls_certificate": "a.crt"}, environment={})


@pytest.mark.parametrize("key", ["verify_model_signatures", "encrypt_model_transfer"])
def test_signatures_and_encryption_cannot_be_switched_off(key: str) -> None:
    assert load(FleetSettings, None, overrides={f"security.{key}": True}, environment={}).settings
    with pytest.raises(ConfigurationError, match=rf"{key}.*cannot be switched off"):
        load(FleetSettings, None, overrides={f"security.{key}": False}, environment={})


def test_the_folder_has_two_names_but_only_one_place(tmp_path: Path) -> None:
    assert (
        load(FleetSettings, None, overrides={"deployment.base_dir": tmp_path}, environment={}).settings.data_dir
        == tmp_path
    )
    with pytest.raises(ConfigurationError, match="two folders"):
        load(FleetSettings, None, overrides={"deployment.base_dir": tmp_path, "data_dir": "/other"}, environment={})


@pytest.mark.parametrize("length", [16, 48])
def test_device_keys_are_as_long_as_asked(tmp_path: Path, length: int) -> None:
    from fleet.client import Fleet
    from tests.fleet.devices.test_enrolment import Machine

    with Fleet.embedded(tmp_path, settings={"security": {"api_key_length": length}}) as fleet:
        fleet.initialise()
        claim = Machine().claim(fleet.invites.create()["token"])
        with httpx2.Client() as stranger:
            key = stranger.post(f"{fleet.url}/api/v1/enroll", json=claim).json()["api_key"]
    secret = key.removeprefix("fdk_")
    assert len(base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))) == length


def test_without_a_claim_token_a_device_may_wait_only_where_that_is_allowed(tmp_path: Path) -> None:
    from fleet.client import Fleet
    from tests.fleet.devices.test_enrolment import Machine

    for required, expected in ((True, 403), (False, 201)):
        folder = tmp_path / str(required)
        with Fleet.embedded(folder, settings={"deployment": {"require_device_authentication": required}}) as fleet:
            fleet.initialise()
            with httpx2.Client() as stranger:
                answer = stranger.post(f"{fleet.url}/api/v1/enroll", json=Machine().claim(""))
                wrong = stranger.post(f"{fleet.url}/api/v1/enroll", json=Machine("cam-9").claim("fcl_" + "x" * 43))
            assert (answer.status_code, wrong.status_code) == (expected, 403)
            waiting = [(it["id"], it["lifecycle"]) for it in fleet.devices.list()]
            assert waiting == ([] if required else [("cam-1", "pending")])
