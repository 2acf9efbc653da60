"""Up an aggregation tree, level by level: who stands below which node, and one request a node.

Source: HQDE clauses 3.3 to 3.7. What a node does with its children's results is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hqde_ref.core.judging import Gathered
from hqde_ref.core.trees import TreePlan, assign_inner_nodes
from hqde_ref.messages import Combined, Contribution, Payload, Request, message
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan

__all__ = ["Branch", "Hosts", "choose_hosts", "climb", "hosts_at", "leaf_groups"]

Hosts = Mapping[tuple[int, int], str]


@message
class Branch:
    """What stands below one node of the tree: its children's payloads and the members inside them.

    Attributes:
        radius_factor: the largest that the children's results have (see ``Combined``).
        leaf: the payloads are contributions; root: there is no node above.
    """

    payloads: tuple[Payload, ...]
    workers: tuple[str, ...]
    radius_factor: float | None
    leaf: bool
    root: bool


def choose_hosts(desk: Desk, tree: TreePlan) -> Hosts:
    """Who carries each inner node by measured times; nobody where the requests of a level are dealt in turn."""
    return assign_inner_nodes(tree, seconds=desk.carriers) if desk.carriers else {}


def hosts_at(hosts: Hosts, level: int, places: Iterable[int]) -> list[str]:
    """Whom to ask first for the nodes at these places of a level."""
    return [hosts[level, place] for place in places] if hosts else []


def leaf_groups(plan: RoundPlan, tree: TreePlan, gathered: Gathered) -> dict[int, list[Contribution]]:
    """Contributions by the lowest node that takes them; absent members leave gaps, and nodes without any are not."""
    by_worker = {c.worker: c for c in gathered.contributions}
    if tree.depth == 0:
        return {0: list(by_worker.values())} if by_worker else {}
    lowest = tree.depth - 1
    groups = {
        index: [
            by_worker[plan.members[leaf]] for leaf in tree.children(lowest, index) if plan.members[leaf] in by_worker
        ]
        for index in range(tree.levels[lowest])
    }
    return {index: group for index, group in groups.items() if group}


def climb(
    desk: Desk, tree: TreePlan, hosts: Hosts, gathered: Gathered, request_of: Callable[[Branch], Request]
) -> Combined | Lost | Unserved:
    """What the root answers; every node is asked what ``request_of`` makes of what stands below it."""
    lowest = max(tree.depth - 1, 0)
    branches = {
        index: Branch(
            payloads=tuple(c.payloads[0] for c in group),
            workers=tuple(c.worker for c in group),
            radius_factor=1.0,
            leaf=True,
            root=lowest == 0,
        )
        for index, group in leaf_groups(desk.plan, tree, gathered).items()
    }
    for level in range(lowest, -1, -1):
        places = sorted(branches)
        replies = desk.ask([request_of(branches[place]) for place in places], at=hosts_at(hosts, level, places))
        if isinstance(replies, Lost | Unserved):
            return replies
        if level == 0:
            root: Combined = replies[0]
            return root
        branches = _gather_up(dict(zip(places, replies, strict=True)), tree.branching, root=level == 1)
    raise AssertionError("a tree has a root")


def _gather_up(replies: dict[int, Combined], branching: int, *, root: bool) -> dict[int, Branch]:
    """The branches one level higher: children in order."""
    higher: dict[int, Branch] = {}
    for parent in sorted({place // branching for place in replies}):
        below = [replies[place] for place in sorted(replies) if place // branching == parent]
        factors = [reply.radius_factor for reply in below if reply.radius_factor is not None]
        higher[parent] = Branch(
            payloads=tuple(reply.payload for reply in below),
            workers=tuple(worker for reply in below for worker in reply.workers),
            radius_factor=max(factors) if len(factors) == len(below) else None,
            leaf=False,
            root=root,
        )
    return higher
