"""The compact form of telemetry windows: the same window, in few bytes."""

import json
import zlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import compact, compact_split, compact_wire
from shared.errors import BadInputError
from shared.messages import FeatureCounts, HostMetrics, TelemetryWindow
from shared.sketches import add

NOW = datetime(2026, 11, 23, 10, 36, 7, 123000, tzinfo=UTC)
IMAGE = ("brightness", "contrast", "saturation", "sharpness")
NAMES = (
    "class.predicted",
    *(f"embedding.{number}" for number in range(12)),
    *(f"input.{name}" for name in IMAGE),
    *(f"output.{name}" for name in ("confidence", "entropy", "margin")),
)
ORIN = HostMetrics(
    cpu_ratio=0.41,
    memory_used_bytes=3_221_225_472,
    memory_total_bytes=7_990_149_120,
    disk_free_bytes=20 * 2**30,
    gpu_ratio=0.37,
    temperature_celsius=51.2,
    swap_used_bytes=0,
    power_watts=6.04,
    fan_ratio=0.33,
    power_mode="2",
    cores_ratio=(0.5, 0.41, 0.3, 0.44, 0.02, 0.0),
    engines_mhz={"NVDEC": 0.0, "NVENC": 0.0, "NVJPG": 0.0, "OFA": 0.0, "VIC": 115.0},
    rails_watts={"VDD_IN": 6.04, "VDD_CPU_GPU_CV": 1.2, "VDD_SOC": 1.6},
    temperatures_celsius={"cpu": 49.0, "gpu": 48.0, "soc0": 48.0, "soc1": 48.0, "soc2": 47.0, "tj": 51.0},
    throttled=("cpu-throttle-alert",),
)


def counted(rng: np.random.Generator, name: str, number: int) -> FeatureCounts:
    bins = 10 if name == "class.predicted" else 18
    shares = np.full(bins, 1.0)
    if bins == 18:
        shares[0] = shares[-1] = 0.016
    counts = rng.multinomial(number, shares / shares.sum())
    return FeatureCounts(edges=rng.bytes(8).hex(), counts=tuple(int(value) for value in counts))


def window(number: int = 1000, names: tuple[str, ...] = NAMES, host: HostMetrics = ORIN) -> TelemetryWindow:
    """An hour of a device that looks at `number` pictures."""
    rng = np.random.default_rng(7)
    places, times = np.unique(
        np.floor(np.log(rng.lognormal(1.2, 0.25, number)) / np.log(1.02)).astype(int), return_counts=True
    )
    return TelemetryWindow(
        device="cam-00017",
        stream=rng.bytes(8).hex(),
        sequence=4711,
        after=4710,
        at=NOW + timedelta(hours=1, milliseconds=4),
        boot=rng.bytes(8).hex(),
        model="digits",
        version="1.1.0",
        manifest=rng.bytes(32).hex(),
        phase="serving",
        start=NOW,
        end=NOW + timedelta(hours=1),
        requests=number,
        errors={"timeout": 2, "busy": 1},
        latency={int(place): int(times[index]) for index, place in enumerate(places)},
        features={name: counted(rng, name, number) for name in names},
        labelled=12,
        correct=11,
        confusion=((3, 3, 11), (3, 5, 1)),
        batches={0: number, 3: 5},
        host=host,
    )


def cut(said: TelemetryWindow) -> TelemetryWindow:
    """What the compact form keeps: of digests only the beginning."""
    features = {
        name: counts.model_copy(update={"edges": counts.edges[: compact.EDGES_HEX]})
        for name, counts in said.features.items()
    }
    return said.model_copy(update={"features": features, "manifest": said.manifest[: compact.MANIFEST_HEX]})


def test_a_compact_window_says_the_same() -> None:
    said = window()
    assert said.to_wire().startswith(compact.MARK)
    assert TelemetryWindow.parse(said.to_wire()) == cut(said)


def test_both_forms_are_read() -> None:
    assert TelemetryWindow.parse(window().to_bytes()) == window()


@pytest.mark.parametrize("number", [100, 1000, 10_000])
def test_an_hour_of_twenty_features_is_within_700_bytes_with_its_signature(number: int) -> None:
    assert len(window(number).to_wire()) + 65 <= 700


@pytest.mark.parametrize("number", [100, 1000, 10_000, 100_000])
def test_a_feature_costs_at_most_34_bytes(number: int) -> None:
    whole, none = len(window(number).to_wire()), len(window(number, names=()).to_wire())
    assert (whole - none) / len(NAMES) <= 34


def test_an_empty_window_is_small() -> None:
    said = window(0, names=(), host=HostMetrics()).model_copy(
        update={"errors": {}, "latency": {}, "confusion": (), "batches": {}, "labelled": 0, "correct": 0}
    )
    assert TelemetryWindow.parse(said.to_wire()) == cut(said)
    assert len(said.to_wire()) < 90


