"""The story of a training round: train, gather, aggregate, publish.

Source: HQDE clauses 1.3, 1.6, 3.9, 6.1 to 6.5; ``docs/design.md``, the laws of ``ask``. It reads no clock but the
runtime's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

from hqde_ref.core.judging import Gathered, check_policy, gather
from hqde_ref.core.rules import get_rule
from hqde_ref.core.splitting import split_batch
from hqde_ref.errors import ConfigurationError, require_integer
from hqde_ref.messages import Accepted, Adopt, Call, Reply, Runtime, Train, Verdict
from hqde_ref.rounds.asking import Desk, Lost, Unserved, is_silent, prefer_seats
from hqde_ref.rounds.calling import call_up
from hqde_ref.rounds.crowded import crowded_round
from hqde_ref.rounds.flat import flat_round
from hqde_ref.rounds.mapreduce import mapreduce_round
from hqde_ref.rounds.mustering import muster
from hqde_ref.rounds.pacing import carriers, slow_aggregators
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.publishing import PUBLISH_SHARE, publish
from hqde_ref.rounds.settling import settle
from hqde_ref.rounds.sharded import sharded_round
from hqde_ref.rounds.tree import tree_round

__all__ = ["training_round"]

_TOPOLOGIES = {"flat": flat_round, "tree": tree_round, "mapreduce": mapreduce_round, "sharded": sharded_round}


def training_round(runtime: Runtime, plan: RoundPlan) -> Verdict:
    """Carry out one round; ends by its deadline with a verdict that accounts for every member (clause 6.1).

    Raises:
        ConfigurationError: for a policy that makes no sense with these members, a member or an aggregator named twice,
            no aggregator at all, or a batch too small for a robust rule.
    """
    _check_names("member", plan.members)
    _check_names("aggregator", [seat.aggregator for seat in plan.seats])
    check_policy(plan.policy, members=len(plan.members))
    _check_crowds(plan)
    _check_batch(plan)
    _check_numbers(plan)
    start = runtime.now()
    end = start + plan.policy.round_within_s
    train_until = start + plan.policy.train_share * plan.policy.round_within_s

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
        until=end,
        carriers=carriers(plan, present=present),
        hedged={seat.aggregator for seat in plan.seats if is_silent(seat, present)},
    )

    def aggregate(now: Gathered, until: float) -> Verdict | Lost | Unserved:
        mine = dataclasses.replace(desk, until=until)
        if plan.crowds:
            return crowded_round(mine, dataclasses.replace(roll, gathered=now))
        return _TOPOLOGIES[plan.policy.topology](mine, now)

    def attempt(now: Gathered) -> Verdict | Lost | Unserved:
        verdict = aggregate(now, end - PUBLISH_SHARE * (end - max(train_until, runtime.now())))
        if not isinstance(verdict, Accepted):
            return verdict
        remake = partial(aggregate, now)
        return publish(runtime, plan, verdict, remake=remake, present=present, until=end)

    return settle(plan, gathered, attempt)


def _check_names(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        raise ConfigurationError(
            setting=f"{what}s of a round",
            wanted="at least one, each named once",
            got=twice,
            do=f"name every {what} once" if twice else f"name at least one {what}",
        )


def _check_crowds(plan: RoundPlan) -> None:
    """A crowd answers for members of many groups, so a robust rule cannot go through a tree of them group by group."""
    if plan.crowds and plan.policy.topology == "tree" and get_rule(plan.policy.rule).family != "mean":
        raise ConfigurationError(
            setting="topology of a robust round with crowds",
            wanted="flat or sharded",
            got=plan.policy.topology,
            do="use topology sharded, or no crowds",
        )


def _check_batch(plan: RoundPlan) -> None:
    """Whoever gets no data sends the state as it is: a robust rule would take the few that trained for the liars."""
    if plan.batch < len(plan.members) and get_rule(plan.policy.rule).family != "mean":
        raise ConfigurationError(
            setting=f"batch of a {plan.policy.rule} round with {len(plan.members)} members",
            wanted="at least one sample a member, or those that train would be the outliers",
            got=plan.batch,
            do="give a larger batch, use fewer members, or a mean",
        )


def _check_numbers(plan: RoundPlan) -> None:
    for setting, least in (("round", 1), ("steps", 1), ("batch", 1), ("batch_start", 0)):
        require_integer(f"{setting} of a round", getattr(plan, setting), least=least, do="count from there")


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
        until=until,
        look_up_s=plan.policy.hedge_after_s,
    )
