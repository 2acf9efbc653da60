"""Rounds of one kind, or the weight store, while Ray itself loses messages.

Run as a process of its own with RAY_testing_rpc_failure set.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from hqde_ref.core.quorums import plan_store
from hqde_ref.messages import Accepted, Answer, Call, Failed, Runtime, Value
from hqde_ref.nodes.store import StoreSpec
from hqde_ref.rounds.storing import scrub
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.on_ray import OnRay
from tests.live.rounds import WAYS, check_exact
from tests.store_fire import under_fire

ROUNDS = 6
WRITES = 120


class Counting:
    """A runtime that counts the answers which show that a message was lost."""

    def __init__(self, runtime: OnRay) -> None:
        self.lost = 0
        self.now = runtime.now
        self.fetch = runtime.fetch
        self._runtime = runtime

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        answers = self._runtime.ask(calls, enough=enough, until=until)
        self.lost += sum(isinstance(a.reply, Failed) and a.reply.reason == "unreachable" for a in answers)
        return answers


def rounds(way: str) -> None:
    """Six rounds of a kind: account, exact, and whole once the failures are used up. Some are really seen."""
    ensemble, usual = WAYS[way]
    policy = dataclasses.replace(usual, round_within_s=60.0)  # Ray takes seconds to notice each loss
    with OnRay(ensemble.nodes(), start_within_s=120) as runtime:
        world = Counting(runtime)
        after = None
        for number in range(1, ROUNDS + 1):
            verdict = training_round(world, ensemble.plan(world, policy, number=number, after=after))
            check_exact(ensemble, policy, verdict)
            assert isinstance(verdict, Accepted)
            print(f"{way}, round {number}: missing {dict(verdict.missing)}, {world.lost} calls lost", flush=True)
            after = verdict
        assert verdict.used == ensemble.members, "by now the failures are used up"
        assert world.lost > 0


class Unkilled(Counting):
    """Stores that nothing befalls but lost messages."""

    def __init__(self, runtime: OnRay) -> None:
        super().__init__(runtime)
        self.plan = plan_store(runtime.hosts)
        self.world: Runtime = self

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
    {"rounds": rounds, "stores": stores}[sys.argv[1]](*sys.argv[2:])