@pytest.mark.parametrize(
    "change",
    [
        {"stream": "s1"},
        {"boot": "ABCD"},
        {"features": {"f": FeatureCounts(edges="e", counts=(1,))}},
        {"features": {"a,b": FeatureCounts(edges="abcdef", counts=(1,))}},
        {"latency": {0: 1, 5000: 1}},
        {"sequence": 4, "after": 4},
        {"end": NOW - timedelta(seconds=1)},
        {"host": HostMetrics(rails_watts={"a,b": 1.0})},
    ],
)
def test_what_the_compact_form_cannot_hold_travels_as_json(change: dict[str, object]) -> None:
    said = window().model_copy(update=change)
    assert said.to_wire().startswith(b"{")
    assert TelemetryWindow.parse(said.to_wire()) == said


@given(
    counts=st.lists(st.lists(st.integers(0, 2**53), min_size=1, max_size=20), max_size=8),
    latency=st.dictionaries(st.integers(-400, 800), st.integers(1, 2**40), max_size=30),
    at=st.integers(-(10**9), 10**9),
    missing=st.integers(0, 1000),
)
def test_any_window_is_read_as_it_was_written(
    counts: list[list[int]], latency: dict[int, int], at: int, missing: int
) -> None:
    features = {
        f"input.{place}": FeatureCounts(edges="abcdef", counts=tuple(values), missing=missing)
        for place, values in enumerate(counts)
    }
    change = {"features": features, "latency": latency, "at": NOW + timedelta(milliseconds=at)}
    said = window(10).model_copy(update=change)
    assert TelemetryWindow.parse(said.to_wire()) == cut(said)


def test_counts_that_were_read_add_up_with_counts_of_the_other_form() -> None:
    said = window()
    packed, plain = TelemetryWindow.parse(said.to_wire()), TelemetryWindow.parse(said.to_bytes())
    for name in NAMES:
        doubled = add(packed.features[name].counts, plain.features[name].counts)
        assert doubled == [2 * value for value in said.features[name].counts]


def test_fields_of_a_later_version_are_skipped() -> None:
    inflate = zlib.decompressobj(-15, compact.DICTIONARY)
    plain = inflate.decompress(window().to_wire()[1:])
    more = compact_wire.number(90, 7) + compact_wire.text(91, b"tomorrow") + b"\xe1\x05" + bytes(8)  # fixed 64 bits
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, compact.DICTIONARY)
    again = compact.MARK + deflate.compress(plain + more) + deflate.flush() + inflate.unused_data
    assert TelemetryWindow.parse(again) == cut(window())


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, compact.DICTIONARY)
    bomb = compact.MARK + deflate.compress(bytes(10_000_000)) + deflate.flush()
    with pytest.raises(BadInputError, match="more than"):
        TelemetryWindow.parse(bomb)


@given(place=st.integers(1, 500), byte=st.integers(0, 255))
def test_damaged_bytes_give_a_window_or_a_refusal(place: int, byte: int) -> None:
    payload = bytearray(window(50).to_wire())
    payload[1 + place % (len(payload) - 1)] = byte
    try:
        TelemetryWindow.parse(bytes(payload))
    except BadInputError as error:
        assert "not a TelemetryWindow" in error.detail  # noqa: PT017 (nothing else may be raised)


def test_a_bomb_of_empty_counts_is_refused_before_it_is_unpacked() -> None:
    bits = compact_split.Writer()
    bits.number(compact_wire.zigzag(2**40))  # so many bins
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, compact.DICTIONARY)
    names = deflate.compress(compact_wire.text(21, b"input.mean")) + deflate.flush()
    with pytest.raises(BadInputError, match="more than"):
        TelemetryWindow.parse(compact.MARK + names + bytes(compact.EDGES_BYTES) + bits.bytes())


@given(data=st.binary(max_size=200))
def test_any_fields_give_a_window_or_a_refusal(data: bytes) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, compact.DICTIONARY)
    try:
        TelemetryWindow.parse(compact.MARK + deflate.compress(data) + deflate.flush())
    except BadInputError as error:
        assert "not a TelemetryWindow" in error.detail  # noqa: PT017 (nothing else may be raised)


def test_the_dictionary_is_part_of_the_form() -> None:
    """Windows in outboxes and on their way were written with it: another one needs another mark."""
    assert (compact.MARK, zlib.crc32(compact.DICTIONARY)) == (b"\x03", CHECKSUM)


CHECKSUM = 0xE34AE4D7


def test_json_of_a_compact_window_is_what_people_see() -> None:
    shown = json.loads(TelemetryWindow.parse(window().to_wire()).to_bytes())
    assert shown["features"]["input.brightness"]["counts"] == list(window().features["input.brightness"].counts)
    assert shown["host"]["rails_watts"] == {"VDD_IN": 6.04, "VDD_CPU_GPU_CV": 1.2, "VDD_SOC": 1.6}
