"""Damage to a store's copy: it has fired where a read or a repair met it, and nowhere else (clause 2.7)."""

from __future__ import annotations

import pytest
import torch

from hqde_ref.core.packing import digest
from hqde_ref.messages import (
    UNANSWERED,
    Payload,
    Put,
    Reply,
    Request,
    Version,
)
from simulator.checkers import check_fired
from simulator.execution import conclude, exit_code, run_all, summarise
from simulator.fragile import AskFate, Damage, Damaged, Fate, Fragile
from simulator.scenario_reading import parse_scenario
from tests.store_scenarios import BASE, FIVE, HOLDERS, plant_store, small, stored_law, written


def test_a_damaged_copy_is_noticed_and_mended_by_the_read() -> None:
    scenario = small(f"{{action: damage, target: {HOLDERS[0]}, at: {{round: 2, stage: read}}}}")
    run, trace = written(scenario)
    assert [strike.fired for strike in run.strikes] == [1]
    assert [event["repaired"] for event in trace.events if event["event"] == "store read"][1] == [HOLDERS[0]]
    met = [(event["round"], event["store"]) for event in trace.events if event["event"] == "store damage met"]
    assert met == [(2, HOLDERS[0])]
    assert stored_law(scenario, run)[0] == "HOLDS"


def test_damage_that_is_written_over_before_any_read_makes_the_run_vacuous_and_says_so() -> None:
    scenario = small("{action: damage, target: [s0, s2], at: {round: 2, stage: write}}")
    execution = conclude(scenario, list(run_all(scenario, on="sim", variants=("as written",))))
    (finding,) = check_fired(execution.runs[0])
    assert (finding.status, finding.because) == (
        "CANNOT_TELL",
        "the copy on s0, s2 was damaged, but no read is known to have met it: it was written over, lost or left",
    )
    assert exit_code(execution) == 2
    assert summarise(execution)["runs"][0]["faults"] == [
        {"action": "damage", "hits": ["s0", "s2"], "fired": 0, "met": [], "unmet": ["s0", "s2"]}
    ]


def test_damage_that_only_a_read_of_a_later_round_meets_counts_then() -> None:
    """Two stopped stores keep the result of round 2 from being written, so the damaged copy is there in round 3."""
    scenario = small(
        "{action: pause, target: [s0, s1], stage: write, during: {rounds: [2, 2]}}",
        "{action: damage, target: s2, at: {round: 2, stage: combine}}",
    )
    run, trace = written(scenario)
    assert [(strike.fired, strike.unmet) for strike in run.strikes] == [(1, ()), (1, ())]
    assert [event["round"] for event in trace.events if event["event"] == "store damage met"] == [3]


def test_damage_in_the_last_round_is_met_by_the_read_after_it_where_nothing_was_written() -> None:
    scenario = small(
        "{action: pause, target: [s0, s1], stage: write, during: {rounds: [3, 3]}}",
        "{action: damage, target: s2, at: {round: 3, stage: combine}}",
    )
    assert [strike.fired for strike in written(scenario)[0].strikes] == [1, 1]


def test_damage_that_dies_with_its_store_does_not_count() -> None:
    run, _ = written(
        small(
            "{action: damage, target: s2, at: {round: 2, stage: combine}}",
            "{action: crash, target: s2, at: {round: 2, stage: publish}}",
        )
    )
    assert [(strike.fired, strike.unmet) for strike in run.strikes] == [(0, ("s2",)), (1, ())]


@pytest.mark.parametrize(
    "after", ["crash, target: s2, at: {round: 2, stage: train}", "remove, target: n2, at: {round: 2}"]
)
def test_damage_that_a_read_met_counts_although_its_store_dies_in_the_same_round(after: str) -> None:
    damage = "{action: damage, target: s2, at: {round: 2, stage: read}}"
    text = BASE.format(faults=f"{damage}, {{action: {after}}}", rounds=3, store=FIVE + ", nodes: 3")
    scenario = parse_scenario(text.replace("hosts: 2", "hosts: 3"), file="small.yaml")
    run, trace = written(scenario)
    assert [event["repaired"] for event in trace.events if event["event"] == "store read"][1] == ["s2"]
    assert (run.strikes[0].fired, run.strikes[0].met, run.strikes[0].unmet) == (1, ("s2",), ())


def test_damage_that_only_a_rejoining_store_met_counts_although_its_own_store_dies_before_the_next_read() -> None:
    """Round 2 has no result that goes over the damage, and s0 asks s1 and s2 for what it lost."""
    run, _ = written(
        small(
            "{action: pause, target: [s0, s2], stage: write, during: {rounds: [2, 2]}}",
            "{action: damage, target: s1, at: {round: 2, stage: combine}}",
            "{action: crash, target: s0, at: {round: 2, stage: publish}}",
            "{action: crash, target: s1, at: {round: 3, stage: read}}",
        )
    )
    assert (run.strikes[1].met, run.strikes[1].unmet) == (("s1",), ())


def test_two_damages_of_one_copy_do_not_undo_each_other() -> None:
    damage = "{action: damage, target: s2, at: {round: 2, stage: read}}"
    run, trace = written(small(damage, damage))
    assert [event["repaired"] for event in trace.events if event["event"] == "store read"][1] == ["s2"]
    assert [(strike.fired, strike.met) for strike in run.strikes] == [(1, ("s2",))] * 2


