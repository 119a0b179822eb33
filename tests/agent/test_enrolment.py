import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from agent import errors
from agent.enrolment import Claim, enroll
from agent.identity import Keys
from shared.errors import FlotillaError
from shared.identifiers import sha256

CLAIM = Claim("the token", "dev-a", "Hall 3", "x86_64", "1.0")
ANSWER = {
    "device_id": "dev-a",
    "lifecycle": "accepted",
    "api_key": "k",
    "mqtt": {"url": "mqtt://b:1883", "username": "dev-a", "password": "p"},
    "root": "{}",
    "manager_url": "http://m",
}


class Manager(BaseHTTPRequestHandler):
    status: ClassVar[int] = 201
    answer: ClassVar[bytes] = json.dumps(ANSWER).encode()
    asked: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        self.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name)
        return


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Manager, "asked", [])
    server = HTTPServer(("127.0.0.1", 0), Manager)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def answering(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes | dict[str, Any]) -> None:
    monkeypatch.setattr(Manager, "status", status)
    monkeypatch.setattr(Manager, "answer", body if isinstance(body, bytes) else json.dumps(body).encode())


def test_the_claim_proves_possession_of_the_key_it_shows(manager: str) -> None:
    keys = Keys.make()
    assert enroll(f"{manager}/", CLAIM, keys).mqtt.password == "p"
    [(path, body)] = Manager.asked
    assert path == "/api/v1/enroll"
    assert body.keys() == {
        "claim_token",
        "device_id",
        "name",
        "hardware",
        "agent_version",
        "sign_key",
        "box_key",
        "proof",
    }
    verify_key = VerifyKey(base64.b64decode(body["sign_key"]))
    statement = f"flotilla/enroll/1|{sha256(b'the token')}|dev-a|{body['box_key']}".encode()
    verify_key.verify(statement, base64.b64decode(body["proof"]))
    with pytest.raises(BadSignatureError):
        verify_key.verify(statement.replace(b"dev-a", b"dev-b"), base64.b64decode(body["proof"]))


@pytest.mark.parametrize(
    ("status", "code", "error", "exit_code"),
    [
        (422, "E_CLAIM", errors.EnrolTokenError, 4),
        (403, "E_ANY", errors.EnrolTokenError, 4),
        (409, "E_DEVICE_EXISTS", errors.EnrolConflictError, 5),
        (503, "E_NOT_INITIALISED", errors.EnrolNotReadyError, 6),
        (429, "E_TOO_MANY", errors.EnrolNotReadyError, 6),
        (422, "E_BAD_INPUT", errors.EnrolRefusedError, 1),
    ],
)
def test_a_refusal_tells_what_the_manager_said_and_what_to_do(
    status: int, code: str, error: type[FlotillaError], exit_code: int, manager: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, status, {"code": code, "title": "No", "detail": "so it is", "hint": "do that"})
    with pytest.raises(error) as caught:
        enroll(manager, CLAIM, Keys.make())
    assert caught.value.detail == f"so it is ({code})"
    assert caught.value.remedy == "do that"
    assert errors.exit_code(caught.value) == exit_code


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>not here"), (200, b"{}"), (201, b"{"), (201, b"[]"), (201, {**ANSWER, "device_id": "No Id"})],
)
def test_what_is_no_manager_is_told_apart(
    status: int, body: bytes | dict[str, Any], manager: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, status, body)
    with pytest.raises(errors.EnrolAnswerError):
        enroll(manager, CLAIM, Keys.make())


@pytest.mark.parametrize("url", ["no address", "ftp://x", ""])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(errors.EnrolAnswerError, match="is not an address"):
        enroll(url, CLAIM, Keys.make())


def test_nobody_there_is_told() -> None:
    with pytest.raises(errors.EnrolUnreachableError, match="no manager answers"):
        enroll("http://127.0.0.1:9", CLAIM, Keys.make())
