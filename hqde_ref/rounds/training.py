"""The story of a training round: train, gather, aggregate, publish.

Source: HQDE clauses 1.3, 1.6, 3.9, 6.1 to 6.5; ``docs/design.md``, the laws of ``ask``. It reads no clock but the
runtime's.
"""

from __future__ import annotations

from hqde_ref.core.judging import check_policy, gather
from hqde_ref.core.splitting import split_batch
from hqde_ref.messages import UNKNOWN, Accepted, Adopt, Call, Failed, Reply, Runtime, Train, Verdict
from hqde_ref.rounds.asking import Desk, prefer_seats
from hqde_ref.rounds.calling import call_up
from hqde_ref.rounds.crowded import crowded_round
from hqde_ref.rounds.flat import flat_round
from hqde_ref.rounds.mapreduce import mapreduce_round
from hqde_ref.rounds.mustering import muster
from hqde_ref.rounds.pacing import carriers, slow_aggregators
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.sharded import sharded_round
from hqde_ref.rounds.tree import tree_round

__all__ = ["training_round"]

_TOPOLOGIES = {"flat": flat_round, "tree": tree_round, "mapreduce": mapreduce_round, "sharded": sharded_round}
PUBLISH_SHARE = 0.25  # of what is left of the round once training is over


def training_round(runtime: Runtime, plan: RoundPlan) -> Verdict:
    """Carry out one round; ends by its deadline with a verdict that accounts for every member (clause 6.1).

    Raises:
        ConfigurationError: for a policy that makes no sense with these members.
    """
    check_policy(plan.policy, members=len(plan.members))
    start = runtime.now()
    end = start + plan.policy.round_within_s
    train_until = start + plan.policy.train_share * plan.policy.round_within_s
    publish_from = end - PUBLISH_SHARE * (end - train_until)

    if plan.crowds:
        roll = muster(runtime, plan, until=train_until)
        gathered = roll.gathered
    else:
        replies = _train(runtime, plan, until=train_until)
        gathered = gather(
            replies,
            members=plan.members,
            round_number=plan.round,
            weighting=plan.policy.weighting,
            shards=plan.policy.shards,
        )
    present = frozenset(c.worker for c in gathered.contributions)
    desk = Desk(
        runtime=runtime,
        plan=plan,
        seats=prefer_seats(plan.seats, present=present, slow=slow_aggregators(plan)),
        until=publish_from,
        carriers=carriers(plan, present=present),
    )
    verdict = crowded_round(desk, roll) if plan.crowds else _TOPOLOGIES[plan.policy.topology](desk, gathered)
    if isinstance(verdict, Accepted):
        _publish(runtime, plan, verdict, present=present, until=end)
    return verdict


def _train(runtime: Runtime, plan: RoundPlan, *, until: float) -> dict[str, Reply]:
    """What every member answered."""
    slices = split_batch(samples=plan.batch, workers=len(plan.members))
    calls = {
        member: Call(
            node=member,
            request=Train(
                round=plan.round,
                base=plan.state_digests,
                start=plan.batch_start + start,
                stop=plan.batch_start + stop,
                steps=plan.steps,
                shards=plan.policy.shards,
            ),
        )
        for member, (start, stop) in zip(plan.members, slices, strict=True)
    }
    return call_up(
        runtime,
        calls,
        adopt=Adopt(round=plan.round - 1, state=plan.state, digests=plan.state_digests),
        is_behind=lambda reply: isinstance(reply, Failed) and reply.reason == UNKNOWN,
        until=until,
        look_up_s=plan.policy.hedge_after_s,
    )


def _publish(runtime: Runtime, plan: RoundPlan, verdict: Accepted, *, present: frozenset[str], until: float) -> None:
    """Give the result to everyone; wait only for those who took part, and not long for one of them that hangs.

    What is under way still arrives, before the next round's request. Whoever never gets it says so in the next round.
    """
    wait = min(until, runtime.now() + plan.policy.hedge_after_s)
    groups = {crowd.node: crowd.members for crowd in plan.crowds} or {member: (member,) for member in plan.members}
    here = sum(not present.isdisjoint(members) for members in groups.values())
    adopt = Adopt(round=plan.round, state=verdict.payloads, digests=verdict.digests)
    runtime.ask([Call(node=node, request=adopt, until=until) for node in groups], enough=here, until=wait)
