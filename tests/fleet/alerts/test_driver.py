"""The whole life of alerts against a real mail server and a real web receiver; only the clock is moved by hand."""

import asyncio
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest

from fleet.alerts import desk
from fleet.store import tables
from tests.fleet.alerts.conftest import SECRET, Make, World, email, webhook
from tests.simulators.receivers import HANGS, MailServer, Post, WebReceiver


def verified(post: Post) -> dict[str, Any]:
    """The document, its signature checked as docs/alerts.md says."""
    parts = dict(part.split("=", 1) for part in post.headers["flotilla-signature"].split(","))
    expected = hmac.new(SECRET.encode(), f"{parts['t']}.".encode() + post.body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(expected, parts["v1"])
    document: dict[str, Any] = json.loads(post.body)
    assert post.headers["flotilla-delivery"] == document["id"] == post.headers["idempotency-key"]
    return document


async def acknowledge(world: World, alert: str) -> None:
    async with world.database.write() as tx:
        await desk.acknowledge(tx, alert, by="ana", note="lamp", now=world.clock.at)


async def silence(world: World, matcher: dict[str, Any], **length: float) -> None:
    async with world.database.write() as tx:
        tx.add(
            tables.Silence(
                id="si-1", matcher=matcher, comment="works", created_by="ana", created_at=world.clock.at,
                until=world.clock.at + timedelta(**length),
            )
        )  # fmt: skip


async def test_from_open_over_escalated_and_acknowledged_to_resolved(
    make: Make, web: WebReceiver, mail: MailServer
) -> None:
    world = await make({"email": email(mail), "webhook": webhook(web)})
    alert = await world.alert()
    await world.tell()
    await world.tell()  # nothing new
    world.after(hours=23)
    await world.tell()
    world.after(hours=1)
    await world.tell()
    (row,) = await world.rows(tables.Alert)
    assert (row.state, row.since) == ("escalated", world.clock.at)
    await acknowledge(world, alert.id)
    world.after(hours=99)
    await world.tell()
    async with world.database.write() as tx:
        await desk.clear(tx, await tx.get_one(tables.Alert, alert.id), because="back", now=world.clock.at)
    await world.tell()
    told = [verified(post)["alerts"] for post in web.posts]
    assert [[one["event"] for one in alerts] for alerts in told] == [["opened"], ["escalated"], ["resolved"]]
    assert told[0][0]["evidence"]["psi"] == 0.83
    assert [letter["Subject"].strip() for letter in mail.letters] == [
        "[high] digits 1.0.0 on cam-1: PSI 0.83",
        "[high] escalated, nobody looks after it: digits 1.0.0 on cam-1: PSI 0.83",
        "[high] resolved: digits 1.0.0 on cam-1: PSI 0.83",
    ]
    assert f"flotilla alert ack {alert.id}" in mail.letters[0].get_content()
    rows = await world.rows(tables.Delivery)
    assert [(row.state, row.attempts) for row in rows] == [("delivered", 1)] * 6


async def test_one_cause_on_several_devices_of_a_site_is_one_letter(make: Make, mail: MailServer) -> None:
    world = await make({"email": email(mail)}, group_wait_seconds=30)
    for name in ("cam-1", "cam-2", "cam-3"):
        await world.device(name, site="gate")
        await world.alert(scope=f"device:{name}", text=f"digits 1.0.0 on {name}: PSI 0.83")
        await world.tell()
        world.after(seconds=10)
    await world.tell()
    (letter,) = mail.letters
    assert letter["Subject"] == "[high] 3 alerts: drift"
    assert all(f"on {name}: PSI 0.83 (site gate)" in letter.get_content() for name in ("cam-1", "cam-2", "cam-3"))


async def test_a_silenced_alert_is_told_when_the_silence_ends_and_it_is_still_there(
    make: Make, web: WebReceiver
) -> None:
    world = await make({"webhook": webhook(web, retraining=True)}, auto_trigger_retraining=True)
    await world.device("cam-1", site="gate")
    await silence(world, {"kind": "drift", "labels": {"site": "gate"}}, hours=30)
    await world.alert()
    await world.tell()
    world.after(hours=29)
    await world.tell()
    (row,) = await world.rows(tables.Alert)
    assert (row.state, web.posts) == ("silenced", [])
    world.after(hours=1)
    await world.tell()
    (row,) = await world.rows(tables.Alert)
    assert row.state == "open"  # the time in silence does not count for its escalation
    assert sorted(verified(post)["type"] for post in web.posts) == [
        "flotilla-alerts/1",
        "flotilla-retraining-request/1",
    ]
    await silence_again(world)
    assert len(web.posts) == 3  # heard again; but retraining was asked for


async def silence_again(world: World) -> None:
    async with world.database.write() as tx:
        (await tx.get_one(tables.Silence, "si-1")).until = world.clock.at + timedelta(hours=1)
    await world.tell()
    world.after(hours=2)
    await world.tell()


async def test_a_receiver_that_fails_twice_gets_it_the_third_time_with_the_same_id(
    make: Make, web: WebReceiver
) -> None:
    world = await make({"webhook": webhook(web)})
    web.plan(500, 503)
    await world.alert()
    for seconds, posts in ((0, 1), (29, 1), (1, 2), (59, 2), (1, 3), (3600, 3)):
        world.after(seconds=seconds)
        await world.tell()
        assert len(web.posts) == posts
    assert len({verified(post)["id"] for post in web.posts}) == 1
    assert len({post.body for post in web.posts}) == 1
    (row,) = await world.rows(tables.Delivery)
    assert (row.state, row.attempts, row.outcome) == ("delivered", 3, "HTTP 200")
    texts = [row.text for row in await world.rows(tables.Event)]
    assert [text for text in texts if text.startswith("channel")] == [
        "channel webhook fails: HTTP 500: no (E_CHANNEL_DOWN)",
        "channel webhook works again",
    ]


async def test_a_kill_between_owed_and_sent_and_between_sent_and_saved_loses_nothing(
    make: Make, web: WebReceiver
) -> None:
    world = await make({"webhook": webhook(web)})
    await world.alert()
    await world.driver().look()  # owed; the manager dies before it sends
    web.plan(HANGS)
    sending = asyncio.ensure_future(world.driver().deliver("webhook"))
    async with asyncio.timeout(10):
        while not web.posts:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    sending.cancel()  # it dies after the receiver has it and before the answer is saved
    with pytest.raises(asyncio.CancelledError):
        await sending
    (row,) = await world.rows(tables.Delivery)
    assert (row.state, row.attempts) == ("pending", 1)
    await world.tell()
    assert len({verified(post)["id"] for post in web.posts}) == 1
    (row,) = await world.rows(tables.Delivery)
    assert (row.state, row.attempts, len(web.posts)) == ("delivered", 2, 2)


async def test_a_channel_that_is_down_for_a_day_raises_no_storm(make: Make, web: WebReceiver, mail: MailServer) -> None:
    world = await make({"webhook": webhook(web), "email": email(mail)}, escalation_hours=999)
    web.plan(*[502] * 500)
    for number in range(48):  # an alert every half an hour
        await world.alert(subject=f"digits@1.0.0 feature-{number}")
        await world.tell()
        world.after(minutes=30)
    assert len(mail.letters) == 48  # the other channel does not wait
    assert len(web.posts) < 32
    waiting = [row for row in await world.rows(tables.Delivery) if row.state == "pending"]
    assert len(waiting) < 12
    web.statuses.clear()
    before = len(web.posts)
    world.after(hours=1)
    await world.tell()
    documents = [verified(post) for post in web.posts[before:]]
    assert len(documents) == len(waiting)
    assert sum(len(one["alerts"]) + one["more"] for one in documents) == 48  # and none is lost
    assert all(row.state == "delivered" for row in await world.rows(tables.Delivery))


async def test_what_a_receiver_takes_apart_and_refuses_is_not_sent_again(make: Make, web: WebReceiver) -> None:
    world = await make({"webhook": webhook(web)})
    web.plan(422)
    await world.alert()
    await world.tell()
    await world.alert(subject="another")
    await world.tell()
    assert [row.state for row in await world.rows(tables.Delivery)].count("refused") == 1
    assert len(web.posts) == 2


async def test_what_cannot_be_delivered_for_days_is_given_up(make: Make, web: WebReceiver) -> None:
    world = await make({"webhook": webhook(web)}, escalation_hours=999)
    web.plan(500, 500)
    await world.alert()
    await world.tell()
    world.after(days=3)
    await world.tell()
    world.after(days=1)
    await world.tell()
    (row,) = await world.rows(tables.Delivery)
    assert (row.state, len(web.posts)) == ("given-up", 2)


async def test_without_notifications_nobody_is_told_but_alerts_go_on(make: Make, web: WebReceiver) -> None:
    world = await make({"webhook": webhook(web)}, enable_notifications=False, escalation_hours=1)
    await world.alert()
    await world.tell()
    world.after(hours=1)
    await world.tell()
    (row,) = await world.rows(tables.Alert)
    assert (row.state, row.told_at, web.posts) == ("escalated", None, [])
    assert all(notice.settled_at for notice in await world.rows(tables.AlertNotice))


async def test_only_the_channels_that_the_settings_name_are_told(
    make: Make, web: WebReceiver, mail: MailServer
) -> None:
    world = await make({"webhook": webhook(web), "email": email(mail)}, notification_channels=["email"])
    await world.alert()
    await world.tell()
    assert (len(mail.letters), len(web.posts)) == (1, 0)


@pytest.mark.parametrize("automatic", [True, False])
async def test_a_drift_asks_for_retraining_when_the_settings_say_so(
    make: Make, web: WebReceiver, automatic: bool
) -> None:
    channels = {"trainer": webhook(web, retraining=True)}
    world = await make(channels, notification_channels=[], auto_trigger_retraining=automatic)
    await world.alert()
    await world.alert(kind="security", subject="token", body={"token": "to-1"})
    await world.tell()
    await world.tell()
    asked = [verified(post) for post in web.posts]
    assert [(one["type"], one["model"], one["version"], one["features"]) for one in asked] == [
        ("flotilla-retraining-request/1", "digits", "1.0.0", ["input.brightness"])
    ] * automatic
    assert all(one["evidence"] == {"psi": 0.83, "samples": 240} for one in asked)


async def test_it_runs_until_it_is_ended_and_drops_what_waits_for_a_channel_that_is_gone(
    make: Make, web: WebReceiver, mail: MailServer
) -> None:
    before = await make({"email": email(mail), "webhook": webhook(web)})
    mail.busy = 1
    await before.alert(subject="long ago")
    await before.tell()
    world = await make({"webhook": webhook(web)})
    web.posts.clear()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.driver().run())
        await world.alert()
        world.hub.wake()
        async with asyncio.timeout(10):
            while not web.posts:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        running.cancel()
    gone = {row.channel: row.state for row in await world.rows(tables.Delivery)}
    assert gone["email"] == "given-up"
    assert [row.name for row in await world.rows(tables.ChannelState)] == ["webhook"]
