"""Each key of `scheduling` and `versioning` with its default; labels that mean something are checked."""

from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from agent.update.trust import Orders
from fleet.devices.terms import Terms
from fleet.schedules import labels
from fleet.schedules.turns import KEEPS
from fleet.settings import FleetSettings, SchedulingSettings
from fleet.store.tables import Device
from shared.errors import BadInputError
from shared.windows import Window
from tests.fleet.rollouts.test_driver import custom
from tests.fleet.schedules.conftest import WINDOWS, Later


def test_defaults_are_the_promised_ones() -> None:
    found = FleetSettings()
    scheduling, versioning = found.scheduling, found.versioning
    assert scheduling.enable_auto_updates is True
    assert (scheduling.update_window_start, scheduling.update_window_end) == ("02:00", "04:00")
    assert (scheduling.batch_size, scheduling.rollout_strategy) == (3, "canary")
    assert (versioning.max_versions_per_device, versioning.version_retention_days) == (3, 30)
    assert versioning.cleanup_old_versions is True


def test_a_wall_time_that_yaml_read_as_a_number_is_understood() -> None:
    found = SchedulingSettings.model_validate({"update_window_start": 22 * 60, "update_window_end": 23 * 60 + 30})
    assert (found.update_window_start, found.update_window_end) == ("22:00", "23:30")


@pytest.mark.parametrize(
    "said",
    [
        {"update_window_start": "04:00"},
        {"update_window_start": "25:00"},
        {"update_window_start": 9999},
        {"timezone": "Mars/Base"},
        {"weekdays": []},
        {"rollout_strategy": "all"},
        {"batch_size": 0},
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused_at_the_start(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SchedulingSettings.model_validate(said)


@pytest.mark.parametrize("sections", [{"versioning": {"max_versions_per_device": 5}}])
async def test_devices_are_told_how_many_versions_to_keep(world: Later, api: httpx2.AsyncClient) -> None:
    await world.device("cam-1", features=WINDOWS)
    await world.device("cam-2")
    for version in ("1.0.0", "2.0.0"):
        await world.release(version)
    await api.post("/rollouts", json={"model": "digits", "version": "2.0.0", "waves": ["100%"]})
    await world.driver.advance()
    assert KEEPS in WINDOWS
    assert custom((await world.assigned("cam-1"))[1])["keep_versions"] == 5
    assert "keep_versions" not in custom((await world.assigned("cam-2"))[1])


def test_what_the_manager_writes_is_what_the_agent_reads() -> None:
    window = Window(start="22:00", end="05:00", weekdays=("sat",), zone="Europe/Berlin", delay_seconds=7)
    said = {
        "device": "cam-1", "model": "digits", "version": "2.0.0", "manifest": "0" * 64, "rollout": "ro-1",
        "sealed_key": "k", **Terms(window, 4).custom(),
    }  # fmt: skip
    found = Orders.model_validate(said)
    assert (found.window, found.keep_versions) == (window, 4)
    with pytest.raises(ValidationError):
        Orders.model_validate({**said, "window": {**said["window"], "moon": "full"}})


def test_labels_that_mean_something_are_checked_and_others_are_free() -> None:
    assert labels.changed({"a": "b"}, timezone="Europe/Berlin", channel="candidate") == {
        "a": "b", "timezone": "Europe/Berlin", "channel": "candidate",
    }  # fmt: skip
    assert labels.changed({"timezone": "Europe/Berlin", "empty": ""}, timezone="") == {"empty": ""}
    for wrong in ({"timezone": "Mars/Base"}, {"channel": "1.0"}):
        with pytest.raises(BadInputError):
            labels.checked(wrong)


async def test_zone_and_channel_are_set_and_checked_over_rest(
    admin: httpx2.AsyncClient, enrolled: Any, trust: None
) -> None:
    device: Device = await enrolled("cam-1", labels={"lens": "wide"})
    found = (await admin.patch("/api/v1/devices/cam-1", json={"timezone": "Asia/Tokyo", "channel": "candidate"})).json()
    assert found["labels"] == {"lens": "wide", "timezone": "Asia/Tokyo", "channel": "candidate"}
    found = (await admin.patch("/api/v1/devices/cam-1", json={"channel": "", "site": "gate"})).json()
    assert (found["labels"], found["site"]) == ({"lens": "wide", "timezone": "Asia/Tokyo"}, "gate")
    for wrong in ({"timezone": "Mars/Base"}, {"labels": {"timezone": "Mars/Base"}}):
        assert (await admin.patch("/api/v1/devices/cam-1", json=wrong)).json()["code"] == "E_ZONE"
    answer = await admin.post("/api/v1/invites", json={"labels": {"timezone": "Mars/Base"}})
    assert answer.json()["code"] == "E_ZONE"
    assert device.id == "cam-1"
