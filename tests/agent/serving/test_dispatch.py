from agent.serving.dispatch import WINDOW, Dispatch, Drained, GiveUp, Refusal, Send, Stop, Ticket

OLD, NEW = ("m", "1"), ("m", "2")


def table(*up: tuple[str, str], limit: int = 4) -> Dispatch:
    made = Dispatch(queue_limit=limit, timeout_seconds=10)
    for key in up:
        made.attach(key, 0.0)
    if up:
        made.route("m", up[0][1], 0.0)
    return made


def ticket(number: int, version: str | None = None) -> Ticket:
    return Ticket(number, "m", version, deadline=10.0)


def test_nothing_loaded_is_unavailable_and_another_model_unknown() -> None:
    empty = table().submit(ticket(1), 0.0)
    assert isinstance(empty, Refusal)
    assert empty.status == 503
    other = table(OLD).submit(Ticket(1, "x", None, 10.0), 0.0)
    assert isinstance(other, Refusal)
    assert (other.status, other.text) == (404, "Request for unknown model: 'x' is not found")
    version = table(OLD).submit(ticket(1, "9"), 0.0)
    assert isinstance(version, Refusal)
    assert version.text == "Request for unknown model: 'm' version 9 is not found"


def test_a_loaded_but_unrouted_model_is_not_ready() -> None:
    made = Dispatch(queue_limit=4, timeout_seconds=10)
    made.attach(OLD, 0.0)
    refusal = made.submit(ticket(1), 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 503
    sent = made.submit(ticket(2, "1"), 0.0)
    assert [action.key for action in sent] == [OLD]


def test_the_routed_version_answers_and_a_route_change_takes_effect_at_once() -> None:
    made = table(OLD, NEW)
    first = ticket(1)
    assert made.submit(first, 0.0) == [Send(OLD, first)]
    assert made.route("m", "2", 0.0) == []
    second = ticket(2)
    assert made.submit(second, 0.0) == [Send(NEW, second)]
    assert made.answered(OLD, 1, 0.1)[0] is first


def test_window_then_queue_then_busy() -> None:
    made = table(OLD, limit=2)
    sent = [made.submit(ticket(number), 0.0) for number in range(WINDOW + 2)]
    assert sum(map(len, sent)) == WINDOW
    assert made.waiting == 2
    refusal = made.submit(ticket(99), 0.0)
    assert isinstance(refusal, Refusal)
    assert (refusal.error, refusal.status) == ("busy", 503)
    _, actions = made.answered(OLD, 0, 0.1)
    assert [action.ticket.number for action in actions] == [WINDOW]


def test_death_sends_requests_to_the_stand_by_in_order_and_last_the_one_that_may_have_caused_it() -> None:
    made = table(NEW, OLD)
    tickets = [ticket(number) for number in range(3)]
    for entry in tickets:
        made.submit(entry, 0.0)
    assert made.lost(NEW, 1.0) == [Send(OLD, entry) for entry in (*tickets[1:], tickets[0])]
    assert [entry.retried for entry in tickets] == [True, False, False]
    assert made.answering("m") == "1"
    made.attach(NEW, 2.0)
    assert made.answering("m") == "2"


def test_death_of_the_only_worker_makes_requests_wait_for_the_next() -> None:
    made = table(OLD)
    entry = ticket(1)
    made.submit(entry, 0.0)
    assert made.lost(OLD, 1.0) == []
    assert made.waiting == 1
    assert made.attach(OLD, 2.0) == [Send(OLD, entry)]


def test_a_request_that_kills_two_workers_is_given_up_and_the_others_are_not() -> None:
    made = table(NEW, OLD)
    poison, good = ticket(1), ticket(2)
    made.submit(poison, 0.0)
    made.submit(good, 0.0)
    made.lost(NEW, 1.0)
    later = ticket(3)
    made.submit(later, 1.5)
    assert made.answered(OLD, good.number, 1.6)[0] is good
    assert made.lost(OLD, 2.0) == [GiveUp(poison, "worker-died")]
    assert made.attach(OLD, 3.0) == [Send(OLD, later)]


def test_a_hanging_worker_is_stopped_once_and_its_request_tried_elsewhere() -> None:
    made = table(NEW, OLD)
    entry, later = ticket(1), ticket(2)
    made.submit(entry, 0.0)
    assert made.expire(9.9) == []
    assert made.expire(10.1) == [Stop(NEW)]
    assert made.expire(10.2) == []
    assert made.submit(later, 10.3) == [Send(OLD, later)]  # nothing more for the one that hangs
    assert made.lost(NEW, 10.4) == [Send(OLD, entry)]


def test_the_time_that_a_hanging_worker_took_from_others_is_given_back_once() -> None:
    made = table(OLD)
    held, queued = [ticket(number) for number in range(WINDOW)], [ticket(50), ticket(51, "1")]
    for entry in (*held, *queued):
        made.submit(entry, 0.0)
    assert made.expire(10.1) == [Stop(OLD)]  # nobody else is given up, although all are late
    assert [entry.deadline for entry in (*held[1:], *queued)] == [20.1] * (WINDOW + 1)
    made.lost(OLD, 10.2)
    made.attach(OLD, 10.3)
    assert made.expire(20.5) == [Stop(OLD), GiveUp(queued[1], "timeout")]  # another one hangs: not once more


def test_time_is_given_back_only_to_who_waits_for_the_version_that_hangs() -> None:
    made = table(OLD, NEW)
    made.submit(ticket(1), 0.0)
    other = [ticket(number, "2") for number in range(10, 11 + WINDOW)]
    for entry in other:
        made.submit(entry, 5.0)
    assert made.expire(10.1) == [Stop(OLD), GiveUp(other[-1], "timeout")]


def test_waiting_is_bounded_in_time() -> None:
    made = table(OLD)
    made.lost(OLD, 0.0)
    entry = ticket(1)
    assert made.submit(entry, 0.0) == []
    assert made.expire(10.1) == [GiveUp(entry, "timeout")]
    assert not made.busy


def test_unloading_drains_and_then_gives_up_what_asked_for_it() -> None:
    made = table(NEW, OLD)
    held, pinned = ticket(1, "1"), [ticket(number, "1") for number in range(10, 10 + WINDOW)]
    made.submit(held, 0.0)
    for entry in pinned:
        made.submit(entry, 0.0)
    assert made.detach(OLD, 1.0) == []
    for entry in (held, *pinned[:-2]):
        assert made.answered(OLD, entry.number, 1.0)[1] == []
    last = made.answered(OLD, pinned[-2].number, 1.0)[1]
    assert last == [Drained(OLD), GiveUp(pinned[-1], "gone")]
    assert made.versions() == [NEW]


def test_unloading_the_routed_version_leaves_no_route() -> None:
    made = table(OLD)
    assert made.detach(OLD, 1.0) == [Drained(OLD)]
    assert made.routes == {}
    assert made.detach(OLD, 1.0) == [Drained(OLD)]


def test_a_client_that_left_is_not_waited_for() -> None:
    made = table(OLD)
    entry = ticket(1)
    made.submit(entry, 0.0)
    entry.gone = True
    assert made.lost(OLD, 1.0) == [GiveUp(entry, "worker-died")]


def test_requests_for_a_held_model_wait_for_the_next_version_and_keep_their_order() -> None:
    made = table(OLD)
    made.hold("m")
    assert made.detach(OLD, 0.0) == [Drained(OLD)]
    held = [ticket(number) for number in range(3)]
    assert [made.submit(entry, 0.0) for entry in held] == [[], [], []]
    assert made.attach(NEW, 0.1) == []
    assert made.route("m", "2", 0.2) == [Send(NEW, entry) for entry in held]
    made.detach(NEW, 0.3)
    assert made.check("m", None) is not None  # the route ended the hold


def test_a_hold_is_bounded_by_the_queue_and_by_time() -> None:
    made = table(OLD, limit=2)
    made.hold("m")
    made.detach(OLD, 0.0)
    first, second = ticket(1), ticket(2)
    for entry in (first, second):
        made.submit(entry, 0.0)
    refusal = made.submit(ticket(3), 0.0)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.retry_seconds) == (503, 1)
    assert made.expire(10.0) == [GiveUp(first, "timeout"), GiveUp(second, "timeout")]


