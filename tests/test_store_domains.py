"""Failure domains of the weight store: copies on distinct machines, and whole machines that are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqde_ref.core.placement import choose_stores
from hqde_ref.core.quorums import StorePlan, add_store, check_store_plan, count_faulty, drop_store, plan_store
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import Acknowledged, Call, Joined, NotJoined, Serve
from hqde_ref.rounds.rejoining import change_plan, move_store, rejoin
from hqde_ref.rounds.storing import Writer
from tests import planted_store
from tests.stores import Fleet, Struck, read_text, write_text

NAMES = tuple(f"s{index}" for index in range(6))
PAIRS = ("n0", "n1", "n2", "n0", "n1", "n2")  # six stores on three machines
KEYS = [f"k{number}" for number in range(30)]


@st.composite
def placings(draw: st.DrawFn) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Stores, their domains, and how many copies are wanted."""
    count = draw(st.integers(2, 9))
    domains = draw(st.lists(st.sampled_from("abcd"), min_size=count, max_size=count))
    return tuple(f"s{index}" for index in range(count)), tuple(domains), draw(st.integers(1, count - 1))


@given(key=st.text(), placing=placings())
def test_copies_share_a_domain_only_where_there_are_fewer_domains(
    key: str, placing: tuple[tuple[str, ...], tuple[str, ...], int]
) -> None:
    """Nor does a domain get another copy while one that has fewer still has a store to spare."""
    names, domains, copies = placing
    where = dict(zip(names, domains, strict=True))
    chosen = choose_stores(key, stores=names, copies=copies, domains=domains)
    taken, size = Counter(where[store] for store in chosen), Counter(domains)
    assert len(set(chosen)) == copies
    assert all(taken[one] <= taken[other] + 1 for one in taken for other in size if taken[other] < size[other]), (
        f"{chosen} in {where}"
    )


@given(key=st.text(), placing=placings())
def test_neither_the_order_of_stores_nor_the_names_of_domains_have_a_say(
    key: str, placing: tuple[tuple[str, ...], tuple[str, ...], int]
) -> None:
    names, domains, copies = placing
    chosen = choose_stores(key, stores=names, copies=copies, domains=domains)
    renamed = [f"machine {'dbca'.index(domain)}" for domain in domains]
    assert choose_stores(key, stores=names[::-1], copies=copies, domains=renamed[::-1]) == chosen


@given(key=st.text(), placing=placings())
def test_a_store_that_comes_or_goes_moves_one_copy_of_a_key_at_most(
    key: str, placing: tuple[tuple[str, ...], tuple[str, ...], int]
) -> None:
    names, domains, copies = placing
    all_of_them = set(choose_stores(key, stores=names, copies=copies, domains=domains))
    without = set(choose_stores(key, stores=names[1:], copies=copies, domains=domains[1:]))
    assert all_of_them == without or (all_of_them - without == {names[0]} and len(without - all_of_them) == 1)


def test_stores_of_three_machines_get_equal_shares_and_each_key_is_on_all_three() -> None:
    """As ``test_keys_are_spread_evenly``: within five standard deviations of a fair draw."""
    load: Counter[str] = Counter()
    for number in range(6_000):
        chosen = choose_stores(f"layer/{number}", stores=NAMES, copies=3, domains=PAIRS)
        assert {PAIRS[NAMES.index(store)] for store in chosen} == {"n0", "n1", "n2"}
        load.update(chosen)
    assert max(abs(count - 3_000) for count in load.values()) < 5 * (6_000 * 0.25) ** 0.5


def test_what_is_faulty_counts_by_domain_where_no_key_has_two_copies_in_one() -> None:
    plan = plan_store(NAMES, domains=PAIRS)
    assert count_faulty(plan, "s0", ["s3"]) == 0, "beside s0: they share no key"
    assert count_faulty(plan, "s0", ["s1", "s4"]) == 1
    assert count_faulty(plan, "s0", ["s1", "s2"]) == 2
    crowded = plan_store(NAMES, domains=["n0", "n0", "n0", "n1", "n1", "n1"])
    assert count_faulty(crowded, "s0", ["s1", "s4"]) == 2, "two machines for three copies: any two may hold a key"
    assert count_faulty(plan_store(NAMES), "s0", ["s1", "s4"]) == 2


