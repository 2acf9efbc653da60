"""Section 2: pairs by name, means weighted by accuracy, and mappers and reducers that leave no trace and may die."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hypothesis import strategies as st
from torch import Tensor

from hqde_ref.messages import Aggregate, MapShuffle, RoundFault, RunRound, Shuffled, Update, message
from properties.declaring import Way, law
from properties.laws import aggregate, ask, have_same_bits, require_bits, require_mean, result_in, said
from properties.oracles import softmax_of
from properties.running import faults_of_nodes, mean_round, members_rounds, require_mean_of_used, result_of_round, run
from properties.strategies import FLOATS, INTEGERS, Faulted, Round, broken_rounds, rounds
from properties.subject import Subject

FLAT, HIERARCHICAL = Way("weighted_mean", "mapreduce"), Way("accuracy_softmax", "mapreduce")
_DOCUMENT = (0.92, 0.88, 0.85, 0.90)  # the example of the HQDE document; E4 corrects its weights
_WORKERS_AT_WORK = st.integers(1, 5)

# ------------------------------------------------------------------------------------------------ map and shuffle


def _require_pairs(shuffled: Shuffled, items: Sequence[Update], layout_names: Sequence[str]) -> None:
    """Each group holds the tensor of every item once, under its source."""
    unknown = sorted(set(shuffled.groups) - set(layout_names))
    assert not unknown, f"there is a group {unknown[0]!r}, which is no parameter"
    for name in layout_names:
        pairs = shuffled.groups.get(name, ())
        sources = sorted(pair.source for pair in pairs)
        wanted = sorted(item.worker for item in items)
        assert sources == wanted, f"the pairs of {name!r} come from {sources}, wanted {wanted}"
        tensors: dict[str, Tensor] = {item.worker: item.tensors[name] for item in items}
        changed = [pair.source for pair in pairs if not have_same_bits(pair.tensor, tensors[pair.source])]
        assert not changed, f"the pair of {name!r} from {changed[0]} holds another tensor than the item"


@law(
    needs=(MapShuffle,),
    case=rounds(dtypes=FLOATS + INTEGERS, weighted=False, shuffled=True),
    mappers=_WORKERS_AT_WORK,
    reducers=_WORKERS_AT_WORK,
)
def test_every_pair_is_in_its_group_once(implementation: Subject, case: Round, mappers: int, reducers: int) -> None:
    """Map emits one pair a parameter of every item, shuffle puts it under the parameter's name with its source.

    Clause: 2.1. Catches: planted.LosesAPair, planted.DoublesAPair, planted.MixesSources.
    """
    request = MapShuffle(items=case.updates, layout=case.layout, mappers=mappers, reducers=reducers)
    shuffled = ask(implementation, request, Shuffled)
    assert not shuffled.unmapped, f"whole items were not mapped: {dict(shuffled.unmapped)}"
    _require_pairs(shuffled, case.updates, [entry.name for entry in case.layout.entries])


@law(
    needs=(MapShuffle,),
    case=broken_rounds(least=1, faulty_max=0, kinds=("misshapen",), silent=0, doubles=False),
    mappers=_WORKERS_AT_WORK,
    reducers=_WORKERS_AT_WORK,
)
def test_an_item_that_cannot_be_mapped_is_accounted_for(
    implementation: Subject, case: Faulted, mappers: int, reducers: int
) -> None:
    """Who does not fit the layout is named with a reason, leaves no pair behind, and keeps nobody else out.

    Clause: 2.1. Catches: planted.SkipsInSilence, planted.MapsHalfAnItem.
    """
    request = MapShuffle(items=case.updates, layout=case.layout, mappers=mappers, reducers=reducers)
    shuffled = ask(implementation, request, Shuffled)
    for worker, how in case.bad.items():
        assert worker in shuffled.unmapped, f"{worker} does not fit the layout ({how}), but is not accounted for"
        assert shuffled.unmapped[worker].strip(), f"{worker} was not mapped, and nothing says why"
    assert set(shuffled.unmapped) == set(case.bad), f"whole items were not mapped: {sorted(shuffled.unmapped)}"
    _require_pairs(shuffled, case.whole, [entry.name for entry in case.layout.entries])


# ------------------------------------------------------------------------------------------------ weights


@message
class Measured:
    """A round whose contributions come with accuracies; ``without`` names those that have none in [0, 1]."""

    case: Round
    without: tuple[str, ...]


_GOOD = st.one_of(st.sampled_from((0, 1, *_DOCUMENT)), st.floats(0.0, 1.0))
_BAD = st.sampled_from((None, -0.1, 1.5, math.nan, math.inf, 2, -1))


@st.composite
def _measured_rounds(draw: st.DrawFn, *, bad: bool) -> Measured:
    """Whole numbers among the accuracies, the document's four often, and one without any in [0, 1] where ``bad``."""
    case = draw(rounds(least=2 if bad else 1, most=8, dtypes=("float32", "float64"), weighted=False))
    count = len(case.updates)
    listed = draw(st.sampled_from((_DOCUMENT, None)))
    accuracies = [listed[index % 4] for index in range(count)] if listed else [draw(_GOOD) for _ in range(count)]
    spoilt = draw(st.sets(st.integers(1, count - 1), min_size=1)) if bad else set()
    updates = tuple(
        dataclasses.replace(update, accuracy=draw(_BAD) if index in spoilt else accuracies[index])
        for index, update in enumerate(case.updates)
    )
    without = tuple(updates[index].worker for index in sorted(spoilt))
    return Measured(case=dataclasses.replace(case, updates=updates), without=without)


