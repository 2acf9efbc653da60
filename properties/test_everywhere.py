"""Section 0: what holds for every aggregation, whatever the rule and the topology."""

from __future__ import annotations

import dataclasses
import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from hqde_ref.messages import Aggregate, PlanShare, PlanSplit, PlanTree, Update
from properties.declaring import Way, law
from properties.laws import aggregate, bits, have_same_bits, require_bits, require_layout, require_refusal, result_of
from properties.oracles import exact_mean, lower_middle, round_half
from properties.strategies import FLOATS, INTEGERS, Faulted, Round, name_workers
from properties.subject import CannotTell, Subject
from properties.tolerances import mean_tolerance
from properties.ways import MEAN_WAYS, WAYS, faulted_for, rounds_for

every_way = pytest.mark.parametrize("way", WAYS, ids=str)
every_mean = pytest.mark.parametrize("way", MEAN_WAYS, ids=str)


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: faulted_for(way, bad_at_least=0))
def test_inputs_keep_their_bits(implementation: Subject, way: Way, case: Faulted) -> None:
    """A call leaves every contribution as it was, bit for bit; rejected ones too.

    Clause: 0.1. Catches: planted.MutatesInput, planted.CleansInputInPlace.
    """
    before = [{name: bits(tensor).clone() for name, tensor in u.tensors.items()} for u in case.updates]
    names = [list(update.tensors) for update in case.updates]
    members = list(case.members)
    aggregate(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max, members=case.members)
    assert list(case.members) == members, f"the members were {members}, now {list(case.members)}"
    for update, held, listed in zip(case.updates, before, names, strict=True):
        assert list(update.tensors) == listed, f"{update.worker} had the entries {listed}, now {list(update.tensors)}"
        for name, tensor in update.tensors.items():
            assert torch.equal(bits(tensor), held[name]), f"{update.worker}'s {name!r} was changed by the call"


@every_way
@law(
    needs=(Aggregate,),
    thrift=8,
    case=lambda way: rounds_for(way, dtypes=FLOATS),
)
def test_result_has_the_declared_layout(implementation: Subject, way: Way, case: Round) -> None:
    """Names in their order, shapes and dtypes of the result are those that the round declared.

    Clause: 0.2. Catches: planted.WidensHalves, planted.FlattensScalars, planted.SortsNames.
    """
    result = result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    require_layout(result, case.layout, "the result")


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: rounds_for(way), data=st.data())
def test_order_of_listing_leaves_no_trace(implementation: Subject, way: Way, case: Round, data: st.DataObject) -> None:
    """Listing the contributions, and each one's entries, in another order gives the same bits.

    Clauses: 0.3, 0.10. Catches: planted.SumsAsListed, planted.FirstListedWinsTies.
    """
    options = {"layout": case.layout, "faulty_max": case.faulty_max}
    wanted = result_of(implementation, way, case.updates, **options)
    turned = [
        dataclasses.replace(update, tensors=dict(reversed(list(update.tensors.items()))))
        for update in data.draw(st.permutations(case.updates), label="order")
    ]
    got = result_of(implementation, way, turned, **options)
    require_bits(got, wanted, f"listed as {', '.join(u.worker for u in turned)}, entries backwards")


@every_way
@law(needs=(Aggregate,), thrift=8, first=lambda way: rounds_for(way), second=lambda way: rounds_for(way))
def test_no_state_leaks_into_the_next_round(implementation: Subject, way: Way, first: Round, second: Round) -> None:
    """A node that has aggregated before gives what a fresh one gives.

    Clause: 0.11. Catches: planted.KeepsState, planted.RemembersLayout.
    """
    fresh = result_of(implementation, way, second.updates, layout=second.layout, faulty_max=second.faulty_max)
    node = implementation.start()
    for case in (first, second):
        used = result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max, node=node)
    require_bits(used, fresh, "on a node that had aggregated another round before")