# ------------------------------------------------------------------------------------------------ whole machines


def _machine(plan: StorePlan, domain: str) -> list[str]:
    return [store for store in plan.stores if plan.domain_of(store) == domain]


def lose_machines(fleet: Fleet) -> None:
    """Kill each machine in turn in the middle of a write, bring its stores back one by one, and read everything."""
    writer, newest = Writer("w"), dict[str, str]()

    def write(number: int) -> None:
        key = KEYS[number % len(KEYS)]
        outcome = write_text(fleet.world, fleet.plan, writer, key, str(number))
        assert isinstance(outcome, Acknowledged), outcome
        newest[key] = str(number)

    for number in range(30):
        write(number)
    for turn, domain in enumerate(("n0", "n1", "n2", "n1")):
        for store in _machine(fleet.plan, domain):
            fleet.kill(store)
        for number in range(20 * turn, 20 * turn + 20):
            write(1000 + number)
        assert {key: read_text(fleet.world, fleet.plan, key) for key in newest} == newest
        for store in _machine(fleet.plan, domain):
            fleet.restart(store)
            outcome = rejoin(fleet.world, fleet.plan, store, until=fleet.world.now() + 5)
            assert isinstance(outcome, Joined), outcome
        assert {key: read_text(fleet.world, fleet.plan, key) for key in newest} == newest


def test_every_acknowledged_write_survives_the_loss_of_each_machine_in_turn() -> None:
    lose_machines(Fleet(6, domains=PAIRS))


