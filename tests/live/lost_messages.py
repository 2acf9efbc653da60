"""Rounds while Ray itself loses messages. Run as a process of its own with RAY_testing_rpc_failure set."""

from __future__ import annotations

import dataclasses

from hqde_ref.messages import Accepted
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.on_ray import OnRay
from tests.live.rounds import WAYS, both_nodes, check_exact

ROUNDS = 3


def main() -> None:
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


if __name__ == "__main__":
    main()
