"""Rounds, or the weight store, while Ray itself loses messages.

Run as a process of its own with RAY_testing_rpc_failure set.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from torch import Tensor

from hqde_ref.core.quorums import plan_store
from hqde_ref.messages import Accepted, Answer, Call, Failed, Payload, Runtime, Value
from hqde_ref.nodes.store import StoreSpec
from hqde_ref.rounds.storing import scrub
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.on_ray import OnRay
from tests.live.rounds import WAYS, both_nodes, check_exact
from tests.store_fire import under_fire

ROUNDS = 3
WRITES = 120


def rounds() -> None:
    """Every kind of round, three in a row: accounts, exact, and whole once the failures are used up."""
    with OnRay(both_nodes(), start_within_s=120) as runtime:
        for way, (ensemble, usual) in WAYS.items():
            policy = dataclasses.replace(usual, round_within_s=30.0)  # Ray takes seconds to notice each loss
            after = None
            for number in range(1, ROUNDS + 1):
                plan = ensemble.plan(runtime, policy, number=number, after=after)
                verdict = training_round(runtime, plan)
                check_exact(ensemble, policy, verdict)
                assert isinstance(verdict, Accepted)
                print(f"{way}, round {number}: missing {dict(verdict.missing)}", flush=True)
                after = verdict
            assert verdict.used == ensemble.members, "by now the failures are used up"


class Unkilled:
    """Stores that nothing befalls but lost messages, which it counts."""

    def __init__(self, runtime: OnRay) -> None:
        self.plan = plan_store(runtime.hosts)
        self.world: Runtime = self
        self.lost = 0
        self.now = runtime.now
        self._runtime = runtime

    def fetch(self, payload: Payload) -> Tensor:
        return self._runtime.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        answers = self._runtime.ask(calls, enough=enough, until=until)
        self.lost += sum(isinstance(a.reply, Failed) and a.reply.reason == "unreachable" for a in answers)
        return answers

    def kill(self, store: str) -> None:
        raise AssertionError("nobody is killed here")

    restart = kill


def stores() -> None:
    """Every write is acknowledged and found again, newest version first and last, whatever got lost."""
    names = [f"s{index}" for index in range(4)]
    with OnRay({name: (StoreSpec(name=name),) for name in names}, start_within_s=120) as runtime:
        fleet = Unkilled(runtime)
        for seed in (1, 2):
            assert under_fire(fleet, WRITES // 2, kill_every=WRITES, seed=seed, fresh_writer=f"w{seed}") == (60, [])
            for number in range(97):  # a scrub waits for all copies, so that it sees what gets lost
                found = scrub(runtime=fleet, plan=fleet.plan, key=f"k{number}", until=fleet.now() + 30)
                assert not isinstance(found, Value) or len(found.repaired) <= 1, found
        print(f"{2 * (WRITES // 2)} writes acknowledged and found, {fleet.lost} messages seen to be lost", flush=True)
        assert fleet.lost > 0


if __name__ == "__main__":
    {"rounds": rounds, "stores": stores}[sys.argv[1]]()