@pytest.mark.parametrize(
    "bug", [planted_store.ignores_domains, planted_store.counts_silent_stores, planted_store.counts_nobody_as_silent]
)
def test_a_planted_bug_of_domains_is_seen(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        all_of_it()


def all_of_it() -> None:
    lose_machines(Fleet(6, domains=PAIRS))
    too_few_answer_to_come_back()


def too_few_answer_to_come_back() -> None:
    fleet = Fleet(6, domains=PAIRS)
    fleet.restart("s0")
    fleet.kill("s1")
    outcome = rejoin(fleet.world, fleet.plan, "s0", until=fleet.world.now() + 5)
    assert isinstance(outcome, NotJoined)
    assert "1 of the other stores did not list what they hold, 0 may be silent (s1: crashed)" in outcome.reason


def test_a_store_does_not_come_back_while_another_machine_is_silent() -> None:
    too_few_answer_to_come_back()


def test_stores_that_came_back_on_other_machines_move_there_and_copies_are_apart_again() -> None:
    """Four machines of two; one is gone for good, and its stores start on two of the others."""
    names = tuple(f"s{index}" for index in range(8))
    fleet, writer = Fleet(8, domains=[f"n{index % 4}" for index in range(8)]), Writer("w")
    for key in KEYS:
        assert isinstance(write_text(fleet.world, fleet.plan, writer, key, key), Acknowledged)
    for store, domain in (("s0", "n1"), ("s4", "n2")):
        fleet.restart(store)
        assert isinstance(rejoin(fleet.world, fleet.plan, store, until=fleet.world.now() + 5), Joined)
        fleet.plan, refused = move_store(fleet.world, fleet.plan, store, domain, until=fleet.world.now() + 5)
        assert refused == ()
    where = {"s0": "n1", "s4": "n2", **{name: f"n{index % 4}" for index, name in enumerate(names) if index % 4}}
    assert {store: fleet.plan.domain_of(store) for store in fleet.plan.stores} == where
    for key in KEYS:
        assert len({where[store] for store in fleet.plan.stores_of(key)}) == 3
    for store in ("s0", "s1", "s5"):  # all that run on n1
        fleet.kill(store)
    assert [read_text(fleet.world, fleet.plan, key) for key in KEYS] == KEYS


def test_a_store_that_hangs_when_the_others_are_told_to_serve_does_not_undo_the_move() -> None:
    """The plan without the moving store stands and is readable; the move goes on once the store is well again."""
    fleet, writer = Fleet(6, domains=NAMES), Writer("w")
    for key in KEYS:
        assert isinstance(write_text(fleet.world, fleet.plan, writer, key, key), Acknowledged)

    def strike(number: int, calls: Sequence[Call]) -> None:
        if any(isinstance(call.request, Serve) for call in calls):
            fleet.pause("s1")

    world = Struck(fleet.world, strike)
    standing, refused = move_store(world, fleet.plan, "s5", "n9", until=fleet.world.now() + 10)
    assert (standing, refused) == (drop_store(fleet.plan, "s5"), (NotJoined(store="s1", reason="late"),))
    assert [read_text(fleet.world, standing, key) for key in KEYS] == KEYS
    fleet.resume("s1")
    within = add_store(standing, "s5", domain="n9")
    standing, outcomes = change_plan(fleet.world, standing, within, until=fleet.world.now() + 10)
    assert standing == within
    assert all(isinstance(outcome, Joined) for outcome in outcomes), outcomes
    fleet.kill("s0")
    assert [read_text(fleet.world, standing, key) for key in KEYS] == KEYS


def test_a_store_that_died_when_it_was_told_to_serve_rejoins_the_new_plan() -> None:
    fleet, writer = Fleet(5), Writer("w")
    for key in KEYS:
        assert isinstance(write_text(fleet.world, fleet.plan, writer, key, key), Acknowledged)

    def strike(number: int, calls: Sequence[Call]) -> None:
        if any(isinstance(call.request, Serve) for call in calls):
            fleet.kill("s1")

    after = drop_store(fleet.plan, "s4")
    standing, outcomes = change_plan(Struck(fleet.world, strike), fleet.plan, after, until=fleet.world.now() + 5)
    assert standing == after
    assert [outcome.store for outcome in outcomes if isinstance(outcome, NotJoined)] == ["s1"]
    assert [read_text(fleet.world, standing, key) for key in KEYS] == KEYS
    fleet.restart("s1")
    assert isinstance(rejoin(fleet.world, standing, "s1", until=fleet.world.now() + 5), Joined)
    fleet.kill("s0")
    assert [read_text(fleet.world, standing, key) for key in KEYS] == KEYS


# ------------------------------------------------------------------------------------------------ plans


def test_a_plan_with_a_domain_too_few_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="domains must be one for each of 3 stores, got"):
        check_store_plan(StorePlan(stores=("a", "b", "c"), domains=("n0", "n1")))


def test_a_store_joins_with_a_domain_exactly_if_the_others_have_one() -> None:
    with pytest.raises(ConfigurationError, match="domain of s6 must be a name, as the others have, got None"):
        add_store(plan_store(NAMES, domains=PAIRS), "s6")
    with pytest.raises(ConfigurationError, match="domain of s6 must be none, got 'n1'"):
        add_store(plan_store(NAMES), "s6", domain="n1")
    assert add_store(plan_store(NAMES, domains=PAIRS), "s6", domain="n1").domain_of("s6") == "n1"
    assert drop_store(plan_store(NAMES, domains=PAIRS), "s1").domains == ("n0", "n2", "n0", "n1", "n2")


def test_a_store_does_not_change_its_domain_while_it_serves() -> None:
    fleet = Fleet(6, domains=PAIRS)
    after = StorePlan(stores=NAMES[:-1], domains=("n1", *PAIRS[1:-1]), epoch=1)
    with pytest.raises(ConfigurationError, match="the domain of s0 must be 'n0', got 'n1'; let the store leave"):
        change_plan(fleet.world, fleet.plan, after, until=5)