def _surroundings() -> dict[str, Any]:
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random state": repr(np.random.get_state(legacy=False)),
        "Python's random state": random.getstate(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "threads of this process": sorted(thread.name for thread in threading.enumerate()),
    }


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: rounds_for(way))
def test_surroundings_are_left_alone(implementation: Subject, way: Way, case: Round) -> None:
    """Random states, torch's settings and threads of the caller are afterwards what they were.

    Clause: 0.12. Catches: planted.SeedsTorch, planted.ChangesDefaults.
    """
    if not implementation.in_process:
        raise CannotTell("it runs in another process, whose surroundings cannot be seen from here")

    before = _surroundings()
    result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    after = _surroundings()
    changed = [what for what, value in before.items() if after[what] != value]
    torch.set_num_threads(before["torch's number of threads"])
    torch.set_default_dtype(before["torch's default dtype"])
    assert not changed, f"the call changed {', '.join(changed)}"


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: rounds_for(way, dtypes=(*FLOATS, "int64")))
def test_equal_contributions_give_that_contribution(implementation: Subject, way: Way, case: Round) -> None:
    """When all send the same, that is the result; a mean may miss it by its rounding only.

    Clauses: 0.13, 4.6. Catches: planted.DividesByMembersPlusOne, planted.StartsFromZero.
    """
    same = case.updates[0].tensors
    updates = [dataclasses.replace(update, tensors=same) for update in case.updates]
    result = result_of(implementation, way, updates, layout=case.layout, faulty_max=case.faulty_max)
    for name, tensor in same.items():
        got, wanted = result[name], tensor
        if way.rule == "weighted_mean" and tensor.is_floating_point():
            top = float(tensor.abs().max()) if tensor.numel() else 0.0
            allowed = 2 * len(updates) * torch.finfo(torch.float32).eps * top
            if tensor.dtype in (torch.float32, torch.float64):
                allowed = 2 * len(updates) * torch.finfo(tensor.dtype).eps * top
            missed = float((got.double() - wanted.double()).abs().max()) if tensor.numel() else 0.0
            assert missed <= allowed, f"{name!r} misses what all {len(updates)} sent by {missed:.3g}"
        else:
            assert have_same_bits(got + 0, wanted + 0), f"{name!r} is {got.tolist()}, but all sent {wanted.tolist()}"


# ------------------------------------------------------------------------------------------------ kinds of numbers


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: rounds_for(way, dtypes=INTEGERS))
def test_integer_entries_become_their_lower_median(implementation: Subject, way: Way, case: Round) -> None:
    """Counters and flags keep their type; each value is the least with half of the contributions at or below it.

    Under a weighted mean, half of the mass.

    Clause: 0.8. Catches: planted.AveragesIntegers, planted.UpperMedian, planted.MedianForgetsMass.
    """
    result = result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    require_layout(result, case.layout, "the result")
    weights = [u.mass if way.rule == "weighted_mean" else 1.0 for u in case.updates]
    for entry in case.layout.entries:
        columns = zip(*(u.tensors[entry.name].reshape(-1).tolist() for u in case.updates), strict=True)
        wanted = [lower_middle([int(v) for v in column], weights) for column in columns]
        got = [int(value) for value in result[entry.name].reshape(-1).tolist()]
        assert got == wanted, f"{entry.name!r} is {got}, the lower median is {wanted} (weights {weights})"


@st.composite
def _halves(draw: st.DrawFn) -> tuple[str, tuple[Update, ...]]:
    """Half-precision contributions whose sum overflows float16, or has more digits than either type."""
    dtype = draw(st.sampled_from(("float16", "bfloat16")))
    count, scale = draw(st.integers(2, 9)), draw(st.sampled_from((1.0, 2.0**-9, 16.0)))
    whole = draw(st.lists(st.integers(1, 4000), min_size=count, max_size=count))
    rows = [torch.tensor([value * scale], dtype=torch.float64).to(getattr(torch, dtype)) for value in whole]
    return dtype, tuple(
        Update(worker=worker, tensors={"half": row, "wide": torch.ones(1)})
        for worker, row in zip(name_workers(count), rows, strict=True)
    )


@every_mean
@law(needs=(Aggregate,), case=_halves())
def test_half_precision_is_accumulated_wide(
    implementation: Subject, way: Way, case: tuple[str, tuple[Update, ...]]
) -> None:
    """The mean of half-precision numbers is what a sum in float32 or wider, rounded once, may give.

    Float16 has no room for the sum and bfloat16 no digits.

    Clause: 0.9. Catches: planted.AccumulatesInHalf, planted.TruncatesHalves.
    """
    dtype, updates = case
    exact = exact_mean(updates, "half")[0]
    top = max(float(update.tensors["half"].abs().max()) for update in updates)
    margin = mean_tolerance("float32", count=len(updates), top=top)
    low, high = round_half(exact - margin, dtype), round_half(exact + margin, dtype)
    # One node takes all of them: whether a mean composes up a tree is clause 3.3.
    got = float(result_of(implementation, way, updates, branching=len(updates))["half"][0])
    assert low <= got <= high, f"the mean is {got!r}; the exact one, {float(exact)!r}, rounds to {low!r} or {high!r}"


