"""The aggregation tree on aggregators that may fail: exact weighted means, or a robust rule node by node.

Source: HQDE clauses 3.3 to 3.7, 3.9, 0.10. A mean has the bits of the flat mean of those used, whatever the tree.
A robust rule survives what the tree survives; its result depends on who stands beside whom, not on who arrives when.
"""

from __future__ import annotations

from hqde_ref.core.judging import Gathered, find_thin_tree, judge_budget
from hqde_ref.core.kernels.exact_sums import choose_grid
from hqde_ref.core.rules import get_rule
from hqde_ref.core.trees import TreePlan, plan_tree, tolerated_children
from hqde_ref.messages import Accepted, Combine, Combined, Condense, Evidence, Seen, Verdict
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.climbing import Branch, Hosts, choose_hosts, climb, hosts_at, leaf_groups
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.settling import masses_of, refuse, screen_groups, settle, without_heavy, without_rejected

__all__ = ["tree_round"]


def tree_round(desk: Desk, gathered: Gathered) -> Verdict:
    """Screen at the lowest aggregators, then go up the levels: partial sums on one grid, or the rule at every node."""
    tree = plan_tree(workers=len(desk.plan.members), branching=desk.plan.policy.branching)
    return settle(desk.plan, gathered, lambda now: _attempt(desk, tree, now))


def _attempt(desk: Desk, tree: TreePlan, gathered: Gathered) -> Verdict | Lost | Unserved:
    plan = desk.plan
    groups = leaf_groups(plan, tree, gathered)
    hosts = choose_hosts(desk, tree)
    seen = screen_groups(desk, list(groups.values()), at=hosts_at(hosts, max(tree.depth - 1, 0), groups))
    if isinstance(seen, Lost | Unserved):
        return seen
    screened = without_rejected(gathered, seen)
    if get_rule(plan.policy.rule).family == "mean":
        return _mean(
            desk, tree, hosts, without_heavy(plan, screened, {w: found.tops for w, found in seen.items()}), seen
        )
    return _robust(desk, tree, hosts, screened)


def _mean(
    desk: Desk, tree: TreePlan, hosts: Hosts, screened: Gathered, seen: dict[str, Seen]
) -> Verdict | Lost | Unserved:
    plan = desk.plan
    if not screened.contributions:
        return refuse(plan, screened, f"{plan.policy.rule} needs at least 1 usable contribution, got 0")
    masses = masses_of(plan, screened.contributions)
    grid = choose_grid(
        [seen[c.worker].tops for c in screened.contributions], [masses[c.worker] for c in screened.contributions]
    )

    def add_up(branch: Branch) -> Combine:
        return Combine(
            round=plan.round,
            layout=plan.layout,
            parts=branch.payloads,
            workers=branch.workers,
            masses=tuple(masses[worker] for worker in branch.workers),
            grid=grid,
            leaf=branch.leaf,
            root=branch.root,
        )

    root = climb(desk, tree, hosts, screened, add_up)
    if isinstance(root, Lost | Unserved):
        return root
    return _accept(plan, screened, root, Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None))


def _robust(desk: Desk, tree: TreePlan, hosts: Hosts, screened: Gathered) -> Verdict | Lost | Unserved:
    """The rule at every node, for as many liars as the number of children it really has allows (clause 3.7)."""
    plan, usable = desk.plan, [c.worker for c in screened.contributions]
    rule = get_rule(plan.policy.rule)
    assert rule.in_tree is not None, "the policy was checked"
    kind = rule.in_tree
    budget = judge_budget(policy=plan.policy, members=len(plan.members), rejected=screened.rejected, usable=len(usable))
    if not usable:
        return refuse(plan, screened, f"{rule.name} needs at least 1 usable contribution, got 0")
    thin = find_thin_tree(budget, policy=plan.policy, members=plan.members, usable=usable)
    if thin is not None:
        return refuse(plan, screened, thin)

    def condense(branch: Branch) -> Condense:
        return Condense(
            round=plan.round,
            layout=plan.layout,
            rule=rule.name,
            parts=branch.payloads,
            workers=branch.workers,
            faulty_max=tolerated_children(len(branch.payloads), node_rule=kind),
            radius_factor=branch.radius_factor,
            leaf=branch.leaf,
            root=branch.root,
        )

    root = climb(desk, tree, hosts, screened, condense)
    if isinstance(root, Lost | Unserved):
        return root
    evidence = Evidence(
        rule=rule.name,
        faulty_max=budget.hidden_max,
        kappa=None,  # constants of variances do not compose
        radius_factor=root.radius_factor,
        honest_box="honest_box" in rule.symmetries,
    )
    return _accept(plan, screened, root, evidence)


def _accept(plan: RoundPlan, screened: Gathered, root: Combined, evidence: Evidence) -> Accepted:
    return Accepted(
        round=plan.round,
        payloads=(root.payload,),
        digests=(root.digest,),
        used=tuple(sorted(root.workers)),
        rejected=screened.rejected,
        missing=screened.missing,
        scores={},
        limit=0.0,
        evidence=evidence,
    )
