"""The stories of the weight store: reading, writing, coming and going, and what they say when they cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
from torch import Tensor

from hqde_ref.core.placement import choose_stores
from hqde_ref.core.quorums import StorePlan, plan_store
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    Absent,
    Acknowledged,
    Answer,
    Call,
    Failed,
    Joined,
    NotAcknowledged,
    NotJoined,
    Payload,
    Put,
    Runtime,
    Unavailable,
    Value,
    Version,
)
from hqde_ref.nodes.store import StoreSpec
from hqde_ref.rounds.rejoining import change_plan, rejoin
from hqde_ref.rounds.storing import Writer, put, scrub
from hqde_ref.runtimes.local import Local
from simulator.fragile import Damage
from simulator.runtime import Simulated
from tests import planted_store
from tests.stores import Fleet, Struck, payload_of, read_text, write_text

ODD_KEYS = ("", " ", "a/b", "s0", "s0.0/1", "ключ", "\x00", "\ud800", "0", "k" * 100_000)
_FIRST = Version(counter=1, writer="w")
_SECOND = Version(counter=2, writer="w")


# ------------------------------------------------------------------------------------------------ stories


@pytest.mark.parametrize("make", [Local, Simulated], ids=["local", "simulated"])
def test_any_string_is_a_key_and_keeps_its_own_value(make: Callable[..., Runtime]) -> None:
    names = tuple(f"s{index}" for index in range(5))
    runtime, plan, writer = make({name: (StoreSpec(name=name),) for name in names}), plan_store(names), Writer("w")
    for number, key in enumerate(ODD_KEYS):
        assert isinstance(write_text(runtime, plan, writer, key, f"value {number}"), Acknowledged)
    assert [read_text(runtime, plan, key) for key in ODD_KEYS] == [f"value {number}" for number in range(len(ODD_KEYS))]


def test_an_unknown_key_is_an_error_that_names_it() -> None:
    fleet = Fleet(5)
    write_text(fleet.world, fleet.plan, Writer("w"), "known", "x")
    assert read_text(fleet.world, fleet.plan, "unknown") == Absent(
        key="unknown", reason="there is no key 'unknown': 2 of its 3 stores say so"
    )


def test_without_a_quorum_a_read_and_a_write_say_who_failed_and_why() -> None:
    fleet, writer = Fleet(3), Writer("w")
    assert isinstance(write_text(fleet.world, fleet.plan, writer, "k", "x"), Acknowledged)
    fleet.kill("s0")
    fleet.pause("s1")
    began = fleet.world.now()
    unread = read_text(fleet.world, fleet.plan, "k")
    assert unread == Unavailable(key="k", reason="1 of 2 stores have a whole copy or none (s0: crashed; s1: late)")
    unwritten = write_text(fleet.world, fleet.plan, writer, "k", "y")
    assert isinstance(unwritten, NotAcknowledged)
    assert unwritten.version is None
    assert unwritten.reason.startswith("1 of 2 stores told their version, so nothing was written (")
    assert fleet.world.now() - began <= 6


def test_a_write_that_too_few_confirmed_says_that_it_may_or_may_not_survive() -> None:
    fleet, writer = Fleet(3), Writer("w")

    def strike(store: str) -> Callable[[int, Sequence[Call]], None]:
        return lambda number, calls: fleet.kill(store) if isinstance(calls[0].request, Put) else None

    runtime = Struck(Struck(fleet.world, strike("s0")), strike("s1"))
    outcome = write_text(runtime, fleet.plan, writer, "k", "x")
    assert isinstance(outcome, NotAcknowledged)
    assert outcome.version == _FIRST
    assert outcome.stores == ("s2",)
    assert outcome.reason.startswith("1 of 2 stores confirmed: the write may or may not survive (")


def test_a_payload_whose_digest_does_not_fit_is_named_and_nothing_is_kept() -> None:
    fleet = Fleet(3)
    payload, _ = payload_of("x")
    outcome = put(fleet.world, fleet.plan, Writer("w"), "k", payload, "0" * 32, until=3)
    assert isinstance(outcome, NotAcknowledged)
    assert "corrupted: the payload of key 'k' has digest" in outcome.reason
    assert isinstance(read_text(fleet.world, fleet.plan, "k"), Absent)


def test_a_planted_store_that_trusts_the_sender_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    planted_store.trusts_the_sender(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_payload_whose_digest_does_not_fit_is_named_and_nothing_is_kept()


class Lingering:
    """A runtime whose slowest answer stays on its way when an ask has enough, and is given to an equal call later."""

    def __init__(self, inner: Runtime, slow: str) -> None:
        self._inner = inner
        self._slow = slow
        self._kept: list[tuple[Call, Answer]] = []

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        old = {call.node: answer for call, answer in self._kept if call in calls}
        answers = self._inner.ask([c for c in calls if c.node not in old], enough=len(calls), until=until)
        all_of_them = old | {answer.node: answer for answer in answers}
        if enough < len(calls):
            slow = next((call for call in calls if call.node == self._slow and call.node not in old), None)
            if slow is not None:
                self._kept.append((slow, all_of_them[self._slow]))
                all_of_them[self._slow] = Answer(node=self._slow, reply=Failed(reason="late", definite=False))
        return tuple(all_of_them[call.node] for call in calls)


def test_an_answer_to_an_earlier_read_is_not_taken_for_an_answer_to_this_one() -> None:
    """An equal call joins one in flight, so every ask must be another call."""
    fleet, writer = Fleet(3), Writer("w")
    key = next(k for k in map(str, range(99)) if choose_stores(k, stores=fleet.plan.stores, copies=3)[2] == "s2")
    assert isinstance(write_text(fleet.world, fleet.plan, writer, key, "A"), Acknowledged)
    lingering = Lingering(fleet.world, "s2")
    assert read_text(lingering, fleet.plan, key) == "A"
    fleet.kill("s1")
    assert isinstance(write_text(fleet.world, fleet.plan, writer, key, "B"), Acknowledged)
    fleet.tell("s2", Damage(key=key))
    assert isinstance(read_text(lingering, fleet.plan, key), Unavailable), "only s0 has a whole copy now"


def test_a_planted_read_that_joins_an_earlier_look_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    planted_store.joins_an_earlier_look(monkeypatch)
    with pytest.raises(AssertionError, match="only s0 has a whole copy now"):
        test_an_answer_to_an_earlier_read_is_not_taken_for_an_answer_to_this_one()


class Coarse(Lingering):
    """The same with a clock that reads whole seconds."""

    def now(self) -> float:
        return float(int(super().now()))


def test_reads_in_the_same_tick_of_the_clock_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_store_stories.Lingering", Coarse)
    test_an_answer_to_an_earlier_read_is_not_taken_for_an_answer_to_this_one()
    planted_store.numbers_asks_by_the_clock(monkeypatch)
    with pytest.raises(AssertionError, match="only s0 has a whole copy now"):
        test_an_answer_to_an_earlier_read_is_not_taken_for_an_answer_to_this_one()


def test_scrubbing_mends_every_stale_or_damaged_copy() -> None:
    fleet, writer = Fleet(3), Writer("w")
    assert isinstance(write_text(fleet.world, fleet.plan, writer, "k", "x"), Acknowledged)
    fleet.world.ask([], enough=0, until=fleet.world.now() + 1)
    last = choose_stores("k", stores=fleet.plan.stores, copies=3)[2]
    fleet.tell(last, Damage(key="k"))
    outcome = scrub(fleet.world, fleet.plan, "k", until=fleet.world.now() + 3)
    assert isinstance(outcome, Value)
    assert outcome.repaired == (last,)


def test_two_writers_agree_on_one_order() -> None:
    fleet, one, two = Fleet(5), Writer("one"), Writer("two")
    for number in range(6):
        outcome = write_text(fleet.world, fleet.plan, (one, two)[number % 2], "k", str(number))
        assert isinstance(outcome, Acknowledged)
        assert outcome.version.counter == number + 1
        assert read_text(fleet.world, fleet.plan, "k") == str(number)


# ------------------------------------------------------------------------------------------------ coming and going


def test_a_restarted_store_is_brought_up_to_date_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hqde_ref.rounds.rejoining.PAGE", 3)
    monkeypatch.setattr("hqde_ref.rounds.rejoining.BATCH", 4)
    fleet, writer = Fleet(5), Writer("w")
    keys = [f"k{number}" for number in range(40)]
    for key in keys:
        assert isinstance(write_text(fleet.world, fleet.plan, writer, key, key), Acknowledged)
    fleet.restart("s1")
    mine = [key for key in keys if "s1" in choose_stores(key, stores=fleet.plan.stores, copies=3)]
    outcome = rejoin(fleet.world, fleet.plan, "s1", until=fleet.world.now() + 5)
    assert outcome == Joined(store="s1", incarnation=1, epoch=0, keys=len(mine), behind=())
    fleet.kill(next(store for store in fleet.plan.stores if store != "s1"))
    assert [read_text(fleet.world, fleet.plan, key) for key in keys] == keys


def test_a_store_does_not_serve_while_another_that_may_hold_its_writes_is_silent() -> None:
    fleet = Fleet(4)
    fleet.restart("s1")
    fleet.kill("s2")
    outcome = rejoin(fleet.world, fleet.plan, "s1", until=fleet.world.now() + 5)
    assert outcome == NotJoined(
        store="s1",
        reason="1 of the other stores did not list what they hold, 0 may be silent (s2: crashed); "
        "bring them back, or let one that is gone for good leave the plan",
    )


def test_with_one_write_copy_a_store_that_lost_it_never_serves_again() -> None:
    fleet = Fleet(3)
    plan = dataclasses.replace(fleet.plan, writes=1, reads=3)
    fleet.restart("s1")
    outcome = rejoin(fleet.world, plan, "s1", until=fleet.world.now() + 5)
    assert isinstance(outcome, NotJoined)
    assert outcome.reason.startswith("with copies=3 and writes=1 a write may have had its only copy in s1")


def test_a_key_whose_newest_copy_is_damaged_comes_back_behind_and_is_never_served_stale() -> None:
    fleet, writer = Fleet(3), Writer("w")
    assert isinstance(write_text(fleet.world, fleet.plan, writer, "k", "A"), Acknowledged)
    fleet.kill("s2")
    assert isinstance(write_text(fleet.world, fleet.plan, writer, "k", "B"), Acknowledged)
    fleet.restart("s2")
    fleet.tell("s0", Damage(key="k"))
    fleet.tell("s1", Damage(key="k"))
    outcome = rejoin(fleet.world, fleet.plan, "s2", until=fleet.world.now() + 5)
    assert isinstance(outcome, Joined)
    assert outcome.behind == ("k",)
    assert isinstance(read_text(fleet.world, fleet.plan, "k"), Unavailable)
    assert isinstance(write_text(fleet.world, fleet.plan, writer, "k", "C"), Acknowledged), "a write heals all of them"
    assert read_text(fleet.world, fleet.plan, "k") == "C"


def test_a_store_that_joins_takes_over_its_keys_and_an_old_plan_is_refused() -> None:
    fleet, writer = Fleet(4, spare=1), Writer("w")
    keys = [f"k{number}" for number in range(30)]
    for key in keys:
        assert isinstance(write_text(fleet.world, fleet.plan, writer, key, key), Acknowledged)
    after = StorePlan(stores=(*fleet.plan.stores, "s4"), epoch=1)
    standing, joined = change_plan(fleet.world, fleet.plan, after, until=fleet.world.now() + 5)
    assert standing == after
    assert [outcome.store for outcome in joined if isinstance(outcome, Joined)] == list(after.stores)
    fleet.kill("s0")
    assert [read_text(fleet.world, after, key) for key in keys] == keys
    old = read_text(fleet.world, fleet.plan, keys[0])
    assert isinstance(old, Unavailable)
    assert "has joined plan 1, wanted plan 0; rejoin it" in old.reason


def test_a_dead_store_leaves_the_plan_and_its_keys_have_three_copies_again() -> None:
    fleet, writer = Fleet(5), Writer("w")
    keys = [f"k{number}" for number in range(30)]
    for key in keys:
        assert isinstance(write_text(fleet.world, fleet.plan, writer, key, key), Acknowledged)
    fleet.kill("s1")
    after = dataclasses.replace(fleet.plan, stores=("s0", "s2", "s3", "s4"), epoch=1)
    standing, joined = change_plan(fleet.world, fleet.plan, after, until=fleet.world.now() + 5)
    assert standing == after
    assert all(isinstance(outcome, Joined) for outcome in joined), joined
    fleet.kill("s3")
    assert [read_text(fleet.world, after, key) for key in keys] == keys


def test_a_change_that_cannot_be_made_leaves_the_plan_before_standing() -> None:
    fleet, writer = Fleet(4, spare=1), Writer("w")
    assert isinstance(write_text(fleet.world, fleet.plan, writer, "k", "x"), Acknowledged)
    fleet.pause("s2")
    after = StorePlan(stores=(*fleet.plan.stores, "s4"), epoch=1)
    standing, (refused,) = change_plan(fleet.world, fleet.plan, after, until=fleet.world.now() + 5)
    assert standing == fleet.plan
    assert isinstance(refused, NotJoined)
    assert read_text(fleet.world, fleet.plan, "k") == "x"


@pytest.mark.parametrize(
    "changes", [{"stores": ("s0", "s1", "s2", "s3", "s4")}, {"epoch": 2}, {"writes": 3}, {"stores": ("s0", "s1", "s2")}]
)
def test_only_one_store_comes_or_goes_at_a_time(changes: dict[str, object]) -> None:
    before = StorePlan(stores=("s0", "s1", "s2"))
    after = StorePlan(**({"stores": ("s0", "s1", "s2", "s3"), "epoch": 1} | changes))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="a changed plan must be one store more or less, the same quorums"):
        change_plan(Local([]), before, after, until=0)
