"""Who is told of alerts: a mail server and a web receiver, over real sockets of this machine.

mail = MailServer(tls=..., password="secret"); await mail.start(); ...; mail.letters
web = WebReceiver(); web.plan(500, 500, 200); await web.start(); ...; web.posts
"""

import asyncio
import base64
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 and `localhost` that nobody but who is given `file` trusts."""

    file: Path
    context: ssl.SSLContext


def certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flotilla test")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, secret = folder / "cert.pem", folder / "key.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, secret)
    return Certificate(file, context)


@dataclass
class _Server:
    port: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def listen(self, talk: Callable[..., object], context: ssl.SSLContext | None = None) -> None:
        async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            with suppress(OSError, asyncio.IncompleteReadError):
                await talk(reader, writer)  # type: ignore[misc]
            self._writers.discard(writer)
            writer.close()

        self._server = await asyncio.start_server(kept, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(0)


@dataclass
class MailServer(_Server):
    """SMTP as far as mail programs need it: EHLO, STARTTLS, AUTH PLAIN, one or many recipients."""

    tls: ssl.SSLContext | None = None
    password: str | None = None
    refused: dict[str, str] = field(default_factory=dict)  # recipient -> answer
    busy: int = 0  # so many letters are put off with 451
    letters: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    secure: list[bool] = field(default_factory=list)

    async def start(self) -> None:
        await self.listen(self._talk)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(*lines: str) -> None:
            writer.write("".join(f"{line}\r\n" for line in lines).encode())
            await writer.drain()

        safe = signed_in = False
        await say("220 test ESMTP")
        while line := (await reader.readline()).decode().strip():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO" | "HELO":
                    more = [] if safe or self.tls is None else ["250-STARTTLS"]
                    await say("250-test", *more, "250 AUTH PLAIN")
                case "STARTTLS" if self.tls is not None:
                    await say("220 go on")
                    await writer.start_tls(self.tls)
                    safe = True
                case "AUTH":
                    given = base64.b64decode(rest.split()[1]).split(b"\0")[2].decode()
                    signed_in = given == self.password
                    await say("235 welcome" if signed_in else "535 wrong password")
                case "MAIL" if self.password and not signed_in:
                    await say("530 sign in first")
                case "RCPT":
                    who = rest.partition("<")[2].partition(">")[0]
                    answer = self.refused.get(who, "250 ok")
                    if answer.startswith("250"):
                        self.recipients.append(who)
                    await say(answer)
                case "DATA":
                    await say("354 go on")
                    await self._letter(await reader.readuntil(b"\r\n.\r\n"), safe, say)
                case "QUIT":
                    await say("221 bye")
                    return
                case _:
                    await say("250 ok")

    async def _letter(self, text: bytes, safe: bool, say: Callable[..., object]) -> None:
        if self.busy:
            self.busy -= 1
            await say("451 later")  # type: ignore[misc]
            return
        self.letters.append(cast("EmailMessage", message_from_bytes(text[:-5], policy=default)))
        self.secure.append(safe)
        await say("250 queued")  # type: ignore[misc]


@dataclass(frozen=True)
class Post:
    path: str
    headers: dict[str, str]
    body: bytes


HANGS = 0  # a status: the request is taken and never answered


@dataclass
class WebReceiver(_Server):
    """Answers POST requests as planned, then with 200."""

    statuses: list[int] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    headers: str = ""
    answer: bytes = b"no"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?room=1"

    def plan(self, *statuses: int) -> None:
        self.statuses += statuses

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        await self.listen(self._talk, context)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.posts.append(Post(head[0].split()[1], headers, body))
        status = self.statuses.pop(0) if self.statuses else 200
        if status == HANGS:
            await reader.read()  # until the other side goes away
            return
        length = f"content-length: {len(self.answer)}\r\n"
        head = f"HTTP/1.1 {status} said\r\n{length}{self.headers}connection: close\r\n\r\n"
        writer.write(head.encode() + self.answer)
        await writer.drain()