# ------------------------------------------------------------------------------------------------ nonsense


def _one(count: int) -> tuple[Update, ...]:
    return tuple(Update(worker=f"w{i}", tensors={"weight": torch.tensor([float(i)])}) for i in range(count))


def _aggregation(count: int, **changes: Any) -> Aggregate:
    whole = Aggregate(rule="weighted_mean", topology="flat", updates=_one(count), faulty_max=0)
    return dataclasses.replace(whole, **changes)


_BRANCHINGS = st.sampled_from((1, 0, -1, -3))
_MISTYPED = st.sampled_from((True, 2.5, "3"))


@law(needs=(Aggregate,), ways=(Way("weighted_mean", "tree"),), branching=_BRANCHINGS, count=st.integers(2, 9))
def test_a_tree_that_never_ends_is_refused(implementation: Subject, branching: int, count: int) -> None:
    """Aggregating up a tree whose nodes have fewer than two children is refused at once; a naive loop never ends.

    Clause: 0.7. Catches: planted.LoopsOnBranchingOne, planted.RaisesNakedError.
    """
    request = _aggregation(count, topology="tree", branching=branching)
    require_refusal(implementation, request, why=f"b = {branching}")


@law(needs=(PlanTree,), workers=st.integers(2, 60), branching=st.one_of(_BRANCHINGS, _MISTYPED))
def test_a_plan_that_never_ends_is_refused(implementation: Subject, workers: int, branching: int) -> None:
    """Planning with b < 2, or with something that is no integer, is refused at once.

    Clause: 0.7. Catches: planted.LoopsOnBranchingOne, planted.PlansWithAnything.
    """
    require_refusal(implementation, PlanTree(workers=workers, branching=branching), why=f"b = {branching!r}")


@law(needs=(PlanTree, PlanSplit, PlanShare), count=st.integers(-3, 0), other=st.integers(1, 9))
def test_nobody_to_plan_for_is_refused(implementation: Subject, count: int, other: int) -> None:
    """Plans for fewer than one worker, of a negative batch or of negative GPUs are refused.

    Clause: 0.7. Catches: planted.PlansForNobody.
    """
    for request in (
        PlanTree(workers=count, branching=other + 1),
        PlanSplit(samples=other, workers=count),
        PlanShare(workers=count, gpus=other),
        PlanSplit(samples=count - 1, workers=other),
        PlanShare(workers=other, gpus=count - 1),
    ):
        require_refusal(implementation, request, why="there is nothing to plan")


@law(needs=(Aggregate,), ways=MEAN_WAYS[:1], faulty_max=st.integers(1, 4), short=st.integers(0, 2))
def test_more_liars_than_a_third_are_refused(implementation: Subject, faulty_max: int, short: int) -> None:
    """A round that is to tolerate f of n members with 3f >= n is refused, as is a negative f.

    Clauses: 0.7, 4.1. Catches: planted.AcceptsAThird, planted.RefusesInSilence.
    """
    count = max(1, 3 * faulty_max - short)
    require_refusal(implementation, _aggregation(count, faulty_max=faulty_max), why=f"3 * {faulty_max} >= {count}")
    require_refusal(implementation, _aggregation(count, faulty_max=-faulty_max), why=f"f = {-faulty_max}")


@law(needs=(Aggregate,), ways=MEAN_WAYS[:1], word=st.sampled_from(("", "no such rule", "Weighted_Mean ", "median?")))
def test_unknown_words_are_refused(implementation: Subject, word: str) -> None:
    """An unknown rule or topology is refused, as is a round without members; none falls back to a default.

    Clause: 0.7. Catches: planted.UnknownRuleMeansMean, planted.EmptyRoundIsZero.
    """
    require_refusal(implementation, _aggregation(4, rule=word), why=f"no rule is called {word!r}")
    require_refusal(implementation, _aggregation(4, topology=word), why=f"no topology is called {word!r}")
    require_refusal(implementation, _aggregation(0), why="there are no members")
