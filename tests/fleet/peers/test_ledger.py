"""Whose turn it is, by the table of cases and over whole sites that behave well or badly."""

import random

import pytest

from fleet.peers.ledger import NAMED, TURNS, Ledger, Rules, Said
from shared.peers import Ask

RULES = Rules(copies=2, turn_seconds=60, patience_seconds=300, offer_seconds=3600)


def chunks(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def ask(
    device: str,
    wanted: list[str] | None = None,
    *,
    holds: list[str] | None = None,
    failed: list[str] | None = None,
    serves: bool = True,
) -> Ask:
    return Ask(
        device=device,
        key="0" * 64,
        address="10.0.0.1" if serves else None,
        port=8602 if serves else None,
        wanted=tuple(wanted or ()),
        holds=tuple(holds or ()),
        failed=tuple(failed or ()),
    )


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(RULES)


def named(said: Said, chunk: str) -> set[str]:
    return {said.peers[place].device for place in said.held.get(chunk, ())}


def test_the_first_who_asks_has_the_turn_and_keeps_it(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    assert ledger.ask("hall", ask("a", [chunk]), 0).turns == (chunk,)
    assert ledger.ask("hall", ask("b", [chunk]), 1) == Said()
    assert ledger.ask("hall", ask("a", [chunk]), 2).turns == (chunk,)
    assert ledger.turns == 1


def test_who_has_it_is_named_to_the_others_and_not_to_himself(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("a", [chunk]), 0)
    ledger.ask("hall", ask("a", holds=[chunk]), 1)
    said = ledger.ask("hall", ask("b", [chunk]), 2)
    assert said.turns == ()
    assert named(said, chunk) == {"a"}
    assert named(ledger.ask("hall", ask("a", [chunk]), 3), chunk) == set()


def test_who_serves_nowhere_is_not_named(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("a", holds=[chunk], serves=False), 0)
    assert ledger.ask("hall", ask("b", [chunk]), 1).turns == (chunk,)


def test_sites_know_nothing_of_each_other(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("a", holds=[chunk]), 0)
    assert ledger.ask("yard", ask("b", [chunk]), 1).turns == (chunk,)


def test_a_turn_that_takes_too_long_gives_one_more_and_then_none(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    assert ledger.ask("hall", ask("a", [chunk]), 0).turns
    assert not ledger.ask("hall", ask("b", [chunk]), 59).turns
    assert ledger.ask("hall", ask("b", [chunk]), 60).turns
    assert not ledger.ask("hall", ask("c", [chunk]), 130).turns
    assert ledger.turns == 2


def test_who_comes_to_nothing_for_long_has_a_turn_in_any_case(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("a", holds=[chunk]), 0)
    for now in range(0, 300, 20):
        said = ledger.ask("hall", ask("b", [chunk], failed=[chunk] if now else []), now)
        if said.turns:
            break
    assert said.turns == (chunk,)  # it is told of one who does not give it: a copy may leave


def test_nobody_starves_when_all_turns_are_with_devices_that_died() -> None:
    ledger = Ledger(Rules(copies=1, turn_seconds=1000, patience_seconds=300))
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("dead", [chunk]), 0)
    turns = {now for now in range(0, 400, 10) if ledger.ask("hall", ask("b", [chunk]), now).turns}
    assert min(turns) == 300
    assert ledger.turns_beyond == 1


def test_patience_begins_when_a_device_wants_something_and_not_when_it_joined() -> None:
    ledger = Ledger(Rules(copies=1, turn_seconds=1000, patience_seconds=300))
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("b"), 0)
    ledger.ask("hall", ask("a", [chunk]), 250)
    turns = {now for now in range(250, 700, 10) if ledger.ask("hall", ask("b", [chunk]), now).turns}
    assert min(turns) == 550


def test_a_device_has_few_turns_at_a_time_so_that_a_site_shares_the_work(ledger: Ledger) -> None:
    wanted = chunks(20)
    first, second = (ledger.ask("hall", ask(device, wanted), 0).turns for device in "ab")
    assert len(first) == len(second) == TURNS
    assert not set(first) & set(second)
    assert ledger.ask("hall", ask("a", wanted), 1).turns == first


def test_different_devices_are_sent_to_different_holders(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    for number in range(20):
        ledger.ask("hall", ask(f"h-{number}", holds=[chunk]), 0)
    seen = [named(ledger.ask("hall", ask(f"d-{number}", [chunk]), 1), chunk) for number in range(20)]
    assert {len(one) for one in seen} == {NAMED}
    assert len(set.union(*seen)) > 10


def test_a_holder_not_heard_of_for_long_is_not_named(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("a", holds=[chunk]), 0)
    assert ledger.ask("hall", ask("b", [chunk]), 3600).turns == (chunk,)


def test_a_device_that_lost_a_chunk_is_no_holder_any_more(ledger: Ledger) -> None:
    (chunk,) = chunks(1)
    ledger.ask("hall", ask("a", holds=[chunk]), 0)
    ledger.ask("hall", ask("a", [chunk]), 1)
    assert named(ledger.ask("hall", ask("b", [chunk]), 2), chunk) == set()


def test_who_wants_nothing_is_told_of_some_who_serve(ledger: Ledger) -> None:
    for device in "abc":
        ledger.ask("hall", ask(device), 0)
    assert {peer.device for peer in ledger.ask("hall", ask("d"), 1).peers} == {"a", "b", "c"}


@pytest.mark.parametrize("seed", range(5))
def test_a_site_whose_devices_die_and_refuse_ends_complete_with_two_copies(seed: int) -> None:
    chance, wanted = random.Random(seed), chunks(12)
    ledger = Ledger(RULES)
    have: dict[str, set[str]] = {f"d-{number}": set() for number in range(15)}
    told: dict[str, set[str]] = {device: set() for device in have}
    dead = {"d-3", "d-7"}  # ask once, then never again
    from_manager = dict.fromkeys(wanted, 0)
    for now in range(0, 3600, 5):
        for device, mine in have.items():
            if device in dead and now:
                continue
            fresh, told[device] = mine - told[device], set(mine)
            said = ledger.ask("hall", ask(device, [one for one in wanted if one not in mine], holds=sorted(fresh)), now)
            for name in () if device in dead else said.turns:
                from_manager[name] += 1
                mine.add(name)
            for name, places in said.held.items():
                if chance.random() < 0.8 and any(name in have[said.peers[place].device] for place in places):
                    mine.add(name)
        if all(len(mine) == 12 for device, mine in have.items() if device not in dead):
            break
    assert all(len(mine) == 12 for device, mine in have.items() if device not in dead)
    assert max(from_manager.values()) <= 2
    assert now < 300
