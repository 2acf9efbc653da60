"""The weight store in virtual time: every small case of faults, and long runs in which stores keep dying."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqde_ref.messages import (
    Acknowledged,
    Joined,
)
from hqde_ref.rounds.storing import Writer
from simulator.fragile import Damage
from tests import planted_store, store_cases
from tests.store_fire import under_fire
from tests.stores import Fleet, read_text, write_text

# ------------------------------------------------------------------------------------------------ every small case


@pytest.mark.parametrize("group", ["SINGLE", "DOUBLE", "PARTIAL", "THRICE", "LATE"])
def test_no_acknowledged_write_is_lost_or_stale_wherever_faults_strike(group: str) -> None:
    assert list(store_cases.violations(getattr(store_cases, group))) == []


@pytest.mark.parametrize(
    ("bug", "group"),
    [
        (planted_store.reads_do_not_repair, "PARTIAL"),
        (planted_store.serves_before_it_is_up_to_date, "PARTIAL"),
        (planted_store.acknowledges_at_one, "PARTIAL"),
        (planted_store.last_to_arrive_wins, "LATE"),
        (planted_store.returns_the_first_version_seen, "SINGLE"),
        (planted_store.reads_from_one, "SINGLE"),
        (planted_store.does_not_check_digests, "SINGLE"),
        (planted_store.forgets_its_clock, "THRICE"),
        (planted_store.an_older_value_mends_a_damaged_copy, "LATE"),
        (planted_store.is_content_with_one_other, "PARTIAL"),
        (planted_store.serves_in_another_incarnation, "PARTIAL"),
        (planted_store.counts_a_confirmation_of_an_earlier_life, "PARTIAL"),
        (planted_store.counts_a_store_that_does_not_serve, "PARTIAL"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_small_cases_catch_a_planted_bug(
    bug: Callable[[pytest.MonkeyPatch], None], group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    assert next(store_cases.violations(getattr(store_cases, group)), None) is not None


# ------------------------------------------------------------------------------------------------ under fire


def test_ten_thousand_acknowledged_writes_with_a_store_killed_every_200() -> None:
    assert under_fire(Fleet(5), 10_000, kill_every=200, seed=7) == (10_000, [])


def test_the_loop_under_fire_sees_a_store_that_serves_before_it_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    planted_store.serves_before_it_is_up_to_date(monkeypatch)
    joined = Joined(store="any", incarnation=1, epoch=0, keys=0, behind=())
    monkeypatch.setattr("tests.store_fire.rejoin", lambda runtime, plan, store, until: joined)
    assert under_fire(Fleet(5), 1_500, kill_every=50, seed=7)[1] != []


_TEXT = st.text(max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(_TEXT, st.integers(0, 99), st.sampled_from(["", "kill", "pause", "damage"]))),
    who=st.integers(0, 4),
)
def test_with_one_faulty_store_the_store_is_a_dictionary(steps: list[tuple[str, int, str]], who: int) -> None:
    fleet, writer, model = Fleet(5), Writer("w"), dict[str, str]()
    store = f"s{who}"
    for key, number, fault in steps:
        match fault:
            case "kill":
                fleet.kill(store)
            case "pause":
                fleet.pause(store)
            case "damage":
                fleet.tell(store, Damage(key=key))
        model[key] = str(number)
        assert isinstance(write_text(fleet.world, fleet.plan, writer, key, str(number)), Acknowledged)
    for key, text in model.items():
        assert read_text(fleet.world, fleet.plan, key) == text
