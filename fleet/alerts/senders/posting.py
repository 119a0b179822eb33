"""Post a message over HTTP: signed webhook, Slack, Teams. No redirects, no proxies, every wait bounded.

I/O: network, disk, tasks.
"""

import asyncio
import json
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx2

from fleet.alerts import signature, wording
from fleet.alerts.channels import LOOPBACK, Slack, Teams, Webhook
from fleet.alerts.senders import destinations
from fleet.alerts.senders.failures import ChannelDownError, ChannelSetupError, MessageRefusedError
from fleet.alerts.senders.secret_files import secret
from fleet.alerts.wording import Message

#: Answers after which the same message cannot succeed; every other one but 2xx may be mended on the other side.
_FINAL: Final = frozenset({400, 413, 415, 422})
_SHOWN_BYTES: Final = 200


async def post(settings: Webhook | Slack | Teams, said: Message, now: datetime) -> str:
    """What the receiver answered, such as `HTTP 200`.

    Raises:
        ChannelDownError: no answer, or one that may be another one later.
        ChannelSetupError: a secret or certificate is missing, or the address may not be posted to.
        MessageRefusedError: the receiver does not take this message.
    """
    url, body, more = _request(settings, said, now)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "flotilla",
        "Flotilla-Delivery": said.id,
        "Idempotency-Key": said.id,
        **more,
    }
    try:
        async with asyncio.timeout(settings.timeout_seconds * 2):
            return await _exchange(settings, url, body, headers)
    except TimeoutError:
        raise ChannelDownError(f"no answer in {settings.timeout_seconds * 2:g} s") from None
    except (httpx2.HTTPError, OSError) as error:
        raise ChannelDownError(f"{type(error).__name__}: {error}"[:300]) from error


def _request(settings: Webhook | Slack | Teams, said: Message, now: datetime) -> tuple[str, bytes, dict[str, str]]:
    match settings:
        case Webhook():
            body = said.json()
            key = secret(settings.secret, settings.secret_file).encode()
            return settings.url, body, {signature.HEADER: signature.signed(key, body, now)}
        case Slack():
            return secret(settings.url, settings.url_file), json.dumps(wording.slack(said)).encode(), {}
        case Teams():
            return secret(settings.url, settings.url_file), json.dumps(wording.teams(said)).encode(), {}


async def _exchange(settings: Webhook | Slack | Teams, url: str, body: bytes, headers: dict[str, str]) -> str:
    way = Way(settings.allow_private, settings.ca_file, settings.timeout_seconds)
    status, read = await exchange(way, url, body, headers, longest=_SHOWN_BYTES)
    return _judged(status, " ".join(read.decode(errors="replace").split()))


@dataclass(frozen=True, slots=True)
class Way:
    """How somebody outside is reached."""

    allow_private: bool
    ca_file: Path | None
    timeout_seconds: float


async def exchange(way: Way, url: str, body: bytes, headers: dict[str, str], *, longest: int) -> tuple[int, bytes]:
    """Post; the status, and at most `longest` bytes of the answer. Errors of httpx2 are the caller's.

    Raises:
        ChannelDownError: the name cannot be resolved.
        ChannelSetupError: the address may not be posted to, or the certificate of the CA is missing.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https" and host not in LOOPBACK:
        raise ChannelSetupError("the URL is not https", remedy="https is needed for everything but this machine")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = destinations.chosen(host, await _resolved(host, port), allow_private=way.allow_private)
    literal = f"[{address}]" if ":" in address else address
    target = urlunsplit((parts.scheme, f"{literal}:{port}", parts.path or "/", parts.query, ""))
    client = httpx2.AsyncClient(
        verify=_trusted(way), trust_env=False, follow_redirects=False, timeout=way.timeout_seconds
    )
    async with (
        client,
        client.stream(
            "POST",
            target,
            content=body,
            headers={**headers, "Host": parts.netloc},
            extensions={"sni_hostname": host},  # the certificate is checked against the name, not the address
        ) as answer,
    ):
        return answer.status_code, await _start(answer, longest)


async def _resolved(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ChannelDownError(f"{host} cannot be resolved: {error}") from error
    return [str(row[4][0]) for row in found]


def _trusted(settings: Way) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise ChannelSetupError(f"{settings.ca_file}: {error}", remedy="give the CA's certificate as PEM") from error


async def _start(answer: httpx2.Response, longest: int) -> bytes:
    """The beginning of what was answered; a receiver cannot make us read more."""
    read = b""
    async for piece in answer.aiter_raw():
        read += piece
        if len(read) >= longest:
            break
    return read[:longest]


def _judged(status: int, text: str) -> str:
    said = f"HTTP {status}" + (f": {text}" if text and status >= 300 else "")
    if 200 <= status < 300:
        return said
    if status in _FINAL:
        raise MessageRefusedError(said)
    raise ChannelDownError(said + (" (redirects are not followed)" if 300 <= status < 400 else ""))