@pytest.mark.parametrize("marks", [(0, 8), (0, 1, 9), (3, 3)])
def test_every_mark_flips_a_bit_of_its_own_and_a_message_that_comes_twice_flips_one(marks: tuple[int, ...]) -> None:
    store = Fragile("s0", 0, epoch=0)
    content = torch.zeros(9, dtype=torch.uint8)
    version = Version(counter=1, writer="w")
    payload = Payload(key="k", ref=content, nbytes=9)
    store.perform(Put(epoch=0, key="k", version=version, payload=payload, digest=digest(content)))
    assert store.perform(AskFate(mark=marks[0])) == Fate(fate="unheard of")
    for mark in marks:
        assert store.perform(Damage(key="k", mark=mark)) == Damaged(fired=True)
    held = store._held["k"].content
    assert held is not None
    assert sum(byte.bit_count() for byte in held.tolist()) == len(set(marks))
    assert store.perform(AskFate(mark=marks[0])) == Fate(fate="in place")


class _DoesNotSay(Fragile):
    """The answer to a damage gets lost."""

    def perform(self, request: Request, /) -> Reply:
        reply = super().perform(request)
        return UNANSWERED if isinstance(request, Damage) else reply


class _HearsNothing(Fragile):
    """The damage gets lost."""

    def perform(self, request: Request, /) -> Reply:
        return UNANSWERED if isinstance(request, Damage) else super().perform(request)


@pytest.mark.parametrize(("stage", "outcome"), [("read", (1, ("s2",), ())), ("write", (0, (), ("s2",)))])
def test_damage_whose_answer_is_lost_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, stage: str, outcome: tuple[int, tuple[str, ...], tuple[str, ...]]
) -> None:
    plant_store(monkeypatch, _DoesNotSay)
    run, trace = written(small(f"{{action: damage, target: s2, at: {{round: 2, stage: {stage}}}}}"))
    assert [(strike.fired, strike.met, strike.unmet) for strike in run.strikes] == [outcome]
    told = [(event["round"], event["action"], event["hits"]) for event in trace.events if event["event"] == "fault"]
    assert told == [(2, "damage", ["s2"])]


def test_damage_that_is_lost_on_its_way_never_took_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    plant_store(monkeypatch, _HearsNothing)
    run, trace = written(small("{action: damage, target: s2, at: {round: 2, stage: read}}"))
    assert [(f.status, f.because) for f in check_fired(run)] == [("CANNOT_TELL", "it never took effect")]
    assert run.strikes[0].unmet == ()
    assert not [event for event in trace.events if event["event"] == "fault"]


@pytest.mark.parametrize("network", ["lost_requests: 0.3", "lost_responses: 0.3"])
def test_damage_that_a_read_repaired_is_met_although_messages_get_lost(network: str) -> None:
    damage = "{action: damage, target: s2, at: {round: 2, stage: read}}"
    text = BASE.format(faults=damage, rounds=2, store=FIVE.replace("}", ", within: 30s}"))
    scenario = parse_scenario(text.replace("latency: 1ms", network), file="small.yaml")
    met = 0
    for seed in range(12):
        run, trace = written(scenario.model_copy(update={"seed": seed}))
        is_damaged = any(event["event"] == "fault" and event["action"] == "damage" for event in trace.events)
        kept = run.rounds[1].kept
        assert kept is not None
        assert run.strikes[0].met or "s2" not in kept.read.repaired or not is_damaged, seed
        assert is_damaged == bool(run.strikes[0].met + run.strikes[0].unmet), seed
        met += run.strikes[0].fired
    assert met >= 6


def test_of_damage_that_was_partly_met_only_that_is_said_to_have_fired() -> None:
    run, _ = written(
        small(
            "{action: damage, target: [s0, s2, s3], at: {round: 2, stage: read}}",  # s3 holds no copy
            "{action: crash, target: s0, at: {round: 2, stage: read}}",
        )
    )
    finding, _ = check_fired(run)
    assert (finding.status, finding.because) == (
        "HOLDS",
        "met on s2; the copy on s0 was damaged, but no read is known to have met it: it was written over, lost or left",
    )


def test_each_damage_is_counted_for_itself() -> None:
    run, _ = written(
        small(
            "{action: damage, target: s2, at: {round: 2, stage: combine}}",
            "{action: damage, target: s2, at: {round: 3, stage: read}}",
        )
    )
    assert [(strike.fired, strike.unmet) for strike in run.strikes] == [(0, ("s2",)), (1, ())]


@pytest.mark.parametrize(
    "faults",
    [
        "{action: damage, target: s3, at: {round: 2, stage: read}}",  # it holds no copy
        "{action: damage, target: s2, at: {round: 2, stage: reduce}}",  # no such stage in a flat round
    ],
)
def test_damage_that_finds_no_copy_or_no_moment_makes_the_run_vacuous(faults: str) -> None:
    execution = conclude(scenario := small(faults), list(run_all(scenario, on="sim", variants=("as written",))))
    assert [(f.law, f.status) for f in check_fired(execution.runs[0])] == [("fault 0 (damage) fired", "CANNOT_TELL")]
    assert exit_code(execution) == 2


@pytest.mark.parametrize(
    "before", ["crash, target: s2, at: {round: 2, stage: read}", "pause, target: s2, during: {rounds: [2, 2]}"]
)
def test_damage_to_a_store_that_is_dead_or_stopped_does_not_fire(before: str) -> None:
    run, _ = written(small(f"{{action: {before}}}", "{action: damage, target: s2, at: {round: 2, stage: read}}"))
    assert [strike.fired for strike in run.strikes] == [1, 0]
