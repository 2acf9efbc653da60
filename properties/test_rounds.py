"""Section 6: rounds end in time and recover; what is stale, damaged or told in several ways does no harm."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import strategies as st

from hqde_ref.messages import Aggregate, RoundEnded, RoundFault, RunRound, Update
from properties.declaring import Way, law
from properties.laws import aggregate, flat_row, result_in, said
from properties.liars import Lied, Rows, as_updates, flat_layout, honest_rows
from properties.running import (
    ROBUST_RUNS,
    TOPOLOGIES,
    WITHIN_S,
    Trouble,
    mean_round,
    members_rounds,
    require_accounts,
    require_in_time,
    require_mean_of_used,
    result_of_round,
    round_of,
    run,
    troubles,
)
from properties.strategies import Round, name_workers
from properties.subject import Subject
from properties.ways import ROBUST_WAYS, lied_for

# ------------------------------------------------------------------------------------------------ time


@law(
    needs=(RunRound,),
    case=members_rounds(),
    trouble=troubles(),
    within_s=st.sampled_from((0.02, 1.0, WITHIN_S)),
    hosts=st.integers(1, 3),
)
def test_a_round_ends_by_its_deadline(
    implementation: Subject, case: Round, trouble: Trouble, within_s: float, hosts: int
) -> None:
    """Whatever dies, hangs, is slow or gets lost, the round is over by its deadline, with a verdict or a refusal.

    Clause: 6.1. Catches: planted.WaitsForTheHung, planted.EndsWithNothing.
    """
    request = round_of(case, trouble.way, faults=trouble.faults)
    request = dataclasses.replace(request, within_s=within_s, hosts=hosts)
    ended = run(implementation, request, every=False)
    require_in_time(ended, request)
    require_accounts(ended, case.workers)


@law(needs=(RunRound,), case=members_rounds(), trouble=troubles())
def test_once_faults_stop_a_round_completes_with_everyone(
    implementation: Subject, case: Round, trouble: Trouble
) -> None:
    """After a round of faults, of the next three one at least uses everybody and is right; nobody has to help.

    Clause: 6.5. Catches: planted.StaysDead.
    """
    node = implementation.start()
    run(implementation, round_of(case, trouble.way, faults=trouble.faults), node=node, every=False)
    absent: set[str] = set()
    for number in (2, 3, 4):
        request = round_of(case, trouble.way, number=number)
        ended = run(implementation, request, node=node)
        require_in_time(ended, request)
        absent = set(case.workers) - set(said(ended.used, "who was used"))
        if not absent:
            if trouble.is_mean:
                require_mean_of_used(ended, case.updates, case)
            return
    raise AssertionError(f"three rounds after the faults {sorted(absent)[0]} is still not used")


@law(
    needs=(RunRound,),
    case=members_rounds(),
    topology=st.sampled_from(TOPOLOGIES),
    victim=st.integers(0, 8),
    kind=st.sampled_from(("dies", "hangs")),
)
def test_a_member_that_dies_is_missed_and_comes_back(
    implementation: Subject, case: Round, topology: str, victim: int, kind: str
) -> None:
    """The round goes on with the rest and says who is missing; within three more the member takes part again.

    Clauses: 1.6, 6.4. Catches: planted.EndsTraining, planted.StaysDead, planted.UsesTheDead.
    """
    node, gone = implementation.start(), case.workers[victim % len(case.workers)]
    fault = RoundFault(role="member", index=victim, kind=kind)
    ended = run(implementation, mean_round(case, topology, faults=[fault]), node=node)
    require_mean_of_used(ended, case.updates, case)
    assert gone in said(ended.missing, "who is missing"), f"{gone} {kind} while it trained, but is not missing"
    back: list[RoundEnded] = []
    while len(back) < 3 and not (back and gone in said(back[-1].used, "who was used")):
        back.append(run(implementation, mean_round(case, topology, number=2 + len(back)), node=node))
        require_mean_of_used(back[-1], case.updates, case)
    assert gone in said(back[-1].used, "who was used"), f"{gone} {kind} once, and three rounds later it is not back"


# ------------------------------------------------------------------------------------------------ what members send


def _strange(implementation: Subject, case: Round, topology: str, fault: RoundFault) -> tuple[str, RoundEnded]:
    """A member whose contribution is not what it should be; the others are all used."""
    ended = run(implementation, mean_round(case, topology, faults=[fault]))
    require_mean_of_used(ended, case.updates, case)
    victim = case.workers[fault.index % len(case.workers)]
    lost = sorted(set(case.workers) - {victim} - set(ended.used or ()))
    assert not lost, f"{victim} {fault.kind}, and {lost[0]} was not used either"
    return victim, ended


@law(needs=(RunRound,), case=members_rounds(), topology=st.sampled_from(TOPOLOGIES), victim=st.integers(0, 8))
def test_a_contribution_for_another_round_is_rejected(
    implementation: Subject, case: Round, topology: str, victim: int
) -> None:
    """What was made for an earlier round is rejected, and leaves no trace in the result.

    Clause: 6.3. Catches: planted.CountsStale, planted.CallsStaleMissing.
    """
    fault = RoundFault(role="member", index=victim, kind="is stale")
    who, ended = _strange(implementation, case, topology, fault)
    reason = said(ended.rejected, "who was rejected").get(who)
    assert reason, f"{who} sent its contribution for an earlier round, but was not rejected"


_DAMAGE = st.builds(
    RoundFault,
    role=st.just("member"),
    index=st.integers(0, 8),
    kind=st.sampled_from(("flips a bit", "truncates")),
    bit=st.integers(0, 10_000),
)


@law(needs=(RunRound,), case=members_rounds(), topology=st.sampled_from(TOPOLOGIES), fault=_DAMAGE)
def test_damaged_bytes_are_not_aggregated(
    implementation: Subject, case: Round, topology: str, fault: RoundFault
) -> None:
    """A flipped bit or a lost tail is found: the contribution is left out, or had again whole.

    Clause: 6.8. Catches: planted.TrustsBytes.
    """
    _strange(implementation, case, topology, fault)


@st.composite
def _one_liar(draw: st.DrawFn, *, least: int = 5) -> Round:
    """Members that all send the same, but for the first, which lies."""
    count, size = draw(st.integers(least, least + 4)), draw(st.integers(1, 4))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = np.repeat(honest_rows("random", 1, size, noise), count, axis=0)
    rows[0] += draw(st.sampled_from((1e6, -50.0)))
    layout = flat_layout(size, "float64")
    updates, _ = as_updates(layout, name_workers(count), rows)
    return Round(layout=layout, updates=updates, faulty_max=1)


def _require_near(got: Rows, honest: Rows, what: str) -> None:
    """All honest members sent the same, and liars far from it do not move the result; how exactly is clause 4.6's."""
    apart, near = float(np.linalg.norm(got - honest)), 1e-3 * (1.0 + float(np.abs(honest).max()))
    assert apart <= near, f"{what}, and the result lies {apart:.4g} from what all honest members sent"


