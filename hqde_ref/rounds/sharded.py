"""The sharded round: coordinates are cut over reducers, so that no node holds all of everything, and 3f < n is kept.

Source: HQDE clauses 3.8, 2.3 and 4.1 to 4.9. Means and coordinate-wise rules are the flat ones bit for bit; rules that
see distances work on Gram matrices that add up (``hqde_ref.core.isometry``).
"""

from __future__ import annotations

from collections.abc import Sequence

from hqde_ref.core.judging import Budget, Gathered, find_shortage, judge_budget
from hqde_ref.core.kernels.exact_sums import choose_grid
from hqde_ref.core.packing import fingerprint
from hqde_ref.core.rules import get_rule
from hqde_ref.core.sharding import float_slices, shard_layouts
from hqde_ref.messages import (
    Accepted,
    AddGrams,
    Blend,
    Claim,
    Combine,
    Contribution,
    Evidence,
    GramPart,
    PartialGram,
    Payload,
    Reply,
    Resolve,
    Runtime,
    Screen,
    Screened,
    Seen,
    Verdict,
    Weigh,
    Weighed,
    message,
)
from hqde_ref.rounds.asking import Lost, Unserved, ask_somewhere
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.settling import masses_of, outlier_reasons, refuse, settle, without_rejected

__all__ = ["sharded_round"]


@message
class _Desk:
    """What every step of a round needs in order to ask; seats that fail are struck off."""

    runtime: Runtime
    plan: RoundPlan
    seats: list[str]
    until: float

    def ask(self, requests: Sequence[object]) -> tuple[Reply, ...] | Lost | Unserved:
        return ask_somewhere(self.runtime, requests, seats=self.seats, until=self.until)


def sharded_round(runtime: Runtime, plan: RoundPlan, gathered: Gathered, *, seats: list[str], until: float) -> Verdict:
    """Screen every shard, judge the members by all their shards, combine shard by shard."""
    desk = _Desk(runtime=runtime, plan=plan, seats=seats, until=until)
    return settle(plan, gathered, lambda now: _attempt(desk, now))


def _attempt(desk: _Desk, gathered: Gathered) -> Verdict | Lost | Unserved:
    plan = desk.plan
    found = _screen(desk, gathered)
    if isinstance(found, Lost | Unserved):
        return found
    seen, tops = found
    screened = without_rejected(gathered, seen)
    usable, members = len(screened.contributions), len(plan.members)
    budget = judge_budget(policy=plan.policy, members=members, rejected=screened.rejected, usable=usable)
    shortage = find_shortage(budget, policy=plan.policy, members=members)
    if shortage is not None:
        return refuse(plan, screened, shortage)
    if get_rule(plan.policy.rule).family == "mean":
        return _mean(desk, screened, tops)
    weighed = _weigh(desk, screened, budget)
    if isinstance(weighed, Lost | Unserved):
        return weighed
    if get_rule(plan.policy.rule).family == "coordinatewise":
        return _coordinatewise(desk, screened, budget, weighed)
    return _blend(desk, screened, weighed)


def _shard(contributions: Sequence[Contribution], shard: int) -> tuple[Payload, ...]:
    return tuple(c.payloads[shard] for c in contributions)


# ------------------------------------------------------------------------------------------------ screening


def _screen(
    desk: _Desk, gathered: Gathered
) -> tuple[dict[str, Seen], dict[str, tuple[tuple[float, ...], ...]]] | Lost | Unserved:
    """One finding a member, by its first bad shard, and its magnitudes by shard."""
    plan = desk.plan
    whole = [c for c in gathered.contributions if len(c.payloads) == len(c.digests) == plan.policy.shards]
    requests = [
        Screen(
            round=plan.round,
            layout=layout,
            declared=fingerprint(plan.layout),
            claims=tuple(
                Claim(worker=c.worker, payload=c.payloads[shard], digest=c.digests[shard], layout=c.layout)
                for c in whole
            ),
        )
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards))
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    looks = [{found.worker: found for found in reply.seen} for reply in replies if isinstance(reply, Screened)]
    seen: dict[str, Seen] = {}
    for c in gathered.contributions:
        if c not in whole:
            reason = f"misshapen: {len(c.payloads)} shards, the round declared {plan.policy.shards}"
            seen[c.worker] = Seen(worker=c.worker, reason=reason, tops=(), digest="")
            continue
        mine = [look[c.worker] for look in looks]
        seen[c.worker] = next((found for found in mine if found.reason is not None), mine[0])
    tops = {c.worker: tuple(look[c.worker].tops for look in looks) for c in whole}
    return seen, tops


# ------------------------------------------------------------------------------------------------ means


