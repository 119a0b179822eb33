import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import OutboxError
from agent.telemetry.outbox import Kind, Outbox
from agent.telemetry.window import Stamp
from shared.clock import SystemClock
from shared.messages import Phase, Queued, TelemetryWindow, UpdateReport

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def report(detail: str = "") -> Callable[[Stamp], Queued]:
    return lambda stamp: UpdateReport(
        device=stamp.device,
        stream=stamp.stream,
        sequence=stamp.sequence,
        at=stamp.at,
        assignment=1,
        phase=Phase.FETCHING,
        detail=detail,
    )


def window(padding: int = 0) -> Callable[[Stamp], Queued]:
    return lambda stamp: TelemetryWindow(
        device=stamp.device,
        stream=stamp.stream,
        sequence=stamp.sequence,
        at=stamp.at,
        boot="x" * padding,
        model="m",
        version="1",
        manifest="0" * 64,
        phase="serving",
        start=NOW,
        end=NOW,
        requests=1,
    )


def opened(folder: Path, limit_bytes: int = 1_000_000) -> Outbox:
    return Outbox(folder / "outbox.sqlite", device="dev-a", limit_bytes=limit_bytes, clock=SystemClock())


def sequences(outbox: Outbox, kind: Kind, after: int = 0) -> list[tuple[int, int]]:
    return [(message.sequence, message.after) for message in outbox.peek(kind, after, 1000)]


