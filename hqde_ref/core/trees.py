"""The aggregation tree as a plan: level sizes, parents, depth, and how many faults it survives.

Source: HQDE clauses 3.1, 3.2, 3.7, 3.9; the cost recursion is that of clause 3.7 (breakdown of node-by-node rules).
Pure: a plan is data; ``as_graph`` shows it to networkx.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping
from typing import Literal

import networkx as nx

from hqde_ref.errors import ConfigurationError, require_integer
from hqde_ref.messages import message

__all__ = [
    "TreePlan",
    "as_graph",
    "assign_inner_nodes",
    "breaking_cost",
    "find_slow",
    "plan_tree",
    "require_tolerance",
    "tolerated_children",
    "typical_time",
    "worst_placement",
]


@message
class TreePlan:
    """An aggregation tree.

    Attributes:
        branching: b, the largest number of children.
        levels: sizes from the root (1) down to the workers (n).
    """

    branching: int
    levels: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Edges from the root to a worker: the least L with b^L >= n."""
        return len(self.levels) - 1

    def children(self, level: int, index: int) -> range:
        """Indices on level + 1 of a node's children."""
        start = index * self.branching
        return range(start, min(start + self.branching, self.levels[level + 1]))


def plan_tree(*, workers: int, branching: int) -> TreePlan:
    """Plan the tree of n workers with branching factor b: level sizes n, ceil(n/b), ..., 1 (clause 3.1).

    Raises:
        ConfigurationError: unless n >= 1 and b >= 2 are integers (clause 0.7).
    """
    require_integer("workers", workers, least=1, do="give the tree at least one worker")
    require_integer("branching", branching, least=2, do="with fewer than two children a node the tree would never end")
    levels = [workers]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // branching))
    return TreePlan(branching=branching, levels=tuple(reversed(levels)))


def as_graph(plan: TreePlan) -> nx.DiGraph[tuple[int, int]]:
    """The plan as an arborescence whose nodes are (level, index), edges from parent to child (clause 3.2)."""
    graph: nx.DiGraph[tuple[int, int]] = nx.DiGraph()
    graph.add_node((0, 0))
    for level in range(plan.depth):
        for index in range(plan.levels[level]):
            graph.add_edges_from(((level, index), (level + 1, child)) for child in plan.children(level, index))
    return graph


def tolerated_children(count: int, *, node_rule: Literal["third", "half"]) -> int:
    """How many of its ``count`` children a node may lose to liars: fewer than a third, or than half, of them."""
    return -(-count // (3 if node_rule == "third" else 2)) - 1


def breaking_cost(
    plan: TreePlan, *, node_rule: Literal["third", "half"], present: Collection[int] | None = None
) -> int:
    """The least number of Byzantine workers that own the root when each node applies a robust rule.

    A node whose rule tolerates t of its k children (t < k/3 or t < k/2) falls when t + 1 of them fall; the worst
    placement takes the cheapest. The plan tolerates this cost minus one.

    Args:
        present: leaves that are there; a missing one leaves its group smaller, a group without any is gone. None: all.
    """
    return len(worst_placement(plan, node_rule=node_rule, present=present))


def worst_placement(
    plan: TreePlan, *, node_rule: Literal["third", "half"], present: Collection[int] | None = None
) -> tuple[int, ...]:
    """The fewest workers, by leaf number, whose lies own the root of the plan (see ``breaking_cost``).

    Nobody is needed where nobody is present.
    """
    leaves = range(plan.levels[-1])
    owners: list[tuple[int, ...]] = [(leaf,) if present is None or leaf in present else () for leaf in leaves]
    for level in range(plan.depth - 1, -1, -1):
        upper = []
        for index in range(plan.levels[level]):
            there = [owners[child] for child in plan.children(level, index) if owners[child]]
            below = sorted(there, key=lambda owner: (len(owner), owner))
            needed = tolerated_children(len(below), node_rule=node_rule) + 1
            upper.append(tuple(leaf for owner in below[:needed] for leaf in owner))
        owners = upper
    return tuple(sorted(owners[0]))


def assign_inner_nodes(plan: TreePlan, *, seconds: Mapping[str, float]) -> dict[tuple[int, int], str]:
    """Give every inner node to a host so that slow hosts get little or nothing (clause 3.9).

    The shape of the tree stays; heavy nodes go first, each to the host that would be done with it soonest.

    Args:
        seconds: measured time of one merge at each host, by host.

    Returns:
        A host for each (level, index) above the workers.

    Raises:
        ConfigurationError: without hosts, or for a time that is not a positive number.
    """
    if not seconds:
        raise ConfigurationError(setting="hosts", wanted="at least one", got=0, do="measure a host first")
    for host, time in seconds.items():
        if not 0 < time < math.inf:
            raise ConfigurationError(
                setting=f"time of {host}", wanted="a positive number of seconds", got=time, do="measure it again"
            )
    nodes = [(level, index) for level in range(plan.depth) for index in range(plan.levels[level])]
    busy = dict.fromkeys(sorted(seconds), 0.0)
    assigned: dict[tuple[int, int], str] = {}
    for node in sorted(nodes, key=lambda node: (-len(plan.children(*node)), node)):
        work = len(plan.children(*node))
        host = min(busy, key=lambda name: (busy[name] + work * seconds[name], name))
        busy[host] += work * seconds[host]
        assigned[node] = host
    return assigned


def typical_time(seconds: Mapping[str, float]) -> float:
    """The lower median: with one fast and one slow host the fast one is what is usual."""
    return statistics.median_low(seconds.values())


def find_slow(seconds: Mapping[str, float], *, factor: float) -> frozenset[str]:
    """The hosts that took at least ``factor`` times as long as is usual; never more than half of them."""
    usual = typical_time(seconds) if seconds else 0.0
    return frozenset(host for host, time in seconds.items() if time > usual and time >= factor * usual)


def require_tolerance(plan: TreePlan, *, rule: str, faulty_max: int, node_rule: Literal["third", "half"]) -> None:
    """Refuse a plan that promises more than it keeps (clause 3.7, E8).

    Raises:
        ConfigurationError: naming what the plan tolerates.
    """
    tolerated = breaking_cost(plan, node_rule=node_rule) - 1
    if faulty_max > tolerated:
        raise ConfigurationError(
            setting=f"faulty_max of a {rule} tree with {plan.levels[-1]} workers and branching {plan.branching}",
            wanted=f"at most {tolerated}",
            got=faulty_max,
            do="use topology flat or sharded, which keep 3f < n, or a larger branching factor",
        )