def _require_honest_value(ended: RoundEnded, case: Round, what: str) -> None:
    honest = flat_row(case.updates[-1].tensors, case.layout)
    _require_near(flat_row(result_of_round(ended), case.layout), honest, what)


@law(needs=(RunRound,), case=_one_liar(), way=st.sampled_from(ROBUST_RUNS), fault=_DAMAGE)
def test_damage_on_the_way_proves_nothing_of_its_sender(
    implementation: Subject, case: Round, way: Way, fault: RoundFault
) -> None:
    """Bytes that an honest member lost on the way do not use up the budget for liars: the liar is still withstood.

    Clauses: 6.8, 4.2. Catches: planted.DamageProvesALiar.
    """
    honest = 1 + fault.index % (len(case.workers) - 1)
    fault = dataclasses.replace(fault, index=honest)
    ended = run(implementation, round_of(case, way, faults=[fault]))
    require_accounts(ended, case.workers)
    _require_honest_value(ended, case, f"one member lies and the bytes of another are damaged ({fault.kind})")


# ------------------------------------------------------------------------------------------------ different stories


def _tales_of(liar: Update, count: int) -> tuple[Update, ...]:
    """More things that a liar says: each somewhere else."""
    return tuple(
        dataclasses.replace(liar, tensors={name: tensor + 7.0 * step for name, tensor in liar.tensors.items()})
        for step in range(1, count + 1)
    )


@law(needs=(RunRound,), case=_one_liar(least=4), topology=st.sampled_from(("flat", "sharded")), tales=st.integers(1, 9))
def test_who_tells_receivers_different_things_is_one_liar(
    implementation: Subject, case: Round, topology: str, tales: int
) -> None:
    """A member that sends each receiver something else is withstood like any liar, with the members that one needs.

    Clause: 6.6. Catches: planted.CountsEveryTale, planted.CountsATaleAsAFault.
    """
    fault = RoundFault(role="member", index=0, kind="equivocates")
    request = round_of(case, Way("geometric_median", topology), faults=[fault])
    updates = (*case.updates, *_tales_of(case.updates[0], tales))
    ended = run(implementation, dataclasses.replace(request, updates=updates))
    require_accounts(ended, case.workers)
    _require_honest_value(ended, case, f"one member tells {tales + 1} tales")


@pytest.mark.parametrize("way", ROBUST_WAYS, ids=str)
@law(
    needs=(Aggregate,),
    thrift=4,
    case=lambda way: lied_for(way, lying=True, equal_honest=True),
    tales=st.integers(1, 9),
)
def test_several_contributions_of_one_worker_are_one_fault(
    implementation: Subject, way: Way, case: Lied, tales: int
) -> None:
    """Liars who send several different things each count as one Byzantine worker at most: no refusal, no majority.

    Clauses: 6.6, 6.2. Catches: planted.CountsEveryTale, planted.CountsATaleAsAFault.
    """
    liars = [update for update in case.updates if update.worker in case.liars]
    updates = [*case.updates, *(tale for liar in liars for tale in _tales_of(liar, tales))]
    reply = aggregate(
        implementation, way, updates, layout=case.layout, faulty_max=case.faulty_max, members=case.members
    )
    point, honest = flat_row(result_in(reply, implementation), case.layout), case.honest_rows()[0]
    _require_near(point, honest, f"{len(liars)} liar(s) tell {tales + 1} tales each")
    if reply.used is not None:
        twice = [liar for liar in case.liars if reply.used.count(liar) > 1]
        assert not twice, f"{twice[0]} sent {tales + 1} different contributions, and several were used"
