"""Section 0 once more: who was used, rejected and missing, and that what is rejected leaves no trace."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import strategies as st

from hqde_ref.messages import Aggregate, Aggregated
from properties.declaring import Way, law
from properties.laws import aggregate, require_bits, require_mean, result_in, result_of, said
from properties.strategies import Faulted, Round
from properties.subject import Subject
from properties.ways import WAYS, faulted_for, rounds_for

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def _aggregate(implementation: Subject, way: Way, case: Faulted) -> Aggregated:
    return aggregate(
        implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max, members=case.members
    )


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: faulted_for(way, bad_at_least=0))
def test_every_member_is_accounted_for_once(implementation: Subject, way: Way, case: Faulted) -> None:
    """Each member is used, rejected or missing, never two of these: the bad are rejected, the silent are missing.

    Clauses: 0.4, 6.2. Catches: planted.ForgetsMissing, planted.UsesTheRejected, planted.LosesTheRejected,
    planted.CountsDuplicates.
    """
    reply = _aggregate(implementation, way, case)
    used, missing = said(reply.used, "who was used"), said(reply.missing, "who is missing")
    rejected = said(reply.rejected, "who was rejected")
    stands: dict[str, list[str]] = {member: [] for member in case.members}
    for what, names in (("used", used), ("rejected", rejected), ("missing", missing)):
        for name in names:
            stands.setdefault(name, []).append(what)
    strangers = sorted(set(used) - set(case.members))
    assert not strangers, f"{strangers[0]} was used, but is no member"
    odd = {name: places for name, places in stands.items() if len(places) != 1}
    assert not odd, f"these stand in none or several of used, rejected and missing: {odd}"
    for worker, how in case.bad.items():
        assert stands[worker] == ["rejected"], f"{worker} sent something {how}, but is {stands[worker][0]}"
    for update in case.whole:
        assert stands[update.worker] != ["missing"], f"{update.worker} sent a whole contribution, but is missing"
    for silent in set(case.members) - set(case.bad) - {update.worker for update in case.whole}:
        assert stands[silent] == ["missing"], f"{silent} sent nothing, but is {stands[silent][0]}"


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: faulted_for(way))
def test_a_rejection_says_why(implementation: Subject, way: Way, case: Faulted) -> None:
    """Whoever is rejected is told a reason that a person can read, of more than one word.

    Clauses: 0.4, 4.12. Catches: planted.SilentRejection, planted.ReasonIsACode.
    """
    rejected = said(_aggregate(implementation, way, case).rejected, "who was rejected")
    for worker, reason in rejected.items():
        words = [word for word in str(reason).split() if any(map(str.isalpha, word))]
        assert len(words) > 1, f"{worker} was rejected because {reason!r}"


def _require_untouched(implementation: Subject, way: Way, case: Faulted, what: str) -> None:
    reply = _aggregate(implementation, way, case)
    result = result_in(reply, implementation)
    for name, tensor in result.items():
        assert bool(torch.isfinite(tensor.double()).all()), f"{name!r} of the result holds NaN or infinity"
    if reply.used is not None:
        believed = [worker for worker in case.bad if worker in reply.used]
        assert not believed, f"{believed[0]} sent something {what}, and was used"
    if way.rule == "weighted_mean":
        require_mean(result, case.whole, case.layout)


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: faulted_for(way, kinds=("not finite",)))
def test_nan_and_infinity_never_reach_the_result(implementation: Subject, way: Way, case: Faulted) -> None:
    """Who sends NaN or infinity is left out, and the result is that of the others; one value in one cell suffices.

    Clause: 0.5. Catches: planted.LetsNaNThrough, planted.ZeroesNaN, planted.ChecksNaNOnly.
    """
    _require_untouched(implementation, way, case, "not finite")


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: faulted_for(way, kinds=("misshapen",)))
def test_misshapen_contributions_are_left_out_whole(implementation: Subject, way: Way, case: Faulted) -> None:
    """Other names, shapes or dtypes than declared leave a contribution out as a whole; nothing is broadcast or cast.

    Clause: 0.6. Catches: planted.BroadcastsShapes, planted.DropsKeyByKey, planted.CastsDtypes.
    """
    _require_untouched(implementation, way, case, "misshapen")


@every_way
@law(needs=(Aggregate,), thrift=8, case=lambda way: rounds_for(way), data=st.data())
def test_a_repeated_contribution_counts_once(
    implementation: Subject, way: Way, case: Round, data: st.DataObject
) -> None:
    """Delivering a worker's contribution again, as retries do, changes nothing.

    Clauses: 0.4, 6.2. Catches: planted.CountsDuplicates.
    """
    wanted = result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    again = data.draw(st.lists(st.sampled_from(case.updates), min_size=1, max_size=3), label="again")
    copies = [dataclasses.replace(u, tensors={n: t.clone() for n, t in u.tensors.items()}) for u in again]
    got = result_of(
        implementation,
        way,
        [*copies, *case.updates],
        layout=case.layout,
        faulty_max=case.faulty_max,
        members=case.workers,
    )
    require_bits(got, wanted, f"with {', '.join(update.worker for update in copies)} delivered again")