def test_a_hold_ends_with_a_reason_when_nothing_can_serve() -> None:
    made = table(OLD)
    made.hold("m")
    made.detach(OLD, 0.0)
    waiting = ticket(1)
    made.submit(waiting, 0.0)
    assert made.explain("m", "both slots are bad", 0.1) == [GiveUp(waiting, "gone")]
    for refusal in (made.check("m", None), made.check("", None)):
        assert refusal is not None
        assert (refusal.status, refusal.text, refusal.retry_seconds) == (503, "both slots are bad", 30)
    assert made.explain("m", "", 0.2) == []
    refusal = made.check("m", None)
    assert refusal is not None
    assert "waits for its first release" in refusal.text


def test_the_trouble_of_one_model_does_not_hide_another() -> None:
    made = table(OLD)
    made.explain("x", "broken", 0.0)
    assert made.check("m", None) is None
    refused = made.check("x", None)
    unknown = made.check("y", None)
    assert refused is not None
    assert unknown is not None
    assert (refused.status, unknown.status) == (503, 404)


def batching(*up: tuple[str, str], rows: int = 3) -> Dispatch:
    made = table(*up, limit=40)
    for key in up:
        made.expect(key, rows)
    return made


def test_all_that_may_have_run_together_are_tried_again_one_at_a_time() -> None:
    made = batching(OLD)
    asked = [ticket(number) for number in range(5)]
    for entry in asked:
        made.submit(entry, 0.0)
    assert made.lost(OLD, 1.0) == []
    assert [entry.alone for entry in asked] == [True, True, True, False, False]
    sent = made.attach(OLD, 2.0)
    assert [action.ticket.number for action in sent] == [3, 4, 0, 1, 2]
    for number in (3, 4, 0):
        made.answered(OLD, number, 2.1)
    (given_up,) = made.lost(OLD, 3.0)  # the second kills again, by itself
    assert given_up == GiveUp(asked[1], "worker-died")
    made.attach(OLD, 4.0)
    assert made.answered(OLD, 2, 4.1)[0] is asked[2]
    assert not asked[3].retried


