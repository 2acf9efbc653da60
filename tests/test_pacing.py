"""Inner nodes move off hosts that were slow in the round before, in virtual time and on real processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from hqde_ref.core.trees import assign_inner_nodes, find_slow, plan_tree
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import Accepted, Span
from hqde_ref.rounds import asking
from hqde_ref.rounds.pacing import Timekeeper, carriers
from hqde_ref.rounds.plans import Crowding, Seat
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.local import Local
from simulator.adversary import Moments
from simulator.execution import conclude, exit_code, run_all
from simulator.runtime import Simulated
from simulator.scenario_reading import load_scenario
from simulator.trace import Trace
from tests.test_training_rounds import MEAN, MEMBERS, _hosts, _plan

SCENARIO = load_scenario(Path("scenarios/slow_host_moves_off.yaml"))
QUICK = SCENARIO.model_copy(update={"workload": SCENARIO.workload.model_copy(update={"steps": 5})})
CARRIED = ("Screen", "Combine")


def carried(trace: Trace, number: int) -> set[str]:
    """The hosts that did an inner node's work in this round."""
    (began,) = (e["time"] for e in trace.events if e["event"] == "round began" and e["round"] == number)
    (ended,) = (e["time"] for e in trace.events if e["event"] == "round ended" and e["round"] == number)
    spans = [e for e in trace.events if e["event"] == "span" and e["request"] in CARRIED]
    return {span["host"] for span in spans if began <= span["time"] <= ended}


def check_moves(traces: Sequence[Trace]) -> None:
    """h3 is slow in rounds 1 and 2, which is known in rounds 2 and 3."""
    for trace in traces:
        world = trace.header["world"]
        assert "h3" in carried(trace, 1), f"{world}: nobody is known to be slow yet"
        for number in (2, 3):
            assert carried(trace, number), f"{world}: somebody does the work of round {number}"
            assert "h3" not in carried(trace, number), f"{world}: the slow host has work in round {number}"


def test_the_slow_host_of_the_scenario_carries_no_inner_node_from_the_next_round_on() -> None:
    done = list(run_all(QUICK, on="sim", variants=("as written",)))
    assert exit_code(conclude(QUICK, done)) == 0
    traces = [trace for _, trace in done]
    check_moves(traces)
    assert "h3" in carried(traces[0], 4), "it was as fast as the others in round 3"
    again = [trace for _, trace in run_all(QUICK, on="sim", variants=("as written",))]
    assert [trace.digest for trace in again] == [trace.digest for trace in traces]


def test_nothing_moves_where_the_policy_takes_no_notice_of_times() -> None:
    system = QUICK.system.model_copy(update={"slow_factor": None})
    scenario = QUICK.model_copy(update={"system": system})
    ((run, trace),) = run_all(scenario, on="sim", variants=("as written",))
    assert all("h3" in carried(trace, number) for number in (1, 2, 3, 4))
    ((moved, _),) = run_all(QUICK, on="sim", variants=("as written",))
    digests = [[r.verdict.digest for r in one.rounds if isinstance(r.verdict, Accepted)] for one in (run, moved)]
    assert digests[0] == digests[1], "who adds up has no say in the bits"


@pytest.mark.live
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(300)
def test_the_slow_host_carries_no_inner_node_on_real_processes_either() -> None:
    try:
        done = list(run_all(SCENARIO, on="both", variants=("as written",)))
    finally:
        ray.shutdown()
    execution = conclude(SCENARIO, done)
    assert [j for j in execution.findings if j.finding.status != "HOLDS"] == []
    check_moves([trace for _, trace in done])


def _forgets_times(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timekeeper, "note", lambda self, span: None)


