"""Many members on real processes: how much the coordinator handles, and a thousand members through lost hosts."""

from __future__ import annotations

import dataclasses
import pickle
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from hqde_ref.messages import Accepted, Call, Policy
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.on_ray import OnRay
from simulator.adversary import Moments
from simulator.ensembles import Ensemble, accounts, numbered
from tests.live.rounds import OVERRUN_S, WAYS, both_nodes, send

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(300)]

PER_MEMBER_AND_SHARD = 2_000
MEAN = Policy(rule="weighted_mean", topology="tree", branching=8, round_within_s=60.0, hedge_after_s=20.0)
MEDIAN = dataclasses.replace(MEAN, rule="geometric_median", topology="sharded", shards=4, faulty_max=15)
SIXTY_FOUR = Ensemble(members=numbered(64), hosts=4, floats=1_000_000)
THOUSAND = Ensemble(members=numbered(1000), hosts=4, floats=100_000, crowds=True)


class Traffic:
    """The bytes that the caller of a runtime sends and reads, without what Ray moves between hosts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.handled = 0
        submit, get = OnRay._submit, ray.get

        def counting_submit(runtime: OnRay, host: str, calls: list[Call], until: float) -> Any:
            self.handled += len(ray.cloudpickle.dumps(calls))
            return submit(runtime, host, calls, until)

        def counting_get(*args: Any, **options: Any) -> Any:
            value = get(*args, **options)
            self.handled += len(pickle.dumps(value))
            return value

        monkeypatch.setattr(OnRay, "_submit", counting_submit)
        monkeypatch.setattr(ray, "get", counting_get)


def _count(runtime: OnRay, ensemble: Ensemble, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> float:
    """Bytes a member and shard in a round of which everybody has the state."""
    first = training_round(runtime, ensemble.plan(runtime, policy))
    plan = ensemble.plan(runtime, policy, number=2, after=first)
    with monkeypatch.context() as patched:
        traffic = Traffic(patched)
        verdict = training_round(runtime, plan)
    assert isinstance(verdict, Accepted), verdict
    assert verdict.used == ensemble.members
    return traffic.handled / (len(ensemble.members) * policy.shards)


@pytest.fixture(scope="module")
def small() -> Iterator[OnRay]:
    with OnRay(both_nodes(), start_within_s=120) as started:
        yield started


@pytest.mark.parametrize("way", WAYS)
def test_the_coordinator_handles_two_kilobytes_a_member_and_shard_at_most(
    small: OnRay, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble, policy = WAYS[way]
    assert _count(small, ensemble, policy, monkeypatch) <= PER_MEMBER_AND_SHARD


@pytest.mark.live
def test_traffic_of_sixty_four_members_with_a_million_floats_does_not_grow_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clause 3.5, at the size that the benchmark measures."""
    with OnRay(SIXTY_FOUR.nodes(), store_bytes=2 << 30, start_within_s=120) as runtime:
        flat = dataclasses.replace(MEDIAN, topology="flat", shards=1)
        for policy in (MEAN, MEDIAN, flat):
            assert _count(runtime, SIXTY_FOUR, policy, monkeypatch) <= PER_MEMBER_AND_SHARD


@pytest.mark.live
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_thousand_members_lose_a_host_and_the_rest_is_exact_by_the_deadline(
    fault: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = dataclasses.replace(MEAN, round_within_s=12.0, hedge_after_s=0.5)
    with OnRay(THOUSAND.nodes(), store_bytes=2 << 30, start_within_s=120) as runtime:
        first = training_round(runtime, THOUSAND.plan(runtime, policy))
        assert isinstance(first, Accepted), first
        assert first.digests == THOUSAND.mean_digests(first.used, 1, number=1)
        for stage, number in (("train", 2), ("combine", 4)):
            plan = THOUSAND.plan(runtime, policy, number=number, after=first)

            def reached(now: str, stage: str = stage) -> None:
                if now == stage:
                    send(runtime, "h2", fault)

            began = runtime.now()
            verdict = training_round(Moments(runtime, round_number=number, reached=reached), plan)
            assert runtime.now() - began <= policy.round_within_s + OVERRUN_S
            if fault is signal.SIGSTOP:
                send(runtime, "h2", signal.SIGCONT)
            assert isinstance(verdict, Accepted), verdict
            assert accounts(verdict) == sorted(THOUSAND.members)
            assert sorted(verdict.missing) == list(THOUSAND.beside("h2"))
            assert verdict.digests == THOUSAND.mean_digests(verdict.used, 1, number=number)
            runtime.settle(within_s=120)
            first = training_round(runtime, THOUSAND.plan(runtime, policy, number=number + 1, after=verdict))
            assert isinstance(first, Accepted), first
            assert first.used == THOUSAND.members, "whole again"
        assert _count(runtime, THOUSAND, MEAN, monkeypatch) <= PER_MEMBER_AND_SHARD
        robust = dataclasses.replace(MEDIAN, faulty_max=333)
        assert _count(runtime, THOUSAND, robust, monkeypatch) <= PER_MEMBER_AND_SHARD
