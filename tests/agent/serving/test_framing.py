import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.serving import framing
from agent.serving.framing import Data, End, FramingError, Head, Stream

REQUESTS = {
    "plain get": b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "with body": b"POST /v2/models/m/infer?x=1 HTTP/1.1\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
    "chunked": b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;x=y\r\nwiki\r\nA\r\n0123456789\r\n0\r\nT: r\r\n\r\n",
    "empty chunked": b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "old": b"\r\nGET / HTTP/1.0\r\n\r\n",
    "closing": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
}


def told(pieces: list[bytes]) -> list[object]:
    """Events of a stream fed in these pieces, neighbouring pieces of bodies joined; errors as their text."""
    stream, found = Stream(), []
    for piece in pieces:
        stream.feed(piece)
        again = True
        while again:
            again = False
            try:
                for event in stream.events():
                    again = again or isinstance(event, End)
                    if isinstance(event, Data) and found and isinstance(found[-1], Data):
                        event = Data(found.pop().piece + event.piece)
                    found.append(event)
            except FramingError as error:
                return [*found, (error.status, str(error))]
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_one_byte_at_a_time_equals_all_at_once(name: str) -> None:
    data = REQUESTS[name]
    assert told([data[i : i + 1] for i in range(len(data))]) == told([data])
    assert isinstance(told([data])[-1], End)


@given(st.permutations(list(REQUESTS.values())), st.lists(st.integers(0, 400), max_size=12))
def test_any_cut_of_requests_sent_ahead_gives_the_same_events(requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    marks = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(marks)]
    assert told(pieces) == told([data])


@given(st.binary(max_size=300))
def test_any_bytes_give_events_or_a_framing_error(data: bytes) -> None:
    told([data])
    told([b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", data])


def test_head_says_what_matters() -> None:
    head = told([REQUESTS["with body"]])[0]
    assert isinstance(head, Head)
    assert (head.method, head.path, head.length, head.keep_alive) == ("POST", "/v2/models/m/infer", 5, True)
    assert head.headers["x-a"] == "b"
    assert told([REQUESTS["chunked"]])[1] == Data(b"wiki0123456789")
    assert not told([REQUESTS["old"]])[0].keep_alive
    assert not told([REQUESTS["closing"]])[0].keep_alive


def test_body_may_be_received_elsewhere() -> None:
    stream = Stream()
    stream.feed(b"POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
    assert [type(event) for event in stream.events()] == [Head, Data]
    assert stream.missing == 7
    assert not stream.skip(4)
    assert stream.skip(3)
    assert not stream.midway


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"G(T / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * framing.MAX_HEAD, 431),
    ],
)
def test_what_is_not_http_is_refused(data: bytes, status: int) -> None:
    last = told([data])[-1]
    assert isinstance(last, tuple)
    assert last[0] == status


def test_compressed_bodies_are_opened_within_a_limit() -> None:
    plain = b"x" * 5000
    machine = zlib.compressobj(wbits=31)
    packed = machine.compress(plain) + machine.flush()
    assert framing.inflate(packed, "gzip", 5000) == plain
    assert framing.inflate(zlib.compress(plain), "deflate", 5000) == plain
    for data, coding, limit, status in (
        (packed, "gzip", 4999, 413),
        (packed[:-9], "gzip", 5000, 400),
        (b"junk", "gzip", 10, 400),
        (b"", "br", 10, 415),
    ):
        with pytest.raises(FramingError) as caught:
            framing.inflate(data, coding, limit)
        assert caught.value.status == status
