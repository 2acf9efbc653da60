"""Section 3: robust rules node by node, within what the tree survives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from hqde_ref.messages import Aggregate, message
from properties.declaring import Way, law
from properties.laws import aggregate, flat_row, require_refusal, result_in
from properties.liars import ATTACKS, HONEST, Lied, as_updates, flat_layout, honest_rows, lies
from properties.oracles import tree_owners, tree_radius, tree_tolerance
from properties.strategies import name_workers
from properties.subject import Subject
from properties.tolerances import bound_slack
from simulator import proven_bounds

BOXED = tuple(Way(rule, "tree") for rule in ("coordinate_median", "lower_coordinate_median", "trimmed_mean"))
GEOMETRIC = Way("geometric_median", "tree")
# (n, b): trees that survive somebody.
_SHAPES = ((3, 3), (5, 5), (7, 4), (9, 3), (11, 5), (13, 4), (15, 4), (16, 4), (25, 5))


@message
class Grown:
    """A round with liars, and the branching of its tree."""

    lied: Lied
    branching: int


@st.composite
def grown_rounds(draw: st.DrawFn, *, silent: bool = False) -> Grown:
    """As many liars as the tree survives with 3f < n, often where they own most of it; some members may be silent."""
    shapes = [(n, b) for n, b in _SHAPES if min(tree_tolerance(n, b), (n - 1) // 3) >= 1]
    workers, branching = draw(st.sampled_from(shapes))
    faulty_max = min(tree_tolerance(workers, branching), (workers - 1) // 3)
    names = sorted(name_workers(workers))
    owning = [names[leaf] for leaf in tree_owners(workers, branching)]
    order = [*owning, *(name for name in names if name not in owning)] if draw(st.booleans()) else names
    if order is names:
        order = list(draw(st.permutations(names)))
    liars, rest = order[:faulty_max], sorted(order[faulty_max:])
    gone = set(draw(st.lists(st.sampled_from(rest), max_size=3, unique=True))) if silent else set[str]()
    honest = [name for name in rest if name not in gone]
    size, dtype = draw(st.sampled_from((1, 2, 8))), draw(st.sampled_from(("float32", "float64")))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = honest_rows(draw(st.sampled_from(HONEST)), len(honest), size, noise)
    false = lies(draw(st.sampled_from(ATTACKS)), rows, len(liars), noise)
    layout = flat_layout(size, dtype)
    updates, held = as_updates(layout, [*honest, *liars], np.concatenate([rows, false]))
    lied = Lied(
        layout=layout,
        updates=tuple(sorted(updates, key=lambda update: update.worker)),
        members=tuple(names),
        honest=tuple(honest),
        liars=tuple(liars),
        silent=tuple(sorted(gone)),
        rows=held,
        faulty_max=faulty_max,
    )
    return Grown(lied=lied, branching=branching)


def _result(implementation: Subject, way: Way, case: Grown) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    lied = case.lied
    reply = aggregate(
        implementation,
        way,
        lied.updates,
        layout=lied.layout,
        faulty_max=lied.faulty_max,
        branching=case.branching,
        members=lied.members,
    )
    return flat_row(result_in(reply, implementation), lied.layout)


@pytest.mark.parametrize("way", BOXED, ids=str)
@law(needs=(Aggregate,), case=grown_rounds())
def test_a_tree_of_medians_stays_among_the_honest(implementation: Subject, way: Way, case: Grown) -> None:
    """Node by node, every value lies between the least and the greatest honest one, wherever the liars sit.

    Clause: 3.7. Catches: planted.MeansAtTheNodes, planted.OneNodeTakesNoMedian.
    """
    honest = case.lied.honest_rows()
    result = _result(implementation, way, case)
    slack = bound_slack(case.lied.layout.entries[0].dtype, top=float(np.abs(honest).max()), size=result.size)
    outside = (result < honest.min(axis=0) - slack) | (result > honest.max(axis=0) + slack)
    assert not outside.any(), (
        f"coordinates {np.flatnonzero(outside).tolist()} left the honest range; liars: {', '.join(case.lied.liars)}, "
        f"branching {case.branching}"
    )


@law(needs=(Aggregate,), ways=(GEOMETRIC,), case=grown_rounds())
def test_a_tree_of_geometric_medians_stays_near_the_honest(implementation: Subject, case: Grown) -> None:
    """Node by node, the result is no farther from the honest mean than the farthest honest one, times every factor.

    Clause: 3.7. Catches: planted.MeansAtTheNodes, planted.OneNodeTakesNoMedian.
    """
    honest = case.lied.honest_rows()
    mean = honest.mean(axis=0)
    result = _result(implementation, GEOMETRIC, case)
    radius = float(np.linalg.norm(honest - mean, axis=1).max())
    allowed = tree_radius(len(case.lied.members), case.branching) * radius
    slack = bound_slack(case.lied.layout.entries[0].dtype, top=float(np.abs(honest).max()), size=result.size)
    error = float(np.linalg.norm(result - mean))
    assert error <= allowed * (1 + 1e-5) + slack, (
        f"the result is {error:.4g} from the honest mean, {allowed:.4g} is promised; "
        f"liars: {', '.join(case.lied.liars)}, branching {case.branching}"
    )


@pytest.mark.parametrize("way", [*BOXED, GEOMETRIC], ids=str)
@law(needs=(Aggregate,), case=grown_rounds(silent=True))
def test_who_is_missing_counts_in_the_group_it_leaves(implementation: Subject, way: Way, case: Grown) -> None:
    """A round is refused when what is left of the tree survives fewer liars than were promised, whoever lies.

    Clauses: 3.7, 4.9. Catches: planted.ForgetsWhoLeftTheTree.
    """
    lied = case.lied
    survives = proven_bounds.tree_tolerance([name not in lied.silent for name in lied.members], case.branching)
    if survives >= lied.faulty_max:
        _result(implementation, way, case)
        return
    request = Aggregate(
        rule=way.rule,
        topology="tree",
        updates=lied.updates,
        faulty_max=lied.faulty_max,
        branching=case.branching,
        layout=lied.layout,
        members=lied.members,
    )
    require_refusal(implementation, request, why=f"what is left of the tree survives {survives} liar(s)")
