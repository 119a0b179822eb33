"""What of a manager would travel to other machines in clear text.

I/O: none.
"""

import ipaddress
from urllib.parse import urlsplit

from fleet.errors import ClearTextError
from fleet.settings import FleetSettings


def check(settings: FleetSettings) -> None:
    """Return if nothing would, or if that is allowed.

    Raises:
        ClearTextError: what would, and how to make it safe.
    """
    if not settings.security.use_tls:
        return
    server, mqtt = settings.server, settings.mqtt
    behind_proxy = (server.public_url or "").startswith("https://")
    if not is_local(server.host) and server.tls_certificate is None and not behind_proxy:
        raise ClearTextError(
            f"HTTP on {server.host}:{server.port} without TLS",
            remedy="give server.tls_certificate and server.tls_key; or put a TLS proxy in front and name it in "
            "server.public_url: https://...; or allow clear text: security.use_tls: false",
        )
    if mqtt.url is None and not is_local(mqtt.embedded_host):
        raise ClearTextError(
            f"the embedded broker on {mqtt.embedded_host}:{mqtt.embedded_port} has no TLS",
            remedy="use a broker with TLS (mqtt.url: mqtts://...); or allow clear text: security.use_tls: false",
        )
    if mqtt.url is not None and mqtt.url.startswith("mqtt:") and not is_local(urlsplit(mqtt.url).hostname or ""):
        raise ClearTextError(
            f"{mqtt.url} goes to another machine without TLS",
            remedy="mqtt.url: mqtts://...; or allow clear text: security.use_tls: false",
        )


def is_local(host: str) -> bool:
    """True for this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # a name, which may be anywhere
