"""Robust rules node by node: what holds below breakdown and no longer at it, verdicts, refusals, evidence, bits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch

from hqde_ref.core.trees import breaking_cost, plan_tree, worst_placement
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import Aggregate, Aggregated, Entry, Evidence, Layout, Policy, Reply, Update
from hqde_ref.reference import Reference
from hqde_ref.rounds.training import training_round
from simulator import proven_bounds
from simulator.ensembles import Ensemble, numbered
from simulator.runtime import Simulated

LAYOUT = Layout(entries=(Entry(name="w", shape=(2,), dtype="float32"), Entry(name="k", shape=(), dtype="int64")))


def _names(count: int) -> tuple[str, ...]:
    return tuple(f"w{index:02}" for index in range(count))


def _update(worker: str, value: float, whole: int = 0) -> Update:
    return Update(worker=worker, tensors={"w": torch.tensor([value, -value]), "k": torch.tensor(whole)})


def _ask(values: Mapping[str, float], *, members: tuple[str, ...], wholes: Mapping[str, int] | None = None) -> Reply:
    branching = 3 if len(members) == 9 else 5
    wholes = wholes or {}
    return (
        Reference()
        .start()
        .perform(
            Aggregate(
                rule="coordinate_median",
                topology="tree",
                updates=tuple(_update(worker, value, wholes.get(worker, 0)) for worker, value in values.items()),
                faulty_max=2 if len(members) == 9 else 8,
                branching=branching,
                layout=LAYOUT,
                members=members,
            )
        )
    )


def _done(reply: Reply) -> Aggregated:
    assert isinstance(reply, Aggregated)
    return reply


@pytest.mark.parametrize(("workers", "branching"), [(9, 3), (25, 5), (16, 4), (27, 3)])
def test_the_worst_placement_breaks_a_tree_of_medians_and_one_liar_less_does_not(workers: int, branching: int) -> None:
    members = _names(workers)
    worst = worst_placement(plan_tree(workers=workers, branching=branching), node_rule="half")
    for liars, breaks in ((worst, True), (worst[:-1], False), (worst[1:], False)):
        lying = {members[leaf] for leaf in liars}
        request = Aggregate(
            rule="coordinate_median",
            topology="tree",
            updates=tuple(_update(worker, 1e6 if worker in lying else 1.0) for worker in members),
            faulty_max=0,
            branching=branching,
            layout=LAYOUT,
        )
        result = _done(Reference().start().perform(request)).result
        assert result is not None
        assert bool((result["w"] != torch.tensor([1.0, -1.0])).all()) is breaks


def test_recursion_over_those_present_is_that_of_the_harness() -> None:
    for workers, branching in ((9, 3), (7, 3), (11, 4), (5, 5)):
        plan = plan_tree(workers=workers, branching=branching)
        for mask in range(1, 2**workers):
            there = [bool(mask >> leaf & 1) for leaf in range(workers)]
            present = {leaf for leaf in range(workers) if there[leaf]}
            cost = breaking_cost(plan, node_rule="half", present=present)
            assert max(0, cost - 1) == proven_bounds.tree_tolerance(there, branching)
    assert breaking_cost(plan_tree(workers=4, branching=2), node_rule="half", present=()) == 0


def test_integer_entries_are_the_lower_median_of_all_not_of_medians() -> None:
    members = _names(9)
    wholes = dict(zip(members, (0, 5, 5, 0, 5, 5, 0, 0, 0), strict=True))  # the median of the groups' medians is 5
    reply = _done(_ask(dict.fromkeys(members, 1.0), members=members, wholes=wholes))
    assert reply.result is not None
    assert reply.result["k"].item() == 0


def test_the_evidence_says_which_bound_is_left() -> None:
    members = _names(9)
    values = dict(zip(members, (9e9, 9e9, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0), strict=True))
    found = _done(_ask(values, members=members)).evidence
    assert found == Evidence(rule="coordinate_median", faulty_max=2, kappa=None, honest_box=True)
    updates = tuple(_update(worker, value) for worker, value in values.items())
    request = Aggregate(rule="geometric_median", topology="tree", updates=updates, faulty_max=2, branching=3)
    turned = _done(Reference().start().perform(request)).evidence
    assert turned is not None
    assert (turned.kappa, turned.honest_box, turned.subgradient_norm) == (None, False, None)
    assert turned.radius_factor is not None
    most = (2 / 3 / math.sqrt(1 / 3)) ** 2  # one liar among three children, two levels
    assert 1.0 <= turned.radius_factor <= 1.0001 * most


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rounding_at_the_root_takes_no_radius_away(dtype: torch.dtype) -> None:
    """Three translates of a triangle: the root's median is one of its children, whose pull is back beside it."""
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.1], [0.2, 0.9]], dtype=torch.float64)
    updates = tuple(
        Update(worker=f"w{3 * group + corner}", tensors={"w": (row + shift).to(dtype)})
        for group, shift in enumerate(torch.tensor([[0.0, 0.0], [0.5, 0.25], [1.0, 0.5]], dtype=torch.float64))
        for corner, row in enumerate(triangle)
    )
    request = Aggregate(rule="geometric_median", topology="tree", updates=updates, faulty_max=2, branching=3)
    evidence = _done(Reference().start().perform(request)).evidence
    assert evidence is not None
    assert evidence.radius_factor == pytest.approx((2 / 3 / math.sqrt(1 / 3)) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("gone", "survives"), [("0", 2), ("01", 2), ("03", 1), ("036", 1), ("012", 1), ("8", 2), ("67", 2)]
)
def test_who_is_missing_counts_in_the_group_it_leaves(gone: str, survives: int) -> None:
    members = _names(9)
    values = {member: 1.0 for index, member in enumerate(members) if str(index) not in gone}
    reply = _done(_ask(values, members=members))
    if survives >= 2:
        assert reply.refused is None
        return
    assert reply.refused == (
        "coordinate_median in a tree of branching 3 needs contributions with which it survives 2 liar(s) wherever they "
        f"sit, with the {len(values)} usable of 9 it survives {survives}: missing members leave their groups smaller"
    )


def test_a_round_without_a_usable_contribution_is_refused() -> None:
    reply = _done(_ask({}, members=_names(9)))
    assert reply.refused == "coordinate_median needs at least 1 usable contribution, got 0"


def test_the_order_of_arrival_leaves_no_trace() -> None:
    members = _names(9)
    values = {member: float(index * index) for index, member in enumerate(members)}
    one = _done(_ask(values, members=members))
    two = _done(_ask(dict(reversed(list(values.items()))), members=tuple(reversed(members))))
    assert one.result is not None
    assert two.result is not None
    assert torch.equal(one.result["w"], two.result["w"])


def test_crowds_do_not_go_through_a_tree_of_a_robust_rule() -> None:
    crowded = Ensemble(members=numbered(9), hosts=3, floats=10, crowds=True)
    policy = Policy(rule="coordinate_median", topology="tree", faulty_max=2)
    world = Simulated(crowded.nodes())
    with pytest.raises(ConfigurationError) as caught:
        training_round(world, crowded.plan(world, policy))
    assert str(caught.value) == (
        "topology of a robust round with crowds must be flat or sharded, got 'tree'; "
        "use topology sharded, or no crowds."
    )
