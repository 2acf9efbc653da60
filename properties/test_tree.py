"""Section 3: the shape of the aggregation tree, and that a mean does not feel it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import strategies as st

from hqde_ref.messages import Aggregate, Aggregated, PlanTree, TreePlanned
from properties.declaring import Way, law
from properties.laws import ask, flat_row, largest, require_bits, require_mean, require_refusal, result_of, said
from properties.liars import ATTACKS, Lied, lied_rounds
from properties.oracles import level_sizes, tree_tolerance
from properties.strategies import Round, rounds
from properties.subject import Subject
from properties.tolerances import bound_slack, mean_tolerance
from properties.ways import MEAN_WAYS, SHARDED_WAYS, lied_for

MODEST = tuple(attack for attack in ATTACKS if attack != "huge")  # of like size, so that Gram matrices keep digits
FLAT, TREE = Way("weighted_mean", "flat"), Way("weighted_mean", "tree")


@st.composite
def _sizes(draw: st.DrawFn, *, most: int) -> tuple[int, int]:
    """(n, b), often at, just below or just above a power of b, where logarithms round the wrong way."""
    branching = draw(st.sampled_from((2, 3, 4, 5, 6, 7, 10, 16)))
    if draw(st.booleans()):
        return draw(st.integers(1, most)), branching
    power = 1
    for _ in range(draw(st.integers(0, 12))):
        power *= branching if power * branching <= most else 1
    return max(1, min(most, power + draw(st.integers(-1, 1)))), branching


@law(needs=(PlanTree,), size=_sizes(most=20_000))
def test_depth_is_the_least_that_holds_everyone(implementation: Subject, size: tuple[int, int]) -> None:
    """b^(L-1) < n <= b^L in whole numbers: one worker has depth 0, eight with b = 2 have 3, 125 with b = 5 have 3.

    Clause: 3.1. Catches: planted.OffByOneDepth, planted.DepthByLogarithm.
    """
    workers, branching = size
    depth = ask(implementation, PlanTree(workers=workers, branching=branching), TreePlanned).depth
    assert branching**depth >= workers, f"depth {depth}, but {branching}^{depth} < {workers}"
    assert depth == 0 or branching ** (depth - 1) < workers, f"depth {depth}, but {branching}^{depth - 1} would do"


@law(needs=(PlanTree,), size=_sizes(most=20_000))
def test_levels_shrink_by_the_branching_factor(implementation: Subject, size: tuple[int, int]) -> None:
    """From the workers up each level has as many nodes as it takes for b children each; the root is alone.

    Clause: 3.1. Catches: planted.FloorsLevels, planted.LevelsUpsideDown.
    """
    workers, branching = size
    planned = ask(implementation, PlanTree(workers=workers, branching=branching), TreePlanned)
    wanted = level_sizes(workers, branching)
    assert list(planned.levels) == wanted, f"the levels are {list(planned.levels)}, wanted {wanted}"
    assert planned.depth == len(planned.levels) - 1, f"depth {planned.depth} with {len(planned.levels)} levels"


@law(needs=(PlanTree,), size=_sizes(most=150))
def test_the_plan_is_a_tree(implementation: Subject, size: tuple[int, int]) -> None:
    """As a networkx graph: an arborescence with one root, n leaves and at most b children a node, L edges deep.

    Clause: 3.2. Catches: planted.OrphanLeaf, planted.OverfullNode, planted.CyclicPlan.
    """
    workers, branching = size
    planned = ask(implementation, PlanTree(workers=workers, branching=branching), TreePlanned)
    parents = said(planned.parents, "which node is whose parent")
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(parents)
    graph.add_edges_from((parent, child) for child, parent in parents.items() if parent is not None)
    roots = sorted(child for child, parent in parents.items() if parent is None)
    assert len(roots) == 1, f"there are {len(roots)} nodes without a parent: {roots[:8]}"
    assert nx.is_arborescence(graph), "the parents do not make a tree (a cycle, or a part that hangs on nothing)"
    leaves = [node for node in graph if graph.out_degree(node) == 0]
    assert len(leaves) == workers, f"the tree has {len(leaves)} leaves for {workers} workers"
    fullest = max(graph, key=graph.out_degree)
    assert graph.out_degree(fullest) <= branching, f"{fullest} has {graph.out_degree(fullest)} children"
    longest = nx.dag_longest_path_length(graph)
    assert longest == planned.depth, f"the longest path has {longest} edges, the depth is said to be {planned.depth}"
    assert len(graph) == sum(planned.levels), f"{len(graph)} nodes, but the levels add up to {sum(planned.levels)}"


# ------------------------------------------------------------------------------------------------ means up the tree

_FLOATING = ("float32", "float64")
_BRANCHING = st.integers(2, 6)


def _require_mean(implementation: Subject, case: Round, way: Way, branching: int) -> None:
    result = result_of(implementation, way, case.updates, layout=case.layout, branching=branching)
    require_mean(result, case.updates, case.layout)


@law(needs=(Aggregate,), ways=(TREE,), case=rounds(most=14, dtypes=_FLOATING, weighted=False), branching=_BRANCHING)
def test_every_worker_counts_alike_up_the_tree(implementation: Subject, case: Round, branching: int) -> None:
    """With equal masses the tree gives the plain mean, for every n and b; averaging averages does not.

    For five workers and b = 4 a mean of means gives the last one half of the weight.

    Clause: 3.3. Catches: planted.MeanOfMeans, planted.DropsLastWorker, planted.PadsWithZeros.
    """
    _require_mean(implementation, case, TREE, branching)


@law(needs=(Aggregate,), ways=(TREE,), case=rounds(most=14, dtypes=_FLOATING), branching=_BRANCHING)
def test_importance_reaches_the_root(implementation: Subject, case: Round, branching: int) -> None:
    """Up a tree each contribution weighs what its mass says, at every level.

    Clauses: 3.3, 3.4. Catches: planted.ForgetsMass, planted.MassOnlyAtLeaves.
    """
    _require_mean(implementation, case, TREE, branching)


@law(needs=(Aggregate,), ways=(FLAT,), case=rounds(most=14, dtypes=_FLOATING))
def test_a_flat_mean_is_the_weighted_mean(implementation: Subject, case: Round) -> None:
    """One aggregator gives the exact weighted mean but for rounding; entries do not mix.

    Clause: 3.4. Catches: planted.ForgetsMass, planted.SwapsEntries.
    """
    _require_mean(implementation, case, FLAT, 3)


every_other_topology = pytest.mark.parametrize("way", [way for way in MEAN_WAYS if way != FLAT], ids=str)


@every_other_topology
@law(needs=(Aggregate,), ways=(FLAT,), case=rounds(most=14), branching=_BRANCHING, data=st.data())
def test_every_topology_gives_the_bits_of_flat(
    implementation: Subject, way: Way, case: Round, branching: int, data: st.DataObject
) -> None:
    """The weighted mean has the same bits from one aggregator and up any tree, in any order of listing.

    Clauses: 0.10, 2.3, 3.3. Catches: planted.AddsInFloat32, planted.RoundsAtEveryNode.
    """
    flat = result_of(implementation, FLAT, case.updates, layout=case.layout)
    turned = data.draw(st.permutations(case.updates), label="order")
    other = result_of(implementation, way, turned, layout=case.layout, branching=branching)
    require_bits(other, flat, f"{way.topology} (b = {branching}) against flat")


@pytest.mark.parametrize("way", SHARDED_WAYS, ids=str)
@law(needs=(Aggregate,), thrift=2, case=lambda way: lied_for(way, attacks=MODEST))
def test_shards_give_what_the_flat_rule_gives(implementation: Subject, way: Way, case: Lied) -> None:
    """A robust rule over sharded coordinates keeps the full f < n/3: its result is the flat rule's, but for rounding.

    Clause: 3.8. Catches: planted.JudgesEachShard.
    """
    options: dict[str, Any] = {"layout": case.layout, "faulty_max": case.faulty_max}
    sharded = flat_row(result_of(implementation, way, case.updates, **options), case.layout)
    flat = flat_row(result_of(implementation, Way(way.rule, "flat"), case.updates, **options), case.layout)
    honest = case.honest_rows()
    spread = float(np.abs(honest - honest.mean(axis=0)).max())
    slack = bound_slack(case.layout.entries[0].dtype, top=float(np.abs(honest).max()), size=flat.size)
    apart = float(np.linalg.norm(sharded - flat))
    if way.rule == "krum":  # equal scores may be told apart otherwise; then both choose an honest row's like
        apart = min(apart, max(0.0, apart - 2 * math.sqrt(flat.size) * spread))
    assert apart <= 1e-5 * spread + slack, f"sharded differs from flat by {apart:.4g}; the honest spread {spread:.4g}"


@law(
    needs=(Aggregate,),
    ways=(TREE,),
    case=rounds(least=2, most=10, dtypes=_FLOATING, styles=("drawn", "random")),
    branching=_BRANCHING,
)
def test_a_worker_of_double_mass_is_two_workers(implementation: Subject, case: Round, branching: int) -> None:
    """Giving a contribution the mass of two is as good as sending it from two workers.

    Clause: 3.4. Catches: planted.ForgetsMass, planted.SoftmaxOfMasses.
    """
    first = case.updates[0]
    doubled = [dataclasses.replace(first, mass=2 * first.mass), *case.updates[1:]]
    twins = [*case.updates, dataclasses.replace(first, worker="z twin")]
    one = result_of(implementation, TREE, doubled, layout=case.layout, branching=branching)
    two = result_of(implementation, TREE, twins, layout=case.layout, branching=branching)
    for entry in case.layout.entries:
        top = largest([update.tensors[entry.name] for update in case.updates])
        allowed = float(2 * mean_tolerance(entry.dtype, count=len(twins), top=top))
        apart = (one[entry.name].double() - two[entry.name].double()).abs()
        missed = float(apart.max()) if apart.numel() else 0.0
        assert missed <= allowed, f"{entry.name!r} differs by {missed:.3g}, {allowed:.3g} is rounding"


# ------------------------------------------------------------------------------------------------ robust trees

MEDIAN_TREE = Way("geometric_median", "tree")


@law(needs=(Aggregate,), topologies=("tree",), case=lied_rounds(lying=True), branching=_BRANCHING)
def test_a_robust_tree_promises_no_more_than_it_keeps(implementation: Subject, case: Lied, branching: int) -> None:
    """Medians node by node fall to the liars who own the cheapest way to the root; more than that is refused.

    A binary tree of medians tolerates nobody, whatever 3f < n says. Who offers trees, but none of medians, is asked
    for binary ones only, and owes a refusal.

    Clause: 3.7. Catches: planted.RobustTreePromisesAll.
    """
    offered = implementation.rules is None or tuple(MEDIAN_TREE) in implementation.rules
    branching = branching if offered else 2
    tolerated = tree_tolerance(len(case.updates), branching)
    request = Aggregate(
        rule=MEDIAN_TREE.rule,
        topology=MEDIAN_TREE.topology,
        updates=case.updates,
        faulty_max=case.faulty_max,
        layout=case.layout,
        branching=branching,
    )
    if case.faulty_max <= tolerated:
        ask(implementation, request, Aggregated)
    else:
        require_refusal(implementation, request, why=f"such a tree tolerates {tolerated}")
