"""`fleet.client`: one contract, embedded and against a daemon, with real agents as targets."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from fleet.client import AddressError, AsyncFleet, Fleet, ProblemError, UnreachableError, WaitError
from fleet.demo.household import Household
from fleet.errors import RunningError
from shared.configuration import ConfigurationError

pytestmark = pytest.mark.flow


def test_what_is_initialised_twice_changes_once(fleet: Fleet) -> None:
    assert fleet.initialise()["changed"] is False


def test_a_model_is_published_once_and_found_again(fleet: Fleet, model: Path) -> None:
    first = fleet.publish("digits", "1.0.0", model, reference=model.with_suffix(".npz"), notes="first")
    again = fleet.publish("digits", "1.0.0", model, reference=model.with_suffix(".npz"))
    assert (first["published"], again["published"]) == (True, False)
    assert first["manifest_digest"] == again["manifest_digest"]
    assert fleet.models.get("digits", "1.0.0")["notes"] == "first"
    assert [it["version"] for it in fleet.models.versions("digits")] == ["1.0.0"]
    assert first["metrics"]["accuracy"] > 0.8


def test_without_reference_data_a_model_can_be_published_but_has_no_baseline(fleet: Fleet, model: Path) -> None:
    found = fleet.publish("plain", "1.0.0", model, reference=None, metrics={"mAP50": 0.5})
    assert found["metrics"] == {"mAP50": 0.5}
    assert fleet.models.get("plain", "1.0.0")["baseline"]["features"] == []


def test_a_rollout_reaches_real_agents_and_is_waited_for(fleet: Fleet, agents: Household, model: Path) -> None:
    fleet.publish("digits", "1.0.0", model, reference=model.with_suffix(".npz"))
    assert {it["id"] for it in fleet.devices.list("site:hall")} == {"cam-1", "cam-2"}
    planned = fleet.rollouts.plan("digits", "1.0.0", target=["cam-1", "cam-2"], waves=["1", "100%"], bake_seconds=0)
    assert planned["devices"] == 2
    started = fleet.rollouts.start(
        "digits", "1.0.0", target={"site": "hall"}, waves=["1", "100%"], bake_seconds=0, key="once"
    )
    same = fleet.rollouts.start(
        "digits", "1.0.0", target={"site": "hall"}, waves=["1", "100%"], bake_seconds=0, key="once"
    )
    assert same["id"] == started["id"]
    ended = fleet.rollouts.wait(started["id"], timeout_seconds=90)
    assert (ended["state"], ended["counts"]["committed"]) == ("completed", 2)
    served = fleet.devices.wait("cam-1", lambda it: it["serving"].get("digits") == "1.0.0", timeout_seconds=20)
    assert served["labels"] == {"line": "4"}
    assert fleet.rollouts.list(state="active") == []
    assert fleet.audit.verify()["intact"] is True


def test_what_the_manager_refuses_says_why_and_what_to_do(fleet: Fleet) -> None:
    with pytest.raises(ProblemError) as refused:
        fleet.devices.get("nobody")
    assert (refused.value.status, refused.value.code) == (404, "E_NOT_FOUND")
    assert "flotilla device list" in refused.value.remedy
    with pytest.raises(ProblemError, match="never published"):
        fleet.rollouts.start("digits", "9.9.9")


def test_names_with_slashes_stay_in_their_place(fleet: Fleet) -> None:
    with pytest.raises(ProblemError) as refused:
        fleet.devices.get("../tokens")
    assert refused.value.status == 404


def test_waiting_ends_in_time(fleet: Fleet, agents: Household) -> None:
    with pytest.raises(WaitError, match=r"0\.2 s"):
        fleet.devices.wait("cam-1", lambda _: False, timeout_seconds=0.2)


def test_events_come_in_order_and_from_where_one_left_off(fleet: Fleet) -> None:
    with Fleet(fleet.url, fleet.tokens.create("listener", "viewer")["token"]) as listener:
        first = next(iter(listener.events(after=0)))
        then = next(iter(listener.events(after=first["sequence"])))
    assert first["sequence"] < then["sequence"]


def test_asyncio_has_the_same_surface(fleet: Fleet, model: Path) -> None:
    token = fleet.tokens.create("async", "admin")["token"]

    async def use() -> None:
        async with AsyncFleet(fleet.url, token) as there:
            devices, models = await asyncio.gather(there.devices.list(), there.models.list())
            assert {it["name"] for it in models} >= {"digits"}
            assert all(it["id"] for it in devices)
            with pytest.raises(ProblemError, match="nobody"):
                await there.rollouts.wait("nobody", timeout_seconds=1)
            with pytest.raises(ProblemError):
                await there.devices.get("nobody")

    asyncio.run(use())


def test_every_noun_of_one_client_is_a_noun_of_the_other() -> None:
    def surface(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert surface(Fleet) == surface(AsyncFleet)


def test_no_answer_and_no_address_are_told_apart() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    with Fleet(url) as there, pytest.raises(UnreachableError, match=url):
        there.devices.list()
    with pytest.raises(AddressError, match="ftp://x"):
        Fleet("ftp://x")


def test_a_folder_has_one_manager_and_remembers_everything(tmp_path: Path, model: Path) -> None:
    async def second() -> list[dict[str, Any]]:
        async with AsyncFleet.embedded(tmp_path / "data") as there:
            assert (await there.initialise())["changed"] is False
            return await there.models.versions("digits")

    with Fleet.embedded(tmp_path / "data") as fleet:
        fleet.initialise()
        fleet.publish("digits", "1.0.0", model, reference=model.with_suffix(".npz"))
        with pytest.raises(RunningError), Fleet.embedded(tmp_path / "data"):
            pass
    assert [it["version"] for it in asyncio.run(second())] == ["1.0.0"]
    with Fleet(fleet.url) as late, pytest.raises(UnreachableError):
        late.models.list()


def test_the_token_of_an_embedded_manager_ends_with_it(tmp_path: Path) -> None:
    with Fleet.embedded(tmp_path) as first:
        mine = [it for it in first.tokens.list() if it["name"].startswith("embedded")]
        assert [it["revoked_at"] for it in mine] == [None]
    with Fleet.embedded(tmp_path) as then:
        ours = [it["revoked_at"] for it in then.tokens.list() if it["name"].startswith("embedded")]
    assert sorted(it is None for it in ours) == [False, True]


def test_settings_of_an_embedded_manager_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no_such_key"), Fleet.embedded(tmp_path, settings={"no_such_key": 1}):
        pass
