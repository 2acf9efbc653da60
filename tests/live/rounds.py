"""A round on real processes under a fault, and what must hold whatever the fault was."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable

from hqde_ref.messages import Accepted, NodeSpec, Policy, Verdict
from hqde_ref.nodes.crowd import CrowdSpec
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.local import Local
from hqde_ref.runtimes.on_ray import OnRay
from simulator.adversary import Moments
from simulator.ensembles import Ensemble, accounts, numbered

MEMBERS = numbered(12)
ALONE = Ensemble(members=MEMBERS, hosts=3, floats=90_011, apart=True)  # Ray sends shards below 100 kB inline
CROWDED = dataclasses.replace(ALONE, crowds=True)
TREE = Policy(rule="weighted_mean", topology="tree", branching=3, round_within_s=6.0, train_share=0.5)
FLAT = dataclasses.replace(TREE, rule="geometric_median", topology="flat", faulty_max=2)
SHARDED = dataclasses.replace(FLAT, topology="sharded", shards=3)
WAYS = {
    "tree": (ALONE, TREE),
    "flat": (ALONE, FLAT),
    "sharded": (ALONE, SHARDED),
    "crowded mean": (CROWDED, TREE),
    "crowded": (CROWDED, SHARDED),
}
OVERRUN_S = 0.5  # the caller has to wake up


def both_nodes() -> dict[str, tuple[NodeSpec, ...]]:
    """Hosts that carry the members as nodes of their own, and once more in crowds."""
    crowded = CROWDED.nodes()
    crowds = {host: tuple(spec for spec in specs if isinstance(spec, CrowdSpec)) for host, specs in crowded.items()}
    return {host: (*specs, *crowds[host]) for host, specs in ALONE.nodes().items()}


def expected_digests(ensemble: Ensemble, policy: Policy, used: tuple[str, ...], *, number: int) -> tuple[str, ...]:
    """The result over just these contributions to this round, in one process without crowds: no others are there."""
    plain = dataclasses.replace(ensemble, crowds=False)
    nodes = {
        host: tuple(spec for spec in specs if spec.name not in ensemble.members or spec.name in used)
        for host, specs in plain.nodes().items()
    }
    local = Local(nodes)
    verdict = training_round(local, plain.plan(local, policy, number=number))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.used == used
    return verdict.digests


def send(runtime: OnRay, host: str, number: signal.Signals) -> None:
    """A signal to the process of a host of ours."""
    pid = runtime.pid_of(host)
    assert pid is not None
    os.kill(pid, number)


def struck_round(
    runtime: OnRay, ensemble: Ensemble, policy: Policy, *, stage: str, strike: Callable[[], None]
) -> tuple[Accepted, float]:
    """A round in which ``strike`` happens before a stage: kept its deadline, accounts, exact. And its seconds."""
    fired: list[str] = []

    def reached(now: str) -> None:
        if now == stage:
            fired.append(now)
            strike()

    plan = ensemble.plan(runtime, policy)
    warm = training_round(runtime, plan)  # everybody holds a state that was published
    assert isinstance(warm, Accepted), warm
    assert warm.used == ensemble.members
    plan = ensemble.plan(runtime, policy, number=2, after=warm)
    began = runtime.now()
    verdict = training_round(Moments(runtime, round_number=2, reached=reached), plan)
    took = runtime.now() - began
    assert fired, f"the round has no stage {stage}"
    assert took <= policy.round_within_s + OVERRUN_S
    check_exact(ensemble, policy, verdict)
    assert isinstance(verdict, Accepted)
    return verdict, took


def check_exact(ensemble: Ensemble, policy: Policy, verdict: Verdict) -> None:
    """Everybody once, and the result is the aggregate of those used to the bit."""
    assert accounts(verdict) == sorted(ensemble.members)
    assert isinstance(verdict, Accepted), verdict
    assert verdict.digests == expected_digests(ensemble, policy, verdict.used, number=verdict.round)


def check_whole_again(runtime: OnRay, ensemble: Ensemble, policy: Policy, after: Accepted, *, number: int = 3) -> None:
    """The next round, once faults are over, has everybody."""
    runtime.settle(within_s=60)
    verdict = training_round(runtime, ensemble.plan(runtime, policy, number=number, after=after))
    assert isinstance(verdict, Accepted), verdict
    assert (verdict.used, dict(verdict.missing), dict(verdict.rejected)) == (ensemble.members, {}, {})
    check_exact(ensemble, policy, verdict)
