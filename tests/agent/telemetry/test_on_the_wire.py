"""Bytes that a device says in an hour, counted at a real broker."""

from pathlib import Path

import pytest

from shared.messages import TelemetryWindow
from tests.shared.test_compact import NAMES, cut, window
from tests.simulators.captured import captured
from tests.simulators.storm import mosquitto

HOUR_BYTES = 700
FEATURE_BYTES = 34


async def test_an_hour_of_twenty_features_passes_the_broker_in_700_bytes(tmp_path: Path) -> None:
    if mosquitto() is None:
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    numbers = (100, 1000, 10_000, 100_000)
    told = [window(number, names) for number in numbers for names in (NAMES, ())]
    payloads = await captured(tmp_path, told)
    hours, without = payloads[::2], payloads[1::2]
    assert max(map(len, hours[:3])) <= HOUR_BYTES
    assert all(
        (len(whole) - len(none)) / len(NAMES) <= FEATURE_BYTES for whole, none in zip(hours, without, strict=True)
    )
    read = TelemetryWindow.parse(hours[2][65:])
    assert read.features == cut(told[4]).features
