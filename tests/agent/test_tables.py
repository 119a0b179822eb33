"""What people see of slots and troubles."""

from dataclasses import replace
from datetime import UTC, datetime

from pydantic import TypeAdapter

from agent import tables
from agent.update.lifecycle import Ending, Update
from agent.update.lifecycle import State as Step
from agent.update.slots import Record, Slot, State
from agent.update.standing import Standing, Trouble, Waiting, standing
from shared.messages import Phase, ShadowFigures

AT = datetime(2026, 11, 23, 16, 4, 5, tzinfo=UTC)
MIB = 1024 * 1024
OLD = Slot(State.GOOD, "1.0.0", "m-a", 1, AT, "CPUExecutionProvider", 300 * MIB, 150 * MIB)
NEW = Slot(State.PROBATION, "1.1.0", "m-b", 2, AT)
SERVES = Record("digits", a=OLD, active="a", last_good="a")
TRIAL = replace(SERVES, b=NEW, active="b", trial="b", tries_left=2)


def told(
    record: Record,
    serving: str | None = None,
    trouble: Trouble | None = None,
    current: Update | None = None,
    waiting: Waiting | None = None,
    last_end: Ending | None = None,
) -> str:
    found = standing(record, serving=serving, trouble=trouble, current=current, waiting=waiting, last_end=last_end)
    return tables.slots({"models": TypeAdapter(list[Standing]).dump_python([found], mode="json")})


def test_no_model_is_said() -> None:
    assert tables.slots({"models": []}) == "no model has arrived yet"


def test_the_slot_that_serves_is_marked_and_explained() -> None:
    text = told(SERVES, "1.0.0")
    assert text.splitlines()[:3] == [
        "MODEL   SLOT  VERSION  STATE             SINCE                 PROVIDER  MEMORY",
        "digits  a *   1.0.0    good (last good)  2026-11-23 16:04:05Z  CPU       150 MiB, 300 MiB while loading",
        "        b     -        empty             -                     -         -",
    ]
    assert text.splitlines()[-1] == "digits: serves 1.0.0, the last good version"


def test_a_trial_says_how_many_starts_are_left() -> None:
    assert "serves 1.1.0, on probation (2 more starts allowed)" in told(TRIAL, "1.1.0")
    alone = replace(TRIAL, tries_left=1, alone=True)
    assert "(1 more start allowed, without the version before in memory)" in told(alone, "1.1.0")


def test_what_stands_in_and_what_fails_is_told() -> None:
    trouble = Trouble("E_LOAD", "1.0.0 does not load", AT, safe_mode=False)
    beside = replace(SERVES, b=replace(NEW, state=State.GOOD))
    text = told(beside, "1.1.0", trouble)
    assert "serves 1.1.0, stands in for the last good version" in text
    assert "trouble since 2026-11-23 16:04:05Z: 1.0.0 does not load (E_LOAD)" in text
    safe = told(Record("digits"), None, replace(trouble, safe_mode=True))
    assert "digits: safe mode: no version can serve; a new release is welcome" in safe
    assert "safe mode since" in safe
    assert "no version yet" in told(Record("digits"))
    assert "being started" in told(SERVES)


def test_a_waiting_update_and_the_end_of_the_last_one_are_told() -> None:
    current = Update(3, "digits", "1.2.0", "m", "k", state=Step.STAGED)
    waiting = Waiting("E_CONDITIONS", "hot 86 C, limit 80 C", AT)
    end = Ending("digits", "1.1.0", Phase.ROLLED_BACK, AT, "E_BY_HAND", "taken back by hand")
    text = told(SERVES, "1.0.0", None, current, waiting, end)
    assert "  update to 1.2.0: staged, waiting since 2026-11-23 16:04:05Z: hot 86 C, limit 80 C (E_CONDITIONS)" in text
    assert "  last update: 1.1.0 rolled-back at 2026-11-23 16:04:05Z: taken back by hand (E_BY_HAND)" in text
    assert "in the shadow" not in text
    looks_on = replace(current, state=Step.SHADOWING, compared=ShadowFigures(requests=4, samples=4, agreed=3))
    beside = told(SERVES, "1.0.0", None, looks_on, None, None)
    assert "  update to 1.2.0: shadowing\n  in the shadow: 4 compared, 75.00 % agree" in beside
    other = told(SERVES, "1.0.0", None, replace(current, model="letters"), None, replace(end, reason=None))
    assert "update to" not in other
    assert other.endswith("last update: 1.1.0 rolled-back at 2026-11-23 16:04:05Z")


def test_the_status_names_device_link_and_models() -> None:
    found = standing(SERVES, serving="1.0.0", trouble=None, current=None, waiting=None, last_end=None)
    document = {
        "device": "cam-1",
        "hardware": "x86_64",
        "agent_version": "0.1",
        "manager": "http://m",
        "connected": False,
        "link_failure": "refused",
        "http": "http://127.0.0.1:8600",
        "outbox": {"report": {"waiting": 2}},
        "models": TypeAdapter(list[Standing]).dump_python([found], mode="json"),
    }
    assert tables.status(document).splitlines() == [
        "device   cam-1 (x86_64, agent 0.1)",
        "manager  http://m",
        "broker   not connected: refused",
        "endpoint http://127.0.0.1:8600",
        "to send  2 report",
        "digits: serves 1.0.0, the last good version",
    ]
    assert tables.status({**document, "models": []}).endswith("no model yet")
