"""A real manager tells of an alert, though it is killed after the receiver got the message and before that is saved."""

import asyncio
import json
from pathlib import Path

import httpx2

from tests.fleet.daemon.test_process import Started, start, systemd
from tests.simulators.receivers import HANGS, MailServer, WebReceiver

__all__ = ["start", "systemd"]  # fixtures

CONFIG = """\
alerts: {{group_wait_seconds: 0}}
channels:
  email: {{kind: email, host: 127.0.0.1, port: {mail}, security: none, sender: fleet@x.org, recipients: [ana@x.org]}}
  webhook: {{kind: webhook, url: "{web}", secret: a-secret-of-sixteen-signs}}
"""


async def until(receiver: WebReceiver, count: int) -> None:
    async with asyncio.timeout(30):
        while len(receiver.posts) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def misuse_a_revoked_token(manager: Started) -> None:
    async with httpx2.AsyncClient(base_url=manager.url, headers=manager.headers) as client:
        made = (await client.post("/api/v1/tokens", json={"name": "old", "role": "viewer"})).json()
        await client.delete(f"/api/v1/tokens/{made['id']}")
        await client.get("/api/v1/me", headers={"Authorization": f"Bearer {made['token']}"})


async def states(manager: Started) -> dict[str, tuple[str, int]]:
    async with httpx2.AsyncClient(base_url=manager.url, headers=manager.headers) as client:
        rows = (await client.get("/api/v1/deliveries")).json()["items"]
    return {row["channel"]: (row["state"], row["attempts"]) for row in rows}


async def test_kill_9_between_sent_and_saved_sends_again_with_the_same_id(start, tmp_path: Path) -> None:
    web, mail = WebReceiver(), MailServer()
    await web.start()
    await mail.start()
    web.plan(HANGS)
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "fleet.yaml").write_text(CONFIG.format(mail=mail.port, web=web.url))
    manager = start()
    await asyncio.to_thread(manager.until, "READY=1")
    await misuse_a_revoked_token(manager)
    await until(web, 1)
    async with asyncio.timeout(30):
        while (await states(manager)).get("email") != ("delivered", 1):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (await states(manager))["webhook"] == ("pending", 1)
    manager.process.kill()
    await asyncio.to_thread(manager.process.communicate, timeout=20)
    again = start()
    await asyncio.to_thread(again.until, "READY=1")
    await until(web, 2)
    async with asyncio.timeout(30):
        while (await states(again))["webhook"] != ("delivered", 2):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert len({json.loads(post.body)["id"] for post in web.posts}) == 1
    assert len(mail.letters) == 1  # what was saved as delivered is not sent again
    await web.stop()
    await mail.stop()