def _weighed(updates: Sequence[Update]) -> list[Update]:
    """The updates with the masses that the softmax of their accuracies gives."""
    masses = softmax_of([float(update.accuracy or 0.0) for update in updates])
    return [dataclasses.replace(update, mass=mass) for update, mass in zip(updates, masses, strict=True)]


@law(needs=(Aggregate,), ways=(HIERARCHICAL,), given=_measured_rounds(bad=False))
def test_hierarchical_reduce_weighs_by_the_softmax_of_accuracy(implementation: Subject, given: Measured) -> None:
    """The weights are exp(accuracy) over their sum: 0.2582, 0.2480, 0.2407, 0.2531 for 0.92, 0.88, 0.85, 0.90.

    An accuracy of 0 or 1 is a number, whether written as integer or not.

    Clauses: 2.2, 2.4. Catches: planted.WeighsByAccuracyItself, planted.SharpensSoftmax, planted.RefusesWholeAccuracies.
    """
    reply = aggregate(implementation, HIERARCHICAL, given.case.updates, layout=given.case.layout)
    require_mean(result_in(reply, implementation), _weighed(given.case.updates), given.case.layout)


@law(needs=(Aggregate,), ways=(FLAT,), given=_measured_rounds(bad=False))
def test_flat_reduce_is_the_plain_mean(implementation: Subject, given: Measured) -> None:
    """Every contribution weighs the same, whatever its accuracy.

    Clause: 2.2. Catches: planted.FlatWeighsByAccuracy.
    """
    reply = aggregate(implementation, FLAT, given.case.updates, layout=given.case.layout)
    require_mean(result_in(reply, implementation), given.case.updates, given.case.layout)


@law(needs=(Aggregate,), ways=(HIERARCHICAL,), given=_measured_rounds(bad=True))
def test_without_an_accuracy_there_is_no_weight(implementation: Subject, given: Measured) -> None:
    """Where the weighting needs accuracies, who gives none in [0, 1] is left out; nothing is made up for it.

    Clause: 2.4. Catches: planted.MissingAccuracyIsOne, planted.ClampsAccuracy.
    """
    reply = aggregate(implementation, HIERARCHICAL, given.case.updates, layout=given.case.layout)
    good = [update for update in given.case.updates if update.worker not in given.without]
    require_mean(result_in(reply, implementation), _weighed(good), given.case.layout)


@law(needs=(Aggregate,), ways=(HIERARCHICAL,), given=_measured_rounds(bad=True))
def test_who_has_no_accuracy_is_rejected_for_that(implementation: Subject, given: Measured) -> None:
    """The reason of the rejection speaks of accuracy.

    Clause: 2.4. Catches: planted.RejectsWithoutSayingAccuracy, planted.MissingAccuracyIsOne.
    """
    reply = aggregate(implementation, HIERARCHICAL, given.case.updates, layout=given.case.layout)
    rejected = said(reply.rejected, "who was rejected")
    for worker in given.without:
        assert worker in rejected, f"{worker} has no accuracy in [0, 1], but was not rejected"
        assert "accura" in rejected[worker].lower(), (
            f"{worker} has no accuracy, but was rejected for {rejected[worker]!r}"
        )


# ------------------------------------------------------------------------------------------------ who does the work


@law(
    needs=(RunRound,),
    case=members_rounds(least=2, most=8),
    mappers=_WORKERS_AT_WORK,
    reducers=_WORKERS_AT_WORK,
    hosts=_WORKERS_AT_WORK,
)
def test_mappers_and_reducers_leave_no_trace(
    implementation: Subject, case: Round, mappers: int, reducers: int, hosts: int
) -> None:
    """However many mappers, reducers and machines share the work, the result has the bits that one of each gives.

    Clauses: 2.3, 0.10. Catches: planted.MeanOfMappersMeans.
    """
    request = dataclasses.replace(mean_round(case, "mapreduce"), mappers=mappers, reducers=reducers, hosts=hosts)
    alone = dataclasses.replace(request, mappers=1, reducers=1, hosts=1)
    got, wanted = (result_of_round(run(implementation, one)) for one in (request, alone))
    require_bits(got, wanted, f"{mappers} mappers and {reducers} reducers on {hosts} machines against one of each")


@law(needs=(RunRound,), case=members_rounds(least=4), fault=faults_of_nodes("mapper", "reducer"))
def test_the_work_of_a_dead_mapper_or_reducer_is_done_again(
    implementation: Subject, case: Round, fault: RoundFault
) -> None:
    """A mapper or reducer that dies, hangs or is late costs no contribution, and none counts twice.

    Clauses: 2.5, 6.2. Catches: planted.LosesTheDeadPartition, planted.CountsRedoneWorkTwice.
    """
    ended = run(implementation, mean_round(case, "mapreduce", faults=[fault]))
    require_mean_of_used(ended, case.updates, case)
    absent = sorted(set(case.workers) - set(ended.used or ()))
    assert not absent, f"{fault.role} {fault.index} {fault.kind}, and {absent[0]} was not used"
