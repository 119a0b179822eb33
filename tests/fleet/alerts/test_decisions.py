"""What is decided without a database: silences, the course of alerts, who is told what, when it is tried again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.alerts import course, notices, retrying
from fleet.alerts.matching import Matcher, Silence, Traits, covering
from fleet.alerts.notices import MAX_ITEMS, Notice, Route
from fleet.alerts.retrying import Waiting
from fleet.alerts.states import MOVES, Event, State
from fleet.store.alerts import LIVE

T0 = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TRAITS = Traits("drift", "device:cam-1", "digits@1.0.0 input.*", "high", {"site": "gate", "line": "3"})


def test_live_states_of_the_store_are_those_that_may_still_move() -> None:
    assert set(LIVE) == {state.value for state in State if MOVES[state]}


@pytest.mark.parametrize(
    ("matcher", "fits"),
    [
        ({"kind": "drift"}, True),
        ({"kind": "dr*", "scope": "device:*"}, True),
        ({"subject": "digits@* input.*"}, True),
        ({"severity": "high", "labels": {"site": "g?te"}}, True),
        ({"kind": "drift", "severity": "low"}, False),
        ({"labels": {"site": "gate", "room": "*"}}, False),
        ({"scope": "fleet"}, False),
    ],
)
def test_a_silence_covers_what_fits_in_every_point(matcher: dict[str, Any], fits: bool) -> None:
    assert Matcher.model_validate(matcher).fits(TRAITS) is fits


def test_a_matcher_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="name one of kind"):
        Matcher.model_validate({"labels": {}})


def test_one_cause_is_matched_by_its_very_signs() -> None:
    exact = Matcher.exactly(TRAITS.kind, TRAITS.scope, TRAITS.subject)
    assert exact.fits(TRAITS)
    assert not exact.fits(Traits("drift", "device:cam-1", "digits@1.0.0 input.contrast", "high", {}))


def test_the_silence_that_holds_longest_covers_and_one_that_is_over_does_not() -> None:
    every = Matcher(kind="*")
    short, long_ = Silence("si-1", every, T0 + DAY), Silence("si-2", every, T0 + 2 * DAY)
    assert covering([short, long_], TRAITS, T0) == long_
    assert covering([short, long_], TRAITS, T0 + 2 * DAY) is None


@pytest.mark.parametrize(
    ("state", "hours", "silenced", "event"),
    [
        (State.OPEN, 1, False, None),
        (State.OPEN, 24, False, Event.ESCALATE),
        (State.OPEN, 24, True, Event.SILENCE),
        (State.ESCALATED, 99, False, None),
        (State.ESCALATED, 99, True, Event.SILENCE),
        (State.SILENCED, 99, True, None),
        (State.SILENCED, 99, False, Event.UNSILENCE),
        (State.ACKNOWLEDGED, 99, False, None),
        (State.ACKNOWLEDGED, 99, True, None),
    ],
)
def test_the_course_of_an_alert(state: State, hours: float, silenced: bool, event: Event | None) -> None:
    silences = [Silence("si-1", Matcher(kind="drift"), T0 + 9 * DAY)] if silenced else []
    live = course.Live("al-1", state, T0, TRAITS)
    found = list(course.moves([live], silences, T0 + timedelta(hours=hours), timedelta(hours=24)))
    assert [move.event for move in found] == ([event] if event else [])


def notice(number: int, alert: str = "al-1", event: str = "opened", **changes: Any) -> Notice:
    values: dict[str, Any] = {
        "id": number, "alert": alert, "event": event, "severity": "high", "text": "t", "at": T0, "kind": "drift",
        "scope": "device:cam-1", "subject": "s", "site": "gate", "silenced": False, "told": False,
        "body": {"model": "digits", "version": "1.0.0", "feature": "f", "psi": 0.5, "drifted": True},
    }  # fmt: skip
    return Notice(**(values | changes))


def route(channel: str = "web", **changes: Any) -> Route:
    values: dict[str, Any] = {
        "channel": channel, "min_severity": "low", "notified": True, "retraining": False,
        "events": frozenset({"opened", "worsened", "escalated", "resolved"}),
    }  # fmt: skip
    return Route(**(values | changes))


def settle(*found: Notice, routes: list[Route], seconds: float = 30) -> notices.Settled:
    now = T0 + timedelta(seconds=seconds)
    return notices.settle(found, routes, now, wait=timedelta(seconds=30), window=DAY)


def test_one_cause_on_many_devices_is_one_message_and_another_site_is_another() -> None:
    found = settle(
        notice(1), notice(2, "al-2"), notice(3, "al-3", site="yard"), notice(4, "al-4", body={"rollout": "ro-1"}),
        routes=[route()],
    )  # fmt: skip
    assert [[item["alert"] for item in owed.body["items"]] for owed in found.owed] == [
        ["al-1", "al-2"],
        ["al-3"],
        ["al-4"],
    ]
    assert [owed.group for owed in found.owed] == [
        "drift/digits@1.0.0/gate",
        "drift/digits@1.0.0/yard",
        "drift/ro-1/gate",
    ]
    assert sorted(found.notices) == [1, 2, 3, 4]


def test_a_group_waits_for_its_others() -> None:
    assert settle(notice(1), routes=[route()], seconds=29) == notices.Settled()


def test_deciding_again_owes_the_same_messages() -> None:
    assert settle(notice(1), routes=[route()]) == settle(notice(1), routes=[route()], seconds=99)


@pytest.mark.parametrize(
    ("found", "events"),
    [
        ([notice(1, silenced=True)], []),
        ([notice(1), notice(2, event="resolved")], []),  # over before anybody was told
        ([notice(2, event="resolved", told=True)], ["resolved"]),
        ([notice(1), notice(2, event="worsened")], ["opened"]),
        ([notice(2, event="worsened", told=True)], ["worsened"]),
        ([notice(2, event="worsened", told=True), notice(3, event="escalated", told=True)], ["escalated"]),
    ],
)
def test_the_last_word_on_an_alert_is_told(found: list[Notice], events: list[str]) -> None:
    decided = settle(*found, routes=[route()])
    assert [item["event"] for owed in decided.owed for item in owed.body["items"]] == events
    assert decided.notices == tuple(one.id for one in found)


def test_each_channel_hears_what_it_wants() -> None:
    routes = [
        route("all"),
        route("grave", min_severity="critical"),
        route("late", events=frozenset({"escalated"})),
        route("off", notified=False),
    ]
    found = settle(notice(1), routes=routes)
    assert [owed.channel for owed in found.owed] == ["all"]
    assert found.told == {"al-1"}
    assert settle(notice(1), routes=routes[1:]).told == frozenset()


def test_retraining_is_asked_for_once_for_each_alert_with_its_numbers() -> None:
    trainer = route("ml", notified=False, retraining=True)
    (first,) = settle(notice(1), routes=[trainer]).owed
    (again,) = settle(notice(7, at=T0 + DAY), routes=[trainer], seconds=1e6).owed
    assert first.id == again.id
    assert first.body["evidence"] == {"psi": 0.5}
    assert first.body["features"] == ["f"]
    assert first.body["window"] == {"from": "2025-12-31T00:00:00.000Z", "to": "2026-01-01T00:00:00.000Z"}
    for other in ({"kind": "security"}, {"event": "escalated"}, {"silenced": True}, {"body": {"psi": 1}}):
        assert settle(notice(1, **other), routes=[trainer]).owed == ()
    assert settle(notice(1, body={"model": "m", "retraining": False}), routes=[trainer]).owed == ()


def test_a_message_that_grows_keeps_the_last_word_and_counts_what_it_leaves_out() -> None:
    many = [{"alert": f"al-{number}", "event": "opened"} for number in range(MAX_ITEMS + 5)]
    body = notices.merged({}, many)
    assert (len(body["items"]), body["more"]) == (MAX_ITEMS, 5)
    body = notices.merged(body, [{"alert": "al-0", "event": "resolved"}])
    assert body["items"][0] == {"alert": "al-0", "event": "resolved"}
    assert body["more"] == 5


def test_pauses_double_up_to_an_hour_and_chance_takes_off_up_to_a_half() -> None:
    assert [retrying.pause(failures, 0).total_seconds() for failures in (1, 2, 3, 7, 8, 999)] == [
        30, 60, 120, 1920, 3600, 3600,
    ]  # fmt: skip
    assert retrying.pause(1, 1).total_seconds() == 15


def test_the_oldest_goes_first_but_does_not_hold_up_the_others_for_ever() -> None:
    old, new = Waiting("a", 3, T0), Waiting("b", 0, T0 + DAY)
    assert retrying.next_of([new, old], None, T0) == old
    assert retrying.next_of([new, Waiting("a", 4, T0)], None, T0) == new
    assert retrying.next_of([old], T0 + DAY, T0) is None
    assert retrying.next_of([], None, T0) is None
    assert not retrying.hopeless(old, T0 + 2 * DAY)
    assert retrying.hopeless(old, T0 + 3 * DAY)
