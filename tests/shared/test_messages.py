import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadInputError
from shared.messages import (
    MAX_PAYLOAD_BYTES,
    Ack,
    Announcement,
    DeviceState,
    FeatureCounts,
    HostMetrics,
    Message,
    Phase,
    SlotState,
    TelemetryWindow,
    UpdateReport,
)

NOW = datetime(2026, 11, 23, 10, 36, tzinfo=UTC)
EXAMPLES: list[Message] = [
    Announcement(timestamp="{}", assignment="{}"),
    Ack(stream="s", report=3, telemetry=9),
    DeviceState(device="dev-a", online=False),
    DeviceState(
        device="dev-a",
        online=True,
        boot="b",
        assignment=4,
        slots=(SlotState(slot="a", state="good", model="digits", version="1.0.0"),),
        serving={"digits": "1.0.0"},
        at=NOW,
    ),
    UpdateReport(
        device="dev-a",
        stream="s",
        sequence=2,
        after=1,
        at=NOW,
        assignment=7,
        phase=Phase.REFUSED,
        reason="E_SIGNATURE",
        took_ms=1.5,
    ),
    TelemetryWindow(
        device="dev-a",
        stream="s",
        sequence=1,
        at=NOW,
        boot="b",
        model="digits",
        version="1.0.0",
        manifest="ab" * 32,
        phase="serving",
        start=NOW,
        end=NOW,
        requests=3,
        errors={"timeout": 1},
        latency={-3: 1, 120: 2},
        features={"input.brightness": FeatureCounts(edges="e", counts=(1, 2), missing=1)},
        host=HostMetrics(cpu_ratio=0.25),
    ),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    assert type(message).parse(message.to_bytes()) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_fields_of_a_later_version_are_ignored(message: Message) -> None:
    document = json.loads(message.to_bytes()) | {"field_of_tomorrow": [1]}
    assert type(message).parse(json.dumps(document).encode()) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_of_another_type_is_refused(message: Message) -> None:
    document = json.loads(message.to_bytes()) | {"type": "something/9"}
    with pytest.raises(BadInputError):
        type(message).parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 5000,
        b'{"type":"ack/1"}',
        b'{"type":"ack/1","stream":"s","report":-1}',
        b'{"type":"ack/1","stream":"s","report":1.5}',
        b'{"type":"ack/1","stream":"s"}' + b" " * MAX_PAYLOAD_BYTES,
    ],
)
def test_what_is_no_ack_is_refused(payload: bytes) -> None:
    with pytest.raises(BadInputError):
        Ack.parse(payload)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "../etc"),
        ("device", "+"),
        ("at", "2026-11-23T10:36:00"),
        ("requests", -1),
        ("manifest", "x"),
        ("version", "latest"),
        ("phase", "other"),
        ("latency", {"x": 1}),
        ("features", {"f": {"edges": "e", "counts": [0] * 1025}}),
        ("host", {"cpu_ratio": "NaN"}),
    ],
)
def test_a_window_with_a_bad_field_is_refused(field: str, value: object) -> None:
    document = json.loads(EXAMPLES[-1].to_bytes()) | {field: value}
    with pytest.raises(BadInputError, match=field):
        TelemetryWindow.parse(json.dumps(document).encode())


@given(payload=st.binary(max_size=300))
def test_any_bytes_give_a_message_or_a_refusal(payload: bytes) -> None:
    for kind in (Announcement, Ack, DeviceState, UpdateReport, TelemetryWindow):
        try:
            kind.parse(payload)
        except BadInputError as error:
            assert kind.__name__ in error.detail  # noqa: PT017 (nothing else may be raised)


def test_final_phases_are_those_after_which_nothing_follows() -> None:
    assert {phase.value for phase in Phase if phase.final} == {
        "committed",
        "refused",
        "failed",
        "rolled-back",
        "cancelled",
    }