def _deals_in_turn(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hqde_ref.rounds.climbing.assign_inner_nodes", lambda tree, seconds: {})


def _nobody_is_slow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hqde_ref.rounds.pacing.find_slow", lambda seconds, factor: frozenset())
    patch.setattr("hqde_ref.rounds.climbing.assign_inner_nodes", lambda tree, seconds: _in_turn(tree, seconds))


def _in_turn(tree: object, seconds: object) -> dict[tuple[int, int], str]:
    hosts = sorted(seconds)  # type: ignore[call-overload]
    places = [(level, place) for level in range(tree.depth) for place in range(tree.levels[level])]  # type: ignore[attr-defined]
    return {place: hosts[index % len(hosts)] for index, place in enumerate(places)}


@pytest.mark.parametrize("bug", [_forgets_times, _deals_in_turn, _nobody_is_slow])
def test_a_planted_round_that_does_not_mind_times_is_seen(
    bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError, match="the slow host has work in round 2"):
        check_moves([trace for _, trace in run_all(QUICK, on="sim", variants=("as written",))])


# ------------------------------------------------------------------------------------------------ pure parts


@given(
    seconds=st.dictionaries(st.sampled_from([f"h{i}" for i in range(9)]), st.floats(1e-6, 1e6), min_size=1),
    factor=st.floats(1.01, 100),
)
def test_at_most_half_of_the_hosts_are_slow_and_none_is_slow_alone(seconds: dict[str, float], factor: float) -> None:
    slow = find_slow(seconds, factor=factor)
    assert len(slow) <= len(seconds) / 2
    assert all(seconds[host] > seconds[other] for host in slow for other in seconds.keys() - slow)


@given(workers=st.integers(1, 60), branching=st.integers(2, 5), hosts=st.integers(2, 6))
def test_every_inner_node_has_one_host_that_is_not_slow_and_the_shape_stays(
    workers: int, branching: int, hosts: int
) -> None:
    """Clauses 3.1 and 3.2: times deal the nodes of a plan, they do not make another one."""
    tree = plan_tree(workers=workers, branching=branching)
    seconds = {f"h{index}": 1.0 for index in range(hosts)} | {"h1": 50.0}
    fast = {host: time for host, time in seconds.items() if host not in find_slow(seconds, factor=2)}
    dealt = assign_inner_nodes(tree, seconds=fast)
    assert set(dealt) == {(level, place) for level in range(tree.depth) for place in range(tree.levels[level])}
    assert "h1" not in dealt.values()


def _span(node: str, seconds: float, *, request: str = "Train", outcome: str = "Contribution") -> Span:
    return Span(host="h", node=node, request=request, start=1.0, finish=1.0 + seconds, outcome=outcome)


def test_the_longest_training_of_a_round_counts_and_what_failed_does_not() -> None:
    seats = (Seat(aggregator="a0", beside=("w0", "w1")), Seat(aggregator="a1", beside=("w2",)))
    keeper = Timekeeper()
    for span in (_span("w0", 2.0), _span("w0", 0.1), _span("w1", 4.0), _span("w2", 9.0, outcome="Failed")):
        keeper.note(span)
    keeper.note(_span("a1", 9.0, request="Combine", outcome="Combined"))
    assert keeper.pace(seats) == {"a0": 3.0}
    keeper.note(_span("w0", 1.0))
    assert keeper.pace(seats) == {"a0": 2.5}, "each round anew; who did not answer is as it was"


def test_a_crowds_time_is_shared_by_its_members() -> None:
    keeper = Timekeeper()
    keeper.note(_span("c0", 6.0, request="Muster", outcome="Mustered"))
    seats = (Seat(aggregator="a0", beside=("w0", "w1")),)
    assert keeper.pace(seats, (Crowding(node="c0", members=("w0", "w1")),)) == {"a0": 3.0}


def test_who_is_silent_or_slow_carries_nothing_and_who_was_never_measured_may() -> None:
    plan = _plan(Local(_hosts()), dataclasses.replace(MEAN, slow_factor=2.0))
    plan = dataclasses.replace(plan, pace={"a0": 1.0, "a1": 1.1, "a2": 9.0})
    assert carriers(plan, present=MEMBERS) == {"a0": 1.0, "a1": 1.1, "a3": 1.1}
    assert carriers(plan, present=MEMBERS[2:]) == {"a1": 1.1, "a3": 1.1}
    assert carriers(dataclasses.replace(plan, policy=MEAN), present=MEMBERS) == {}


def test_who_hangs_is_waited_for_once_a_round_although_times_give_it_inner_nodes() -> None:
    took = []
    even = dict.fromkeys(["a0", "a1", "a2", "a3"], 1.0)
    for pace, hung in (({}, "h0"), (even, "h0"), (even, None)):
        world = Simulated(_hosts())
        policy = dataclasses.replace(MEAN, branching=2, slow_factor=2.0, hedge_after_s=0.2)
        plan = dataclasses.replace(_plan(world, policy), pace=pace)
        began = world.now()
        hanging = Moments(
            world, round_number=1, reached=lambda now, w=world, h=hung: w.pause(h) if h and now == "screen" else None
        )
        verdict = training_round(hanging, plan)
        assert isinstance(verdict, Accepted)
        took.append(world.now() - began)
    twice = took[2] + 2 * policy.hedge_after_s + 0.1  # once by the story, once by the call for adoption
    assert max(took) < twice, took


def test_a_planted_round_that_waits_for_it_at_every_level_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    hedge = asking._hedge

    def forgetful(silent: Sequence[Any], seats: Sequence[str], hedged: set[str]) -> None:
        hedge(silent, seats, set(hedged))

    monkeypatch.setattr(asking, "_hedge", forgetful)
    with pytest.raises(AssertionError):
        test_who_hangs_is_waited_for_once_a_round_although_times_give_it_inner_nodes()


@pytest.mark.parametrize("factor", [1.0, 0.0, float("nan"), float("inf")])
def test_a_factor_that_makes_no_sense_is_refused(factor: float) -> None:
    plan = _plan(Local(_hosts()), dataclasses.replace(MEAN, slow_factor=factor))
    with pytest.raises(ConfigurationError, match="slow_factor must be above 1, or None to take no notice of times"):
        training_round(Local(_hosts()), plan)
