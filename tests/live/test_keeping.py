"""Hosts kept up between rounds, and stores spread over nodes: on live Ray."""

from __future__ import annotations

import dataclasses
import signal
import warnings
from collections.abc import Iterator, Sequence

import pytest

from hqde_ref.errors import ConfigurationError, RuntimeFault
from hqde_ref.messages import Accepted, Acknowledged, Adopt, Answer, Call, Policy, Verdict, replace_payloads
from hqde_ref.rounds.storing import Writer, put
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.keeping import next_plan, run_rounds
from hqde_ref.runtimes.on_ray import OnRay
from hqde_ref.runtimes.spreading import TooFewNodes, spread_stores
from simulator.ensembles import Ensemble, numbered
from tests.stores import payload_of

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(300)]
SIX = Ensemble(members=numbered(6), hosts=3, floats=100)
POLICY = Policy(rule="coordinate_median", faulty_max=1, round_within_s=10.0, train_share=0.3)


@pytest.fixture(scope="module")
def runtime() -> Iterator[OnRay]:
    with OnRay(SIX.nodes(), start_within_s=120) as started:
        yield started


def test_a_host_that_is_killed_is_back_for_the_next_round(runtime: OnRay) -> None:
    before, verdicts = runtime.pid_of("h1"), []
    for verdict in run_rounds(runtime, SIX.plan(runtime, POLICY), rounds=3):
        verdicts.append(verdict)
        if len(verdicts) == 1:
            assert runtime.send("h1", signal.SIGKILL)
    assert runtime.pid_of("h1") not in (None, before)
    assert [v.round for v in verdicts] == [1, 2, 3]
    assert all(isinstance(v, Accepted) and v.used == SIX.members for v in verdicts), verdicts


def test_rounds_go_on_without_a_host_that_is_not_back_in_time_if_somebody_is_told(runtime: OnRay) -> None:
    told: list[RuntimeFault] = []
    first, second = None, None
    for verdict in run_rounds(
        runtime, SIX.plan(runtime, POLICY), rounds=2, settle_within_s=0.01, unsettled=told.append
    ):
        first, second = second, verdict
        if first is None:
            assert runtime.send("h2", signal.SIGKILL)
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert [str(fault).split(";")[0] for fault in told] == ["host(s) h2: not ready within 0.01 s"]
    assert {*SIX.beside("h0"), *SIX.beside("h1")} <= set(second.used)
    runtime.settle(within_s=60)


def test_a_host_that_is_stopped_costs_its_members_and_no_time_between_rounds_and_takes_part_when_it_goes_on(
    runtime: OnRay,
) -> None:
    """It lives, so nothing is started in its place and nobody waits for it."""
    before, verdicts = runtime.pid_of("h1"), list[Verdict]()
    try:
        for verdict in run_rounds(runtime, SIX.plan(runtime, POLICY), rounds=4, settle_within_s=30.0):
            verdicts.append(verdict)
            if len(verdicts) in (1, 3):
                assert runtime.send("h1", signal.SIGSTOP if len(verdicts) == 1 else signal.SIGCONT)
    finally:
        runtime.send("h1", signal.SIGCONT)
    assert all(isinstance(verdict, Accepted) for verdict in verdicts)
    assert [set(v.missing) for v in verdicts] == [set(), set(SIX.beside("h1")), set(SIX.beside("h1")), set()]
    assert runtime.pid_of("h1") == before


def test_without_anybody_to_tell_the_fault_is_raised(runtime: OnRay) -> None:
    rounds = run_rounds(runtime, SIX.plan(runtime, POLICY), rounds=2, settle_within_s=0.01)
    next(rounds)
    assert runtime.send("h2", signal.SIGKILL)
    with pytest.raises(RuntimeFault, match=r"^host\(s\) h2: not ready within 0\.01 s; "):
        next(rounds)
    runtime.settle(within_s=60)


class Partly:
    """Once, all nodes but the first are given a result whose bytes are really gone."""

    def __init__(self, runtime: OnRay) -> None:
        self._runtime = runtime
        self.losses = 0
        self.now, self.fetch = runtime.now, runtime.fetch
        runtime.prepare_loss()

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        if self.losses or not any(isinstance(call.request, Adopt) and call.request.round == 1 for call in calls):
            return self._runtime.ask(calls, enough=enough, until=until)
        self.losses += 1
        rest = [dataclasses.replace(c, request=replace_payloads(c.request, self._runtime.lose)) for c in calls[1:]]
        return self._runtime.ask([calls[0], *rest], enough=enough, until=until)


def test_a_result_that_is_lost_when_one_has_it_is_made_again_for_the_others(runtime: OnRay) -> None:
    policy = dataclasses.replace(POLICY, round_within_s=30.0, train_share=0.2, hedge_after_s=8.0)
    losing, plan = Partly(runtime), SIX.plan(runtime, policy)
    whole = training_round(runtime, dataclasses.replace(plan, round=1))
    assert isinstance(whole, Accepted)
    verdict = training_round(losing, plan)
    assert losing.losses == 1
    assert isinstance(verdict, Accepted)
    assert (verdict.used, verdict.behind, verdict.digest) == (SIX.members, {}, whole.digest)
    second = training_round(runtime, next_plan(plan, verdict))
    assert isinstance(second, Accepted)
    assert (second.used, second.missing) == (SIX.members, {})


def test_stores_on_one_node_work_and_say_that_copies_share_it() -> None:
    names = ("s0", "s1", "s2", "s3")
    with warnings.catch_warnings(record=True) as told, spread_stores(names) as (runtime, plan):
        assert [str(one.message) for one in told if one.category is TooFewNodes] == [
            "wanted 3 nodes for 3 copies of a key, got 1: losing one node may lose several copies; "
            "add nodes or keep fewer copies."
        ]
        assert plan.domains == (runtime.node_of("s0"),) * 4
        payload, code = payload_of("content", size=64)
        outcome = put(runtime, plan, Writer("w"), "key", payload, code, until=runtime.now() + 30)
        assert isinstance(outcome, Acknowledged)


def test_one_copy_on_one_node_is_nothing_to_tell_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", TooFewNodes)
        with spread_stores(("s0", "s1"), copies=1) as (_, plan):
            assert plan.copies == 1


def test_more_copies_than_stores_are_refused_before_anything_starts() -> None:
    with (
        pytest.raises(ConfigurationError, match=r"^copies must be .*got 3"),
        spread_stores(("s0", "s1")),
    ):
        raise AssertionError("nothing starts")