def test_a_request_that_goes_alone_is_the_only_suspect() -> None:
    made = batching(OLD)
    first, second = ticket(1), ticket(2)
    first.alone = True
    made.submit(first, 0.0)
    made.submit(second, 0.0)
    made.lost(OLD, 1.0)
    assert first.retried
    assert not second.retried


def test_a_worker_that_joins_holds_two_batches() -> None:
    made = batching(OLD, rows=16)
    sent = [made.submit(ticket(number), 0.0) for number in range(40)]
    assert sum(len(entry) for entry in sent if isinstance(entry, list)) == 32


def test_the_queue_is_bounded_for_each_model() -> None:
    made = Dispatch(queue_limit=2, timeout_seconds=10)
    for model in ("a", "b"):
        made.expect((model, "1"))
        made.route(model, "1", 0.0)
    taken = [made.submit(Ticket(number, "a", None, 10.0), 0.0) for number in range(3)]
    assert [isinstance(entry, Refusal) for entry in taken] == [False, False, True]
    assert made.submit(Ticket(9, "b", None, 10.0), 0.0) == []


def test_what_one_model_cannot_answer_another_version_tries_once_under_a_new_number() -> None:
    made = table(NEW, OLD)
    asked = ticket(1)
    made.submit(asked, 0.0)
    assert made.elsewhere(NEW, 1, 2, 0.1) == [Send(OLD, asked)]
    assert (asked.number, asked.held_by, asked.began) == (2, OLD, 0.1)
    assert made.answered(NEW, 1, 0.2) == (None, [])  # it has nothing more to do with it
    assert made.elsewhere(OLD, 2, 3, 0.3) is None  # once is enough
    assert made.answered(OLD, 2, 0.3)[0] is asked


def test_nobody_else_tries_what_named_its_version_or_has_no_client_or_no_stand_by() -> None:
    made = table(NEW, OLD)
    named, left = ticket(1, "2"), ticket(2)
    for asked in (named, left):
        made.submit(asked, 0.0)
    left.gone = True
    assert [made.elsewhere(NEW, number, 9, 0.1) for number in (1, 2, 3)] == [None, None, None]
    alone = table(OLD)
    alone.submit(ticket(1), 0.0)
    assert alone.elsewhere(OLD, 1, 2, 0.1) is None


def test_a_version_that_hands_on_its_last_request_takes_the_next_and_may_leave() -> None:
    made = table(NEW, OLD)
    first, second = ticket(1), ticket(2)
    made.submit(first, 0.0)
    made.submit(second, 0.0)
    made.route("m", "1", 0.0)
    made.detach(NEW, 0.0)
    made.elsewhere(NEW, 1, 3, 0.1)
    assert second.began == 0.1
    assert made.elsewhere(NEW, 2, 4, 0.2) == [Drained(NEW), Send(OLD, second)]