def test_messages_come_out_in_order_and_name_the_one_before(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    assert [outbox.put(Kind.REPORT, report()) for _ in range(3)] == [1, 2, 3]
    assert sequences(outbox, Kind.REPORT) == [(1, 0), (2, 1), (3, 2)]
    assert sequences(outbox, Kind.REPORT, after=1) == [(2, 1), (3, 2)]
    assert [message.sequence for message in outbox.peek(Kind.REPORT, 0, 2)] == [1, 2]


def test_the_two_lines_count_apart(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    assert (outbox.put(Kind.REPORT, report()), outbox.put(Kind.TELEMETRY, window())) == (1, 1)
    assert isinstance(outbox.peek(Kind.REPORT, 0, 1)[0], UpdateReport)
    assert isinstance(outbox.peek(Kind.TELEMETRY, 0, 1)[0], TelemetryWindow)


def test_only_an_acknowledgement_of_something_said_forgets(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    for _ in range(3):
        outbox.put(Kind.REPORT, report())
    assert not outbox.acknowledged(Kind.REPORT, 0)
    assert not outbox.acknowledged(Kind.REPORT, 4)
    assert not outbox.acknowledged(Kind.TELEMETRY, 2)
    assert outbox.acknowledged(Kind.REPORT, 2)
    assert not outbox.acknowledged(Kind.REPORT, 2)
    assert sequences(outbox, Kind.REPORT) == [(3, 2)]


def test_a_restart_keeps_stream_sequences_and_messages(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.put(Kind.REPORT, report("one"))
    outbox.put(Kind.REPORT, report("two"))
    outbox.acknowledged(Kind.REPORT, 1)
    stream = outbox.stream
    outbox.close()
    outbox = opened(tmp_path)
    assert outbox.stream == stream
    assert outbox.put(Kind.REPORT, report("three")) == 3
    assert sequences(outbox, Kind.REPORT) == [(2, 1), (3, 2)]
    assert outbox.depth(Kind.REPORT).acked == 1


def test_sequences_do_not_repeat_after_everything_was_acknowledged(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.put(Kind.REPORT, report())
    outbox.acknowledged(Kind.REPORT, 1)
    outbox.close()
    assert opened(tmp_path).put(Kind.REPORT, report()) == 2


def test_another_file_is_another_stream(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert opened(tmp_path).stream != opened(tmp_path / "b").stream


def test_the_oldest_telemetry_is_shed_and_the_chain_shows_no_gap(tmp_path: Path) -> None:
    outbox = opened(tmp_path, limit_bytes=5000)
    for _ in range(20):
        outbox.put(Kind.TELEMETRY, window(padding=1000))
    depth = outbox.depth(Kind.TELEMETRY)
    assert 0 < depth.waiting < 5
    assert depth.shed == 20 - depth.waiting
    found = sequences(outbox, Kind.TELEMETRY)
    assert found[0] == (depth.shed + 1, 0)  # 0: what the manager has; nothing between is missed
    assert found[-1] == (20, 19)


def test_reports_are_never_shed(tmp_path: Path) -> None:
    outbox = opened(tmp_path, limit_bytes=100)
    for _ in range(20):
        outbox.put(Kind.REPORT, report("x" * 1000))
    assert outbox.depth(Kind.REPORT).waiting == 20
    assert outbox.depth(Kind.REPORT).shed == 0


def test_a_full_disk_costs_telemetry_before_a_report(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    for _ in range(30):
        outbox.put(Kind.TELEMETRY, window(padding=4000))
    outbox._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
    outbox._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutboxError):  # noqa: PT012 (the first that does not fit)
        for _ in range(30):
            outbox.put(Kind.TELEMETRY, window(padding=4000))
    for _ in range(5):
        outbox.put(Kind.REPORT, report("x" * 4000))
    assert outbox.depth(Kind.REPORT).waiting == 5
    assert outbox.depth(Kind.TELEMETRY).shed > 0


def test_a_report_that_fits_nowhere_is_an_error(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
    outbox._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutboxError):  # noqa: PT012 (the first that does not fit)
        for _ in range(50):
            outbox.put(Kind.REPORT, report("x" * 4000))


def test_a_message_that_cannot_be_built_leaves_no_hole(tmp_path: Path) -> None:
    outbox = opened(tmp_path)

    def fail(_: Stamp) -> Queued:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outbox.put(Kind.REPORT, fail)
    assert outbox.put(Kind.REPORT, report()) == 1


def test_a_damaged_file_is_set_aside_and_a_new_stream_begins(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"not a database" * 100)
    outbox = opened(tmp_path)
    assert outbox.put(Kind.REPORT, report()) == 1
    assert (tmp_path / "outbox.sqlite.damaged").read_bytes().startswith(b"not a database")


def test_every_put_is_synced_to_the_disk(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    assert outbox._database.execute("PRAGMA synchronous").fetchone()[0] == 2
    outbox.put(Kind.REPORT, report())
    other = sqlite3.connect(tmp_path / "outbox.sqlite")
    assert other.execute("SELECT count(*) FROM message").fetchone()[0] == 1
    other.close()


def test_how_much_was_shed_is_told_with_what_is_sent(tmp_path: Path) -> None:
    outbox = opened(tmp_path, limit_bytes=5000)
    outbox.put(Kind.TELEMETRY, window())
    assert told(outbox) == [0]
    for _ in range(20):
        outbox.put(Kind.TELEMETRY, window(padding=1000))
    assert set(told(outbox)) == {outbox.depth(Kind.TELEMETRY).shed}


def told(outbox: Outbox) -> list[int]:
    return [message.shed for message in outbox.peek(Kind.TELEMETRY, 0, 100) if isinstance(message, TelemetryWindow)]


def test_the_newest_draft_becomes_a_message_when_nobody_finished_it(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.keep("m@1", window(padding=1))
    outbox.keep("m@1", window(padding=2))
    outbox.keep("n@1", window(padding=3))
    outbox.put(Kind.TELEMETRY, window(padding=4), instead_of="n@1")
    outbox.close()
    again = opened(tmp_path)
    found = [message for message in again.peek(Kind.TELEMETRY, 0, 9) if isinstance(message, TelemetryWindow)]
    assert [(message.sequence, message.boot) for message in found] == [(1, "xxxx"), (2, "xx")]
    again.close()
    assert len(opened(tmp_path).peek(Kind.TELEMETRY, 0, 9)) == 2
