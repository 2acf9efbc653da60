"""Section 4: how many faults of which kind a round withstands, who is rejected, and what is said about it."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import strategies as st

from hqde_ref.messages import Aggregate, Update
from properties.bounds import require_within_bound
from properties.declaring import Way, law
from properties.laws import aggregate, flat_row, require_refusal, result_in, said
from properties.liars import Lied, as_updates, flat_layout
from properties.robust_rules import ROBUST
from properties.strategies import Round, name_workers
from properties.subject import Subject
from properties.tolerances import NEAR, bound_slack
from properties.ways import ROBUST_WAYS, fewest, lied_for, rounds_for
from simulator.proven_bounds import least_contributions

every_robust_way = pytest.mark.parametrize("way", ROBUST_WAYS, ids=str)


@st.composite
def _largest_thirds(draw: st.DrawFn, way: Way) -> Lied:
    """n = 3f + 1 members (or what the rule needs), f of them liars; at 34 of 103 int(0.33 n) first falls short."""
    faulty_max = draw(st.sampled_from([f for f in (1, 2, 3, 5, 34) if f <= ROBUST[way.rule].faulty_most]))
    members = fewest(way, faulty_max)
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    honest = noise.standard_normal((members - faulty_max, 2))
    rows = np.concatenate([honest, np.full((faulty_max, 2), draw(st.sampled_from((3.0, 1e6))))])
    workers, layout = name_workers(members), flat_layout(2, "float64")
    updates, held = as_updates(layout, workers, rows)
    return Lied(
        layout=layout,
        updates=updates,
        members=tuple(sorted(workers)),
        honest=workers[: len(honest)],
        liars=workers[len(honest) :],
        silent=(),
        rows=held,
        faulty_max=faulty_max,
    )


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: _largest_thirds(way))
def test_any_minority_below_a_third_is_withstood(implementation: Subject, way: Way, case: Lied) -> None:
    """Every f with 3f < n is accepted and its bound kept; int(0.33 n) would fall short from n = 103 on.

    Clauses: 4.1, 4.5. Catches: planted.TruncatesTheThird, planted.MeanCalledMedian.
    """
    require_within_bound(implementation, way, case)


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, lying=True, silent=True))
def test_crashes_and_liars_together_are_withstood(implementation: Subject, way: Way, case: Lied) -> None:
    """While 2 f_byzantine + f_absent < n there is a result, within the bound of those that arrived.

    Clauses: 4.2, 6.4. Catches: planted.WantsEveryone, planted.FillsInTheSilent.
    """
    require_within_bound(implementation, way, case)


@every_robust_way
@law(
    needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, lying=True), cell=st.sampled_from((math.nan, math.inf))
)
def test_a_rejected_liar_counts_once(implementation: Subject, way: Way, case: Lied, cell: float) -> None:
    """Liars who give themselves away with NaN use up the budget of faults; they are not absent on top of it.

    Clause: 4.2. Catches: planted.CountsRejectedTwice, planted.LetsNaNThrough.
    """
    name = case.layout.entries[0].name
    spoilt = []
    for update in case.updates:
        tensors = dict(update.tensors)
        if update.worker in case.liars:
            tensors[name] = tensors[name] * cell
        spoilt.append(dataclasses.replace(update, tensors=tensors))
    reply = aggregate(implementation, way, spoilt, layout=case.layout, faulty_max=case.faulty_max)
    point, honest = flat_row(result_in(reply, implementation), case.layout), case.honest_rows()
    mean = honest.mean(axis=0)
    radius = float(np.linalg.norm(honest - mean, axis=1).max())
    bound = math.sqrt(point.size) * radius + bound_slack("float32", top=float(np.abs(honest).max()), size=point.size)
    error = float(np.linalg.norm(point - mean))
    assert error <= bound, f"only the honest are left, but the result lies {error:.4g} from their mean ({bound:.4g})"


@every_robust_way
@law(needs=(Aggregate,), thrift=4, faulty_max=st.integers(1, 4), extra=st.integers(0, 2), lacking=st.integers(1, 9))
def test_too_few_contributions_are_refused(
    implementation: Subject, way: Way, faulty_max: int, extra: int, lacking: int
) -> None:
    """With fewer usable contributions than the rule needs the round is refused, and says how many were needed.

    Clauses: 4.9, 6.7. Catches: planted.WeakerRuleInSilence, planted.RefusalSaysNoNumber.
    """
    needed = least_contributions(way.rule, faulty_max)
    arrived = max(1, needed - lacking)
    count = fewest(way, faulty_max) + extra
    while needed in (count, count - arrived):  # else a sentence might hold the number for another reason
        count += 1
    members = name_workers(count)
    layout = flat_layout(2, "float32")
    updates, _ = as_updates(layout, members[:arrived], np.arange(2.0 * arrived).reshape(arrived, 2))
    request = Aggregate(
        rule=way.rule, topology=way.topology, updates=updates, faulty_max=faulty_max, layout=layout, members=members
    )
    sentence = require_refusal(implementation, request, why=f"{arrived} of the {needed} that it needs arrived")
    named = re.search(rf"(?<![\w.=-]){needed}(?!\w|\.\d)", sentence)
    assert named, f"the refusal must say that {needed} are needed: {sentence!r}"


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, lying=True), mass=st.sampled_from((1e6, 1e3, 1e-3)))
def test_claims_give_no_influence(implementation: Subject, way: Way, case: Lied, mass: float) -> None:
    """Whatever mass and accuracy liars claim for themselves, the bound of one contribution each holds.

    Clause: 4.10. Catches: planted.BelievesMass, planted.BelievesAccuracy.
    """
    claiming = tuple(
        dataclasses.replace(u, mass=mass if u.worker in case.liars else 1.0, accuracy=float(u.worker in case.liars))
        for u in case.updates
    )
    require_within_bound(implementation, way, dataclasses.replace(case, updates=claiming))


# ------------------------------------------------------------------------------------------------ who is rejected


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: rounds_for(way, dtypes=("float32", "float64"), least=3))
def test_identical_contributions_are_all_kept(implementation: Subject, way: Way, case: Round) -> None:
    """Nobody has to be rejected: when all send the same, all are used.

    Clause: 4.4. Catches: planted.AlwaysRejectsSomeone, planted.ScoresWithoutFloor.
    """
    updates = [dataclasses.replace(update, tensors=case.updates[0].tensors) for update in case.updates]
    reply = aggregate(implementation, way, updates, layout=case.layout, faulty_max=case.faulty_max)
    result_in(reply, implementation)
    used, rejected = said(reply.used, "who was used"), said(reply.rejected, "who was rejected")
    assert not rejected, f"all sent the same, but rejected: {dict(rejected)}"
    assert sorted(used) == sorted(case.workers), f"all sent the same, but only {list(used)} were used"


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, silent=True))
def test_rejections_and_absences_stay_within_the_budget(implementation: Subject, way: Way, case: Lied) -> None:
    """Members that are silent and members rejected as outliers are at most f together.

    Three crashed and three honest rejected of ten would leave an error of 3.8 sigma where 1.7 is promised.

    Clause: 4.4. Catches: planted.RejectsBeyondBudget, planted.IgnoresTheSilent.
    """
    reply = aggregate(
        implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max, members=case.members
    )
    rejected = said(reply.rejected, "who was rejected")
    allowed = max(0, case.faulty_max - len(case.silent))
    assert len(rejected) <= allowed, (
        f"{len(rejected)} were rejected as outliers ({', '.join(rejected)}) and {len(case.silent)} silent, f is "
        f"{case.faulty_max}"
    )


@st.composite
def _one_stands_apart(draw: st.DrawFn, way: Way, *, spread: bool) -> tuple[tuple[Update, ...], str]:
    """Honest contributions close together or equal, and one that is at least 10^4 times as far away."""
    count, size = fewest(way, 1) + draw(st.integers(0, 6)), draw(st.sampled_from((1, 2, 8)))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    rows = np.repeat(draw(st.sampled_from((0.0, 3.0))) + noise.standard_normal((1, size)), count, axis=0)
    if spread:
        rows = rows + 1e-3 * noise.uniform(-1, 1, (count, size))
    at = draw(st.integers(0, count - 1))
    direction = noise.standard_normal(size)
    rows[at] += draw(st.sampled_from((10.0, 1e3, 1e8))) * (direction / np.linalg.norm(direction)) * math.sqrt(size)
    updates, _ = as_updates(flat_layout(size, "float64"), name_workers(count), rows)
    return updates, f"w{at}"


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: _one_stands_apart(way, spread=False))
def test_scores_are_finite_where_the_rest_agree(
    implementation: Subject, way: Way, case: tuple[tuple[Update, ...], str]
) -> None:
    """Where all but one are identical the scores are finite, 0 for the identical ones, and more for the odd one.

    The document's own code scores two honest workers 1e7, since its MAD is 0 there.

    Clause: 4.3. Catches: planted.ScoresWithoutFloor, planted.ScoresAreAllZero.
    """
    updates, odd = case
    reply = aggregate(implementation, way, updates, faulty_max=1)
    scores = said(reply.scores, "how far each contribution stands from the others")
    for worker in (update.worker for update in updates):
        assert worker in scores, f"{worker} has no score"
        assert math.isfinite(scores[worker]), f"{worker} scores {scores[worker]}"
        if worker != odd:
            assert abs(scores[worker]) <= 1e-9 * scores[odd], f"{worker} is one of the identical, but scores {scores}"
    assert scores[odd] > 0, f"{odd} stands apart, but scores {scores[odd]}"


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: _one_stands_apart(way, spread=True))
def test_who_stands_far_apart_scores_highest(
    implementation: Subject, way: Way, case: tuple[tuple[Update, ...], str]
) -> None:
    """A contribution thousands of times farther from the rest than they are from each other scores above all of them.

    Clause: 4.3. Catches: planted.ScoresBackwards, planted.ScoresByName.
    """
    updates, odd = case
    reply = aggregate(implementation, way, updates, faulty_max=1)
    scores = said(reply.scores, "how far each contribution stands from the others")
    highest = max((update.worker for update in updates), key=lambda worker: scores[worker])
    others = [scores[update.worker] for update in updates if update.worker != odd]
    assert highest == odd, f"{highest} scores {scores[highest]}, {odd} who stands apart {scores[odd]}"
    assert scores[odd] > max(others), f"{odd} stands apart, but scores {scores[odd]} like others"


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, lying=True))
def test_a_verdict_tells_the_score_of_the_rejected(implementation: Subject, way: Way, case: Lied) -> None:
    """Each member that was rejected for what it sent has its score in the verdict, above everyone who was used.

    Clause: 4.12. Catches: planted.HidesScores, planted.RejectsTheNearest.
    """
    reply = aggregate(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    rejected, used = said(reply.rejected, "who was rejected"), said(reply.used, "who was used")
    if not rejected:
        return
    scores = said(reply.scores, "the scores of those it rejected")
    for worker in rejected:
        assert worker in scores, f"{worker} was rejected ({rejected[worker]}), but has no score"
    least, most = min(scores[worker] for worker in rejected), max((scores[worker] for worker in used), default=0.0)
    assert least >= most * (1 - NEAR), f"someone rejected scores {least}, someone used {most}"
