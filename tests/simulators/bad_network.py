"""A web server with ranges, behind a network that can go wrong in every usual way; change `Mirror` while it runs."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BLOCK = 1024


class Mirror:
    """Serves `files` (path to content)."""

    def __init__(self, files: Mapping[str, bytes], tls: ssl.SSLContext | None = None) -> None:
        self.files = dict(files)
        self.tls = tls
        self.requests: Counter[str] = Counter()
        self.sent = 0  # bytes of bodies
        self.cut_at: int | None = None  # when so many were sent, every connection breaks, once
        self.drops = 0.0  # share of the answers that break somewhere
        self.bytes_per_second: float | None = None  # of all connections together
        self.page = False  # a portal's page instead of everything
        self.redirect: str | None = None  # an address to which everything is sent, followed by the path if it ends in /
        self.redirect_all = False  # also who did not say that he follows
        self.garbage = False  # right lengths, wrong bytes
        self.ranges = True
        self.random = random.Random(3)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    mirror._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, address = super().get_request()
                if mirror.tls is None:
                    return connection, address
                connection.settimeout(5)  # who goes away in the handshake must not hold up the end of the test
                try:
                    return mirror.tls.wrap_socket(connection, server_side=True), address
                except OSError:
                    connection.close()
                    raise

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests[request.path] += 1
        if self.redirect is not None and (self.redirect_all or "Flotilla-Elsewhere" in request.headers):
            self._head(request, 307, 0, {"Location": self.redirect + (request.path[1:] * self.redirect.endswith("/"))})
        elif self.page:
            page = b"<html>please pay</html>"
            self._head(request, 200, len(page), {"Content-Type": "text/html; charset=utf-8"})
            request.wfile.write(page)
        elif (data := self.files.get(request.path)) is None:
            self._head(request, 404, 0, {})
        else:
            self._serve(request, self.random.randbytes(len(data)) if self.garbage else data)

    def _serve(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and self.ranges:
            self._head(request, 206, len(data) - start, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
            data = data[start:]
        else:
            self._head(request, 200, len(data), {})
        with self._lock:
            end = self.random.randrange(len(data)) if self.random.random() < self.drops else len(data)
        for at in range(0, end, BLOCK):
            if not self._send(request, data[at : min(at + BLOCK, end)]):
                break
        else:
            if end == len(data):
                return
        self._break(request)

    def _send(self, request: BaseHTTPRequestHandler, block: bytes) -> bool:
        """False when the network broke."""
        with self._lock:
            cut = self.cut_at is not None and self.sent + len(block) > self.cut_at
            if cut:
                assert self.cut_at is not None
                block, self.cut_at = block[: self.cut_at - self.sent], None
            if self.bytes_per_second:
                time.sleep(len(block) / self.bytes_per_second)
            request.wfile.write(block)
            self.sent += len(block)
        return not cut

    @staticmethod
    def _break(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.connection.shutdown(socket.SHUT_WR)

    @staticmethod
    def _head(request: BaseHTTPRequestHandler, status: int, length: int, headers: Mapping[str, str]) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(length))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


def certificate(folder: Path, *, days: int) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for localhost that ends in `days`, and the file that proves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ends in {days} days")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    proof, secret = folder / f"{days}.crt", folder / f"{days}.key"
    proof.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(proof, secret)
    return context, proof
