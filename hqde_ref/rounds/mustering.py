"""Mustering: every crowd trains its members, looks at what they give, and answers once for all of them.

Source: HQDE clauses 0.4, 1.3, 1.6, 6.1 to 6.5.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

from hqde_ref.core.judging import Gathered
from hqde_ref.core.rules import get_rule
from hqde_ref.core.splitting import split_batch
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    Adopt,
    Call,
    Contribution,
    Failed,
    Muster,
    Mustered,
    Reply,
    Runtime,
    message,
)
from hqde_ref.rounds.calling import call_up
from hqde_ref.rounds.plans import RoundPlan

__all__ = ["Roll", "muster"]


@message
class Roll:
    """What the crowds answered: who gave what, how large it is, and the digest of every arena by its key."""

    gathered: Gathered
    tops: Mapping[str, tuple[float, ...]]
    digests: Mapping[str, str]


def muster(runtime: Runtime, plan: RoundPlan, *, until: float) -> Roll:
    """Ask every crowd to train its members, and sort what became of each of them."""
    replies = call_up(
        runtime,
        _muster_calls(plan),
        adopt=Adopt(round=plan.round - 1, state=plan.state, digests=plan.state_digests),
        until=until,
        look_up_s=plan.policy.hedge_after_s,
    )
    return _call_roll(plan, replies)


def _require_members(plan: RoundPlan) -> None:
    """A crowd's members are members of the round, and of one crowd only (clause 0.4)."""
    placed = [member for crowd in plan.crowds for member in crowd.members]
    odd = sorted(set(placed) - set(plan.members)) or sorted(
        member for member, count in Counter(placed).items() if count > 1
    )
    if odd:
        raise ConfigurationError(
            setting="crowds",
            wanted="members of the round, each in one crowd",
            got=", ".join(odd[:8]),
            do="plan the crowds from the round's members",
        )


def _muster_calls(plan: RoundPlan) -> dict[str, Call]:
    _require_members(plan)
    slices = dict(zip(plan.members, split_batch(samples=plan.batch, workers=len(plan.members)), strict=True))
    return {
        crowd.node: Call(
            node=crowd.node,
            request=Muster(
                round=plan.round,
                base=plan.state_digests,
                members=crowd.members,
                slices=tuple(
                    (plan.batch_start + start, plan.batch_start + stop)
                    for start, stop in (slices[member] for member in crowd.members)
                ),
                steps=plan.steps,
                shards=plan.policy.shards,
                layout=plan.layout,
                weighting=plan.policy.weighting,
                arenas=get_rule(plan.policy.rule).family != "mean",
            ),
        )
        for crowd in plan.crowds
    }


def _call_roll(plan: RoundPlan, replies: Mapping[str, Reply]) -> Roll:
    """Every member once: used, rejected or missing."""
    contributions: list[Contribution] = []
    rejected: dict[str, str] = {}
    missing = dict.fromkeys(plan.members, "not asked")
    tops: dict[str, tuple[float, ...]] = {}
    digests: dict[str, str] = {}
    for crowd in plan.crowds:
        reply = replies[crowd.node]
        if not isinstance(reply, Mustered):
            reason = reply.reason if isinstance(reply, Failed) else f"a {type(reply).__name__} instead of a muster"
            missing |= dict.fromkeys(crowd.members, reason)
            continue
        missing |= reply.missing
        rejected |= reply.rejected
        for c, top in zip(reply.contributions, reply.tops, strict=True):
            contributions.append(dataclasses.replace(c, payloads=reply.arenas))
            tops[c.worker] = top
        digests |= {arena.key: code for arena, code in zip(reply.arenas, reply.digests, strict=True)}
    accounted = {c.worker for c in contributions} | rejected.keys()
    gathered = Gathered(
        contributions=tuple(sorted(contributions, key=lambda c: c.worker)),
        rejected=rejected,
        missing={member: reason for member, reason in missing.items() if member not in accounted},
    )
    return Roll(gathered=gathered, tops=tops, digests=digests)
