"""Enrolment over HTTP: claim tokens, proof of possession, races."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from fleet.parts import Manager
from fleet.store import devices
from shared.identifiers import sha256

pytestmark = pytest.mark.usefixtures("trust")


class Machine:
    """Keys of a device, and what it sends."""

    def __init__(self, name: str = "cam-1") -> None:
        self.name = name
        self.signing = SigningKey.generate()
        self.box = bytes(PrivateKey.generate().public_key)

    def claim(self, token: str, **changes: Any) -> dict[str, Any]:
        box = base64.b64encode(self.box)
        said = b"flotilla/enroll/1|" + sha256(token.encode()).encode() + b"|" + self.name.encode() + b"|" + box
        body = {
            "claim_token": token,
            "device_id": self.name,
            "name": "Camera one",
            "hardware": "x86_64",
            "agent_version": "0.1.0",
            "sign_key": base64.b64encode(bytes(self.signing.verify_key)).decode(),
            "box_key": box.decode(),
            "proof": base64.b64encode(self.signing.sign(said).signature).decode(),
        }
        return body | changes


@pytest.fixture
def invite(admin: httpx2.AsyncClient) -> Callable[..., Any]:
    async def make(**body: Any) -> str:
        answer = await admin.post("/api/v1/invites", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    return make


async def enroll(client: httpx2.AsyncClient, body: dict[str, Any]) -> httpx2.Response:
    return await client.post("/api/v1/enroll", json=body)


async def test_a_device_comes_in_and_reaches_the_broker(manager: Manager, admin, invite, device_link) -> None:
    token = await invite(site="hall", labels={"line": "4"})
    answer = await enroll(admin, Machine().claim(token))
    assert answer.status_code == 201, answer.text
    got = answer.json()
    assert (got["device_id"], got["lifecycle"], got["manager_url"]) == ("cam-1", "active", manager.manager_url)
    assert got["mqtt"] == {"url": manager.mqtt_url, "username": "cam-1", "password": got["api_key"]}
    assert got["root"]
    shown = (await admin.get("/api/v1/devices/cam-1")).json()
    assert (shown["site"], shown["labels"], shown["name"], shown["link"]) == (
        "hall",
        {"line": "4"},
        "Camera one",
        "never",
    )
    assert (await device_link("cam-1", password=got["api_key"])).connected


async def test_secrets_are_stored_only_as_hashes(manager: Manager, admin, invite) -> None:
    token = await invite()
    key = (await enroll(admin, Machine().claim(token))).json()["api_key"]
    await manager.database.close()
    folder = manager.settings.data_dir
    stored = b"".join(path.read_bytes() for path in folder.glob("fleet.sqlite*"))
    assert token.encode() not in stored
    assert key.encode() not in stored
    await manager.database.open()


async def test_exactly_one_device_wins_a_token_for_one(admin, invite, manager: Manager) -> None:
    token = await invite(uses=1)
    machines = [Machine(f"cam-{number}") for number in range(12)]
    answers = await asyncio.gather(*(enroll(admin, machine.claim(token)) for machine in machines))
    assert sorted(answer.status_code for answer in answers) == [201] + [403] * 11
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"E_CLAIM"}
    async with manager.database.read() as tx:
        assert await devices.count_by_lifecycle(tx) == {"active": 1}


async def test_the_same_device_may_repeat_a_lost_enrolment(admin, invite, manager: Manager) -> None:
    token, machine = await invite(uses=1), Machine()
    first, second = [await enroll(admin, machine.claim(token)) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["api_key"] != second.json()["api_key"]
    async with manager.database.read() as tx:
        device = await devices.get(tx, "cam-1")
        assert device is not None
        assert manager.pepper.fits(second.json()["api_key"], device.api_key_hash)


async def test_another_device_cannot_take_a_known_id(admin, invite) -> None:
    token = await invite(uses=5)
    assert (await enroll(admin, Machine().claim(token))).status_code == 201
    answer = await enroll(admin, Machine().claim(token))
    assert (answer.status_code, answer.json()["code"]) == (409, "E_DEVICE_EXISTS")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"device_id": "cam-2"}, "E_PROOF"),
        ({"box_key": base64.b64encode(b"x" * 32).decode()}, "E_PROOF"),
        ({"sign_key": base64.b64encode(b"x" * 32).decode()}, "E_PROOF"),
        ({"proof": base64.b64encode(b"x" * 64).decode()}, "E_PROOF"),
        ({"proof": "?"}, "E_BAD_INPUT"),
        ({"sign_key": "AAAA"}, "E_BAD_INPUT"),
        ({"device_id": "Cam_1"}, "E_BAD_INPUT"),
        ({"name": "x" * 129}, "E_BAD_INPUT"),
        ({"surplus": 1}, "E_BAD_INPUT"),
    ],
)
async def test_what_does_not_fit_is_refused_and_uses_nothing_up(admin, invite, changes, code: str) -> None:
    token = await invite(uses=1)
    answer = await enroll(admin, Machine().claim(token, **changes))
    assert answer.json()["code"] == code
    assert answer.status_code in (403, 422)
    assert (await enroll(admin, Machine().claim(token))).status_code == 201


async def test_an_unknown_or_expired_token_opens_nothing(admin, invite, manager: Manager) -> None:
    assert (await enroll(admin, Machine().claim("fcl_" + "x" * 43))).json()["code"] == "E_CLAIM"
    token = await invite(expires_seconds=1)
    now = manager.clock.now()
    async with manager.database.write() as tx:
        for row in await devices.invites(tx, limit=10):
            row.expires_at = now
    assert (await enroll(admin, Machine().claim(token))).json()["code"] == "E_CLAIM"


async def test_a_waiting_device_is_accepted_or_sent_away(admin, invite, device_link) -> None:
    token = await invite(auto_accept=False, uses=2)
    for name in ("cam-1", "cam-2"):
        assert (await enroll(admin, Machine(name).claim(token))).json()["lifecycle"] == "pending"
    assert (await admin.post("/api/v1/devices/cam-1/accept")).json()["lifecycle"] == "active"
    assert (await admin.post("/api/v1/devices/cam-2/reject")).json() == {"id": "cam-2", "rejected": True}
    assert (await admin.get("/api/v1/devices/cam-2")).status_code == 404
    assert (await admin.post("/api/v1/devices/cam-1/reject")).status_code == 409


async def test_a_revoked_device_is_cut_off_at_once_and_stays_out(admin, invite, device_link, until) -> None:
    token, machine = await invite(uses=2), Machine()
    key = (await enroll(admin, machine.claim(token))).json()["api_key"]
    link = await device_link("cam-1", password=key)
    assert (await admin.post("/api/v1/devices/cam-1/revoke")).json()["lifecycle"] == "revoked"
    await until(lambda: not link.connected and "refused" in link.failure)
    assert (await enroll(admin, machine.claim(token))).json()["code"] == "E_DEVICE_EXISTS"
    assert (await admin.post("/api/v1/devices/cam-1/accept")).status_code == 409


async def test_too_many_attempts_are_slowed_down(strangers, manager: Manager) -> None:
    codes = [(await enroll(strangers, Machine().claim("fcl_" + "x" * 43))).status_code for _ in range(70)]
    assert codes[0] == 403
    assert codes[-1] == 429


async def test_without_a_root_nobody_enrols(admin, invite, manager: Manager) -> None:
    from sqlalchemy import text

    async with manager.database.write() as tx:
        await tx.execute(text("DELETE FROM metadata"))
    answer = await enroll(admin, Machine().claim(await invite()))
    assert (answer.status_code, answer.json()["code"]) == (409, "E_NOT_INITIALISED")
