"""A manager that answers what it is told to, over real HTTP; and a shell to type into."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet.cli.__main__ import cli

HANGS_UP = 0  # a status: the connection ends without an answer


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakeManager:
    url: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, what: str, document: Any, status: int = 200) -> None:
        """`what` is `GET /api/v1/me`; several answers are given in turn, the last one for ever."""
        self.answers.setdefault(what, []).append((status, document))


def _handler(manager: FakeManager) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            manager.asked.append(
                Asked(
                    self.command,
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    json.loads(body) if body else None,
                )
            )
            found = manager.answers.get(f"{self.command} {self.path}") or manager.answers.get(
                f"{self.command} {self.path.partition('?')[0]}"
            )
            if found and found[0][0] == HANGS_UP:
                found.pop(0)
                self.close_connection = True
                return
            if found is None:
                status, document = 404, {"code": "E_NOT_FOUND", "title": "Not found", "detail": self.path, "hint": ""}
            else:
                status, document = found.pop(0) if len(found) > 1 else found[0]
            stream = isinstance(document, str)
            data = document.encode() if stream else b"" if document is None else json.dumps(document).encode()
            kind = "text/event-stream" if stream else "application/json" if status < 400 else "application/problem+json"
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def manager() -> Iterator[FakeManager]:
    made = FakeManager()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


Typing = Callable[..., Result]


@pytest.fixture
def types(manager: FakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typing:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("FLOTILLA_URL", manager.url)
    monkeypatch.setenv("FLOTILLA_TOKEN", "secret-token")

    def run(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(words), input=stdin, prog_name="flotilla")

    return run
