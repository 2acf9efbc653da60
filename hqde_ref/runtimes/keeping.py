"""Rounds one after the other, with the hosts brought up again in between.

Source: HQDE clauses 1.6 and 6.5. A round is a function of its plan and restarts nothing; whoever runs rounds calls
``settle`` between them. This does both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol

from hqde_ref.errors import RuntimeFault, require_integer
from hqde_ref.messages import Accepted, Runtime, Verdict
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.training import training_round

__all__ = ["KeptRuntime", "next_plan", "run_rounds"]


class KeptRuntime(Runtime, Protocol):
    """A runtime that can bring its hosts up again, as ``OnRay`` does."""

    def settle(self, *, within_s: float) -> None:
        """Restart hosts that died and wait until all are ready; ``RuntimeFault`` names those that are not in time."""


def next_plan(plan: RoundPlan, verdict: Verdict) -> RoundPlan:
    """The plan of the round after: from the new state, or after a refusal from the one that stands; the next batch."""
    state, digests = plan.state, plan.state_digests
    if isinstance(verdict, Accepted):
        state, digests = verdict.payloads, verdict.digests
    return dataclasses.replace(
        plan, round=plan.round + 1, state=state, state_digests=digests, batch_start=plan.batch_start + plan.batch
    )


def run_rounds(
    runtime: KeptRuntime,
    first: RoundPlan,
    *,
    rounds: int,
    settle_within_s: float = 60.0,
    unsettled: Callable[[RuntimeFault], None] | None = None,
) -> Iterator[Verdict]:
    """Carry out rounds from this plan on, and give each verdict; what died is up again before the next one starts.

    Args:
        settle_within_s: how long hosts may take between two rounds; a healthy system takes no time.
        unsettled: told of hosts that are not back in time; rounds go on without them, and their verdicts name who is
            missing. Without it the fault is raised.

    Raises:
        ConfigurationError: as ``training_round``; at once for ``rounds`` below 1.
        RuntimeFault: naming the hosts that are not back in time, unless somebody is told.
    """
    require_integer("rounds of run_rounds", rounds, least=1, do="run one round or more")
    return _run(runtime, first, rounds, settle_within_s, unsettled)


def _run(
    runtime: KeptRuntime,
    first: RoundPlan,
    rounds: int,
    settle_within_s: float,
    unsettled: Callable[[RuntimeFault], None] | None,
) -> Iterator[Verdict]:
    plan = first
    for left in range(rounds - 1, -1, -1):
        verdict = training_round(runtime, plan)
        yield verdict
        plan = next_plan(plan, verdict)
        if not left:
            return
        try:
            runtime.settle(within_s=settle_within_s)
        except RuntimeFault as fault:
            if unsettled is None:
                raise
            unsettled(fault)