def _mean(desk: _Desk, screened: Gathered, tops: dict[str, tuple[tuple[float, ...], ...]]) -> Verdict | Lost | Unserved:
    """The exact mean of every shard, on one grid for each entry of the whole layout."""
    plan, contributions = desk.plan, screened.contributions
    weights = masses_of(plan, contributions)
    masses = tuple(weights[c.worker] for c in contributions)
    parents = float_slices(plan.layout, plan.policy.shards)
    entries = 1 + max((number for shard in parents for number in shard), default=-1)
    whole = []
    for c in contributions:
        largest = [0.0] * entries
        for mine, numbers in zip(tops[c.worker], parents, strict=True):
            for top, number in zip(mine, numbers, strict=True):
                largest[number] = max(largest[number], top)
        whole.append(tuple(largest))
    grid = choose_grid(whole, masses)
    requests = [
        Combine(
            round=plan.round,
            layout=layout,
            parts=_shard(contributions, shard),
            workers=tuple(c.worker for c in contributions),
            masses=masses,
            grid=tuple(grid[number] for number in parents[shard]),
            leaf=True,
            root=True,
        )
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards))
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    evidence = Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None)
    return _accept(plan, screened, replies, kept=tuple(c.worker for c in contributions), evidence=evidence)


# ------------------------------------------------------------------------------------------------ robust rules


def _weigh(desk: _Desk, screened: Gathered, budget: Budget) -> Weighed | Lost | Unserved:
    """Gram matrices of the shards, added up with at most b a node, and judged at one node."""
    plan, contributions = desk.plan, screened.contributions
    family = get_rule(plan.policy.rule).family
    if family == "coordinatewise" and plan.policy.outlier_factor is None:
        return _keep_all(plan, contributions)
    requests: list[object] = [
        PartialGram(round=plan.round, layout=layout, rows=_shard(contributions, shard))
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards))
    ]
    parts = desk.ask(requests)
    if isinstance(parts, Lost | Unserved):
        return parts
    grams = [part.payload for part in parts if isinstance(part, GramPart)]
    while len(grams) > plan.policy.branching:
        groups = [tuple(grams[i : i + plan.policy.branching]) for i in range(0, len(grams), plan.policy.branching)]
        parts = desk.ask([AddGrams(round=plan.round, parts=group) for group in groups])
        if isinstance(parts, Lost | Unserved):
            return parts
        grams = [part.payload for part in parts if isinstance(part, GramPart)]
    request = Weigh(
        round=plan.round,
        gram=tuple(grams),
        workers=tuple(c.worker for c in contributions),
        contents=tuple("+".join(c.digests) for c in contributions),
        rule=plan.policy.rule if family == "gram" else None,
        faulty_max=budget.hidden_max,
        rejections_max=budget.rejections_max,
        outlier_factor=plan.policy.outlier_factor,
    )
    replies = desk.ask([request])
    if isinstance(replies, Lost | Unserved):
        return replies
    weighed: Weighed = replies[0]
    return weighed


def _keep_all(plan: RoundPlan, contributions: Sequence[Contribution]) -> Weighed:
    return Weighed(
        kept=tuple(c.worker for c in contributions),
        multipliers=(),
        scores={},
        limit=0.0,
        evidence=Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None),
    )


def _coordinatewise(desk: _Desk, screened: Gathered, budget: Budget, weighed: Weighed) -> Verdict | Lost | Unserved:
    """The rule itself on every shard of those kept."""
    plan = desk.plan
    kept = [c for c in screened.contributions if c.worker in weighed.kept]
    requests = [
        Resolve(
            round=plan.round,
            layout=layout,
            rule=plan.policy.rule,
            rows=_shard(kept, shard),
            workers=tuple(c.worker for c in kept),
            faulty_max=budget.hidden_max,
            rejections_max=0,
            outlier_factor=None,
            dropped=len(screened.contributions) - len(kept),
        )
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards))
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    return _accept(plan, screened, replies, kept=weighed.kept, evidence=replies[0].evidence, weighed=weighed)


def _blend(desk: _Desk, screened: Gathered, weighed: Weighed) -> Verdict | Lost | Unserved:
    plan, contributions = desk.plan, screened.contributions
    requests = [
        Blend(
            round=plan.round,
            layout=layout,
            rows=_shard(contributions, shard),
            multipliers=weighed.multipliers,
            kept=tuple(index for index, c in enumerate(contributions) if c.worker in weighed.kept),
        )
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards))
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    return _accept(plan, screened, replies, kept=weighed.kept, evidence=weighed.evidence, weighed=weighed)


def _accept(
    plan: RoundPlan,
    screened: Gathered,
    replies: Sequence[Reply],
    *,
    kept: tuple[str, ...],
    evidence: Evidence,
    weighed: Weighed | None = None,
) -> Accepted:
    scores = {} if weighed is None else weighed.scores
    limit = 0.0 if weighed is None else weighed.limit
    return Accepted(
        round=plan.round,
        payloads=tuple(reply.payload for reply in replies),
        digests=tuple(reply.digest for reply in replies),
        used=kept,
        rejected={**screened.rejected, **outlier_reasons(screened, kept, scores, limit)},
        missing=screened.missing,
        scores=scores,
        limit=limit,
        evidence=evidence,
    )
