"""Robust rules on screened shards: Gram matrices up a tree, one judgement, every shard combined by itself.

Source: HQDE clauses 3.8 and 4.1 to 4.9. Whether a shard's rows come one a payload or many is all the same here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hqde_ref.core.judging import Budget, Gathered, find_shortage, judge_budget
from hqde_ref.core.rules import get_rule
from hqde_ref.core.sharding import shard_layouts
from hqde_ref.messages import (
    Accepted,
    AddGrams,
    Arrange,
    Blend,
    Contribution,
    Evidence,
    Finish,
    GramPart,
    Layout,
    PartialGram,
    Payload,
    Reply,
    Resolve,
    Verdict,
    Weigh,
    Weighed,
    message,
)
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.settling import outlier_reasons, refuse, rows_of, without_large

__all__ = ["accept_shards", "robust_shards"]


def robust_shards(desk: Desk, screened: Gathered, tops: Mapping[str, Sequence[float]]) -> Verdict | Lost | Unserved:
    """Judge whether those left suffice, weigh them, and combine every shard.

    Args:
        tops: of each member, how large its values were found to be.
    """
    plan = desk.plan
    family = get_rule(plan.policy.rule).family
    if family != "coordinatewise" or plan.policy.outlier_factor is not None:  # somebody looks at distances
        screened = without_large(screened, tops)
    usable, members = len(screened.contributions), len(plan.members)
    budget = judge_budget(policy=plan.policy, members=members, rejected=screened.rejected, usable=usable)
    shortage = find_shortage(budget, policy=plan.policy, members=members)
    if shortage is not None:
        return refuse(plan, screened, shortage)
    second = {"coordinatewise": _coordinatewise, "staged": _staged}.get(family)
    if second is not None:  # who is an outlier is judged by itself, before the rule
        if plan.policy.outlier_factor is None:
            return second(desk, screened, budget, _keep_all(plan, screened.contributions))
        judged = _weigh(desk, screened, budget, rule=None)
        return judged if isinstance(judged, Lost | Unserved) else second(desk, screened, budget, judged[0])
    judged = _weigh(desk, screened, budget, rule=plan.policy.rule)
    return judged if isinstance(judged, Lost | Unserved) else _blend(desk, screened, *judged)


def _weigh(
    desk: Desk, screened: Gathered, budget: Budget, *, rule: str | None
) -> tuple[Weighed, tuple[int, ...]] | Lost | Unserved:
    """Gram matrices of the shards, added up with at most b a node, and judged at one node; their centres beside it."""
    plan, contributions = desk.plan, screened.contributions
    found = _gram(desk, contributions)
    if isinstance(found, Lost | Unserved):
        return found
    grams, centres = found
    request = Weigh(
        round=plan.round,
        gram=tuple(grams),
        workers=tuple(c.worker for c in contributions),
        contents=_contents(contributions),
        rule=rule,
        faulty_max=budget.hidden_max,
        rejections_max=budget.rejections_max,
        outlier_factor=plan.policy.outlier_factor,
    )
    replies = desk.ask([request])
    return replies if isinstance(replies, Lost | Unserved) else (replies[0], centres)


def _gram(
    desk: Desk, contributions: Sequence[Contribution], *, landmark_of: str | None = None
) -> tuple[list[Payload], tuple[int, ...]] | Lost | Unserved:
    """At most b sums of the shards' Gram matrices, and the row each shard's was made around."""
    plan = desk.plan
    requests = [
        PartialGram(
            round=plan.round, layout=piece.layout, rows=piece.rows, places=piece.places, landmark_of=landmark_of
        )
        for piece in _pieces(plan, contributions)
    ]
    parts = desk.ask(requests)
    if isinstance(parts, Lost | Unserved):
        return parts
    grams = _add_up(desk, [part.payload for part in parts])
    return grams if isinstance(grams, Lost | Unserved) else (grams, tuple(part.centre or 0 for part in parts))


def _add_up(desk: Desk, grams: list[Payload]) -> list[Payload] | Lost | Unserved:
    """At most b sums that the last node adds up itself."""
    width = max(desk.plan.policy.branching, 2)
    while len(grams) > width:
        groups = [tuple(grams[i : i + width]) for i in range(0, len(grams), width)]
        parts = desk.ask([AddGrams(round=desk.plan.round, parts=group) for group in groups])
        if isinstance(parts, Lost | Unserved):
            return parts
        grams = [part.payload for part in parts if isinstance(part, GramPart)]
    return grams


@message
class _Piece:
    """One shard of some contributions; ``places`` as in ``Resolve``."""

    layout: Layout
    rows: tuple[Payload, ...]
    places: tuple[int, ...] | None


def _pieces(plan: RoundPlan, contributions: Sequence[Contribution]) -> list[_Piece]:
    """These contributions shard by shard."""
    found = []
    for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards)):
        rows, places = rows_of(contributions, shard, layout)
        found.append(_Piece(layout=layout, rows=rows, places=places))
    return found


def _keep_all(plan: RoundPlan, contributions: Sequence[Contribution]) -> Weighed:
    return Weighed(
        kept=tuple(c.worker for c in contributions),
        multipliers=(),
        scores={},
        limit=0.0,
        evidence=Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None),
    )


def _coordinatewise(desk: Desk, screened: Gathered, budget: Budget, weighed: Weighed) -> Verdict | Lost | Unserved:
    """The rule itself on every shard of those kept."""
    plan, kept = desk.plan, _kept(screened.contributions, weighed)
    requests = [
        Resolve(
            round=plan.round,
            layout=piece.layout,
            rule=plan.policy.rule,
            rows=piece.rows,
            places=piece.places,
            workers=tuple(c.worker for c in kept),
            faulty_max=budget.hidden_max,
            rejections_max=0,
            outlier_factor=None,
            dropped=len(screened.contributions) - len(kept),
        )
        for piece in _pieces(plan, kept)
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    return accept_shards(plan, screened, replies, kept=weighed.kept, evidence=replies[0].evidence, weighed=weighed)


def _staged(desk: Desk, screened: Gathered, budget: Budget, weighed: Weighed) -> Verdict | Lost | Unserved:
    """Distances between those kept decide how, then every shard is combined coordinate by coordinate."""
    plan, kept = desk.plan, _kept(screened.contributions, weighed)
    found = _gram(desk, kept, landmark_of=plan.policy.rule)
    if isinstance(found, Lost | Unserved):
        return found
    grams, centres = found
    arrange = Arrange(
        round=plan.round,
        gram=tuple(grams),
        contents=_contents(kept),
        rule=plan.policy.rule,
        faulty_max=budget.hidden_max,
        dropped=len(screened.contributions) - len(kept),
    )
    arranged = desk.ask([arrange])
    if isinstance(arranged, Lost | Unserved):
        return arranged
    requests = [
        Finish(
            round=plan.round,
            layout=piece.layout,
            rows=piece.rows,
            numbers=arranged[0].payload,
            shape=arranged[0].shape,
            rule=plan.policy.rule,
            faulty_max=budget.hidden_max,
            centre=centre,
            places=piece.places,
        )
        for piece, centre in zip(_pieces(plan, kept), centres, strict=True)
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    return accept_shards(plan, screened, replies, kept=weighed.kept, evidence=arranged[0].evidence, weighed=weighed)


def _contents(contributions: Sequence[Contribution]) -> tuple[str, ...]:
    return tuple("+".join(c.digests) for c in contributions)


def _blend(desk: Desk, screened: Gathered, weighed: Weighed, centres: Sequence[int]) -> Verdict | Lost | Unserved:
    plan, contributions = desk.plan, screened.contributions
    chosen = frozenset(weighed.kept)
    kept = tuple(index for index, c in enumerate(contributions) if c.worker in chosen)
    requests = [
        Blend(
            round=plan.round,
            layout=piece.layout,
            rows=piece.rows,
            places=piece.places,
            multipliers=weighed.multipliers,
            kept=kept,
            centre=centre,
        )
        for piece, centre in zip(_pieces(plan, contributions), centres, strict=True)
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    return accept_shards(plan, screened, replies, kept=weighed.kept, evidence=weighed.evidence, weighed=weighed)


def _kept(contributions: Sequence[Contribution], weighed: Weighed) -> list[Contribution]:
    chosen = frozenset(weighed.kept)
    return [c for c in contributions if c.worker in chosen]


def accept_shards(
    plan: RoundPlan,
    screened: Gathered,
    replies: Sequence[Reply],
    *,
    kept: tuple[str, ...],
    evidence: Evidence,
    weighed: Weighed | None = None,
) -> Accepted:
    """The verdict that one reply a shard makes together."""
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
