"""The flat round: one trusted aggregator screens all contributions and applies the rule.

Source: HQDE clauses 4.1 to 4.9. This keeps the full 3f < n.
"""

from __future__ import annotations

import dataclasses

from hqde_ref.core.judging import Gathered, find_shortage, judge_budget
from hqde_ref.core.rules import get_rule
from hqde_ref.messages import Accepted, Resolve, Resolved, Verdict
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.settling import outlier_reasons, refuse, rows_of, screen_groups, settle, without_rejected
from hqde_ref.rounds.tree import tree_round

__all__ = ["flat_round", "resolve_screened"]


def flat_round(desk: Desk, gathered: Gathered) -> Verdict:
    """Screen, judge, resolve; the verdict accounts for every member once.

    A mean is a tree of one level: it carries the masses (clause 3.4) and has the bits of any other tree (clause 0.10).
    """
    plan = desk.plan
    if get_rule(plan.policy.rule).family == "mean":
        wide = dataclasses.replace(plan.policy, branching=max(2, len(plan.members)))
        return tree_round(dataclasses.replace(desk, plan=dataclasses.replace(plan, policy=wide)), gathered)
    return settle(plan, gathered, lambda now: _attempt(desk, now))


def _attempt(desk: Desk, gathered: Gathered) -> Verdict | Lost | Unserved:
    seen = screen_groups(desk, [gathered.contributions])
    if isinstance(seen, Lost | Unserved):
        return seen
    return resolve_screened(desk, without_rejected(gathered, seen))


def resolve_screened(desk: Desk, screened: Gathered) -> Verdict | Lost | Unserved:
    """Apply the rule at one aggregator to contributions that were found usable."""
    plan = desk.plan
    usable, members = len(screened.contributions), len(plan.members)
    budget = judge_budget(policy=plan.policy, members=members, rejected=screened.rejected, usable=usable)
    shortage = find_shortage(budget, policy=plan.policy, members=members)
    if shortage is not None:
        return refuse(plan, screened, shortage)
    rows, places = rows_of(screened.contributions, 0, plan.layout)
    request = Resolve(
        round=plan.round,
        layout=plan.layout,
        rule=plan.policy.rule,
        rows=rows,
        places=places,
        workers=tuple(c.worker for c in screened.contributions),
        faulty_max=budget.hidden_max,
        rejections_max=budget.rejections_max,
        outlier_factor=plan.policy.outlier_factor,
    )
    replies = desk.ask([request])
    if isinstance(replies, Lost | Unserved):
        return replies
    resolved: Resolved = replies[0]
    return _accept(plan, screened, resolved)


def _accept(plan: RoundPlan, screened: Gathered, resolved: Resolved) -> Accepted:
    outliers = outlier_reasons(screened, resolved.kept, resolved.scores, resolved.limit)
    return Accepted(
        round=plan.round,
        payloads=(resolved.payload,),
        digests=(resolved.digest,),
        used=resolved.kept,
        rejected={**screened.rejected, **outliers},
        missing=screened.missing,
        scores=resolved.scores,
        limit=resolved.limit,
        evidence=resolved.evidence,
    )
