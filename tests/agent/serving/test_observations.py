import struct

import pytest

from agent.serving import worker_wire
from agent.serving.backoff import Backoff
from agent.serving.observations import ERRORS, Feedback, Finished, Sample, pack, unpack


@pytest.mark.parametrize("error", ERRORS)
def test_observations_survive_the_way_to_the_daemon(error: str | None) -> None:
    features = {"input.mean": (1.0, 2.5), "class.predicted": (3.0, 4.0)}
    packed = worker_wire.pack_features_head(list(features), 2) + struct.pack("<4d", 1.0, 2.5, 3.0, 4.0)
    data = pack(Finished("m", "1.0.0", "ä", 1.5, error, packed, 8))
    told = [Feedback("m", "1.0.0", "q", False, 7, 3), Feedback("m", "1.0.0", "q", correct=False)]
    data += b"".join(map(pack, told))
    assert unpack(data) == [Sample("m", "1.0.0", "ä", 1.5, error, features, 8), *told]
    assert unpack(b"") == []


@pytest.mark.parametrize("label", [-3, 2**31, 10**30])
def test_a_label_that_is_no_class_is_told_as_none(label: int) -> None:
    assert unpack(pack(Feedback("m", "1", "q", False, label, 3))) == [Feedback("m", "1", "q", False, -1, 3)]


def test_messages_between_front_and_worker_survive() -> None:
    request = worker_wire.Request(2**60, 7, 16, 2**40, worker_wire.NO_HEADER)
    assert worker_wire.unpack_request(worker_wire.pack_request(request)) == request
    reply = worker_wire.Reply(9, 200, worker_wire.OK, 100, 30, 1, 2, 3, 4, 5, 1, "id", (4, -1))
    assert worker_wire.unpack_answer(worker_wire.pack_reply(reply)) == reply
    traces = [worker_wire.Trace(number, b"abc" * 9000) for number in range(9)]
    messages = list(worker_wire.pack_traces(traces))
    assert max(map(len, messages)) <= worker_wire.MAX_MESSAGE
    found = [worker_wire.unpack_answer(message) for message in messages]
    assert [trace for entries in found if isinstance(entries, list) for trace in entries] == traces


def test_an_endless_id_is_not_carried() -> None:
    reply = worker_wire.Reply(1, 200, worker_wire.OK, 1, 1, request_id="x" * 300)
    found = worker_wire.unpack_answer(worker_wire.pack_reply(reply))
    assert isinstance(found, worker_wire.Reply)
    assert found.request_id == ""


def test_restarts_come_ever_later_until_one_lives_long() -> None:
    backoff = Backoff()
    delays = [backoff.delay(0.1) for _ in range(9)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == 30
    assert backoff.delay(61) == 0
