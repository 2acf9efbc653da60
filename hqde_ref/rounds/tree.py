"""The aggregation tree: exact weighted means, level by level, on aggregators that may fail.

Source: HQDE clauses 3.3 to 3.6, 3.9, 0.10. The result has the bits of the flat mean of those used, whatever the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hqde_ref.core.judging import Gathered
from hqde_ref.core.kernels.exact_sums import choose_grid
from hqde_ref.core.trees import TreePlan, assign_inner_nodes, plan_tree
from hqde_ref.messages import (
    Accepted,
    Combine,
    Combined,
    Contribution,
    Evidence,
    Payload,
    Seen,
    Verdict,
    message,
)
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.settling import masses_of, refuse, screen_groups, settle, without_heavy, without_rejected

__all__ = ["tree_round"]


@message
class _Part:
    """What stands at one place of the tree: payloads below it and the members inside them."""

    payloads: tuple[Payload, ...]
    workers: tuple[str, ...]
    masses: tuple[float, ...]


def tree_round(desk: Desk, gathered: Gathered) -> Verdict:
    """Screen at the lowest aggregators, fix one grid, add up the levels, divide at the root."""
    tree = plan_tree(workers=len(desk.plan.members), branching=desk.plan.policy.branching)
    return settle(desk.plan, gathered, lambda now: _attempt(desk, tree, now))


def _attempt(desk: Desk, tree: TreePlan, gathered: Gathered) -> Verdict | Lost | Unserved:
    plan = desk.plan
    groups = {place: group for place, group in enumerate(_leaf_groups(plan, tree, gathered)) if group}
    hosts = _host_inner_nodes(desk, tree)
    seen = screen_groups(desk, list(groups.values()), at=_at(hosts, max(tree.depth - 1, 0), groups))
    if isinstance(seen, Lost | Unserved):
        return seen
    screened = without_heavy(plan, without_rejected(gathered, seen), {w: found.tops for w, found in seen.items()})
    if not screened.contributions:
        return refuse(plan, screened, f"{plan.policy.rule} needs at least 1 usable contribution, got 0")
    root = _climb(desk, tree, hosts, screened, seen)
    if isinstance(root, Lost | Unserved):
        return root
    return Accepted(
        round=plan.round,
        payloads=(root.payload,),
        digests=(root.digest,),
        used=tuple(sorted(root.workers)),
        rejected=screened.rejected,
        missing=screened.missing,
        scores={},
        limit=0.0,
        evidence=Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None),
    )


def _host_inner_nodes(desk: Desk, tree: TreePlan) -> Mapping[tuple[int, int], str]:
    """Who carries each inner node by measured times; nobody where the requests of a level are dealt in turn."""
    return assign_inner_nodes(tree, seconds=desk.carriers) if desk.carriers else {}


def _at(hosts: Mapping[tuple[int, int], str], level: int, places: Iterable[int]) -> list[str]:
    return [hosts[level, place] for place in places] if hosts else []


def _leaf_groups(plan: RoundPlan, tree: TreePlan, gathered: Gathered) -> list[list[Contribution]]:
    """Contributions by the lowest aggregator that takes them; absent members leave gaps."""
    by_worker = {c.worker: c for c in gathered.contributions}
    if tree.depth == 0:
        return [list(by_worker.values())]
    lowest = tree.depth - 1
    return [
        [by_worker[plan.members[leaf]] for leaf in tree.children(lowest, index) if plan.members[leaf] in by_worker]
        for index in range(tree.levels[lowest])
    ]


def _climb(
    desk: Desk,
    tree: TreePlan,
    hosts: Mapping[tuple[int, int], str],
    screened: Gathered,
    seen: dict[str, Seen],
) -> Combined | Lost | Unserved:
    plan = desk.plan
    masses = masses_of(plan, screened.contributions)
    grid = choose_grid(
        [seen[c.worker].tops for c in screened.contributions], [masses[c.worker] for c in screened.contributions]
    )
    parts: dict[int, _Part] = {
        index: _Part(
            payloads=tuple(c.payloads[0] for c in group),
            workers=tuple(c.worker for c in group),
            masses=tuple(masses[c.worker] for c in group),
        )
        for index, group in enumerate(_leaf_groups(plan, tree, screened))
        if group
    }
    lowest = max(tree.depth - 1, 0)
    for level in range(lowest, -1, -1):
        places = sorted(parts)
        requests = [
            Combine(
                round=plan.round,
                layout=plan.layout,
                parts=parts[place].payloads,
                workers=parts[place].workers,
                masses=parts[place].masses,
                grid=grid,
                leaf=level == lowest,
                root=level == 0,
            )
            for place in places
        ]
        replies = desk.ask(requests, at=_at(hosts, level, places))
        if isinstance(replies, Lost | Unserved):
            return replies
        if level == 0:
            root: Combined = replies[0]
            return root
        parts = _gather_up(dict(zip(places, replies, strict=True)), parts, tree.branching)
    raise AssertionError("a tree has a root")


def _gather_up(replies: dict[int, Combined], parts: dict[int, _Part], branching: int) -> dict[int, _Part]:
    """The parts one level higher: children in order."""
    higher: dict[int, _Part] = {}
    for parent in sorted({place // branching for place in replies}):
        places = [place for place in sorted(replies) if place // branching == parent]
        higher[parent] = _Part(
            payloads=tuple(replies[place].payload for place in places),
            workers=tuple(worker for place in places for worker in replies[place].workers),
            masses=tuple(mass for place in places for mass in parts[place].masses),
        )
    return higher
