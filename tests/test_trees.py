"""Tree plans: shape, what they survive, and where their inner nodes go."""

from __future__ import annotations

from itertools import combinations

import networkx as nx
import pytest

from hqde_ref.core.trees import TreePlan, as_graph, assign_inner_nodes, breaking_cost, plan_tree, worst_placement
from hqde_ref.errors import ConfigurationError


@pytest.mark.parametrize(
    ("workers", "branching", "levels"),
    [(1, 2, (1,)), (8, 2, (1, 2, 4, 8)), (5, 4, (1, 2, 5)), (9, 3, (1, 3, 9)), (10, 3, (1, 2, 4, 10)), (3, 7, (1, 3))],
)
def test_level_sizes_are_those_of_the_clause(workers: int, branching: int, levels: tuple[int, ...]) -> None:
    assert plan_tree(workers=workers, branching=branching).levels == levels


def test_a_plan_is_an_arborescence_of_logarithmic_depth() -> None:
    for workers in range(1, 200):
        for branching in (2, 3, 5, 16):
            plan = plan_tree(workers=workers, branching=branching)
            graph = as_graph(plan)
            assert nx.is_arborescence(graph)
            assert len(graph) == sum(plan.levels)
            assert max(dict(graph.out_degree()).values()) <= branching
            assert nx.dag_longest_path_length(graph) == plan.depth
            assert branching**plan.depth >= workers
            assert plan.depth == 0 or branching ** (plan.depth - 1) < workers


# The table of the specification: workers, branching, tolerated under a rule for a third and for a half of the children.
@pytest.mark.parametrize(
    ("workers", "branching", "third", "half"),
    [
        (8, 2, 0, 0),
        (9, 3, 0, 3),
        (10, 3, 0, 0),
        (16, 4, 3, 3),
        (25, 5, 3, 8),
        (27, 3, 0, 7),
        (64, 4, 7, 7),
        (81, 3, 0, 15),
        (100, 10, 15, 24),
        (1000, 10, 63, 124),
    ],
)
def test_what_a_plan_tolerates_is_the_tables_number(workers: int, branching: int, third: int, half: int) -> None:
    plan = plan_tree(workers=workers, branching=branching)
    assert breaking_cost(plan, node_rule="third") - 1 == third
    assert breaking_cost(plan, node_rule="half") - 1 == half


def _owns_root(plan: TreePlan, liars: frozenset[int], part: int) -> bool:
    """By brute force: a node is owned when as many of its children are as its rule does not tolerate."""
    owned = [leaf in liars for leaf in range(plan.levels[-1])]
    for level in range(plan.depth - 1, -1, -1):
        owned = [
            sum(owned[child] for child in plan.children(level, index)) >= -(-len(plan.children(level, index)) // part)
            for index in range(plan.levels[level])
        ]
    return owned[0]


@pytest.mark.parametrize(("node_rule", "part"), [("third", 3), ("half", 2)])
@pytest.mark.parametrize("branching", [2, 3, 4, 5])
def test_no_fewer_liars_own_the_root_and_the_worst_placement_does(branching: int, node_rule: str, part: int) -> None:
    for workers in range(1, 12):
        plan = plan_tree(workers=workers, branching=branching)
        worst = worst_placement(plan, node_rule=node_rule)  # type: ignore[arg-type]
        assert _owns_root(plan, frozenset(worst), part)
        for fewer in combinations(range(workers), len(worst) - 1):
            assert not _owns_root(plan, frozenset(fewer), part)


def test_inner_nodes_move_off_slow_hosts_and_the_shape_stays() -> None:
    plan = plan_tree(workers=27, branching=3)
    even = assign_inner_nodes(plan, seconds={"h0": 1.0, "h1": 1.0, "h2": 1.0})
    slow = assign_inner_nodes(plan, seconds={"h0": 1.0, "h1": 100.0, "h2": 1.0})
    inner = {(level, index) for level in range(plan.depth) for index in range(plan.levels[level])}
    assert set(even) == set(slow) == inner
    assert sorted(list(even.values()).count(host) for host in ("h0", "h1", "h2")) == [4, 4, 5]
    assert list(slow.values()).count("h1") == 0
    assert even == assign_inner_nodes(plan, seconds={"h2": 1.0, "h1": 1.0, "h0": 1.0})


@pytest.mark.parametrize("seconds", [{}, {"h0": 0.0}, {"h0": float("nan")}, {"h0": float("inf")}])
def test_times_that_are_none_are_refused(seconds: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        assign_inner_nodes(plan_tree(workers=4, branching=2), seconds=seconds)
