"""Section 4, the robust rules themselves: proven bounds, exact fit, the certificate of the median."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import strategies as st
from hypothesis import target

from hqde_ref.messages import Aggregate, Update
from properties.bounds import BESIDE_KAPPA, require_within_bound, require_within_the_bound_beside
from properties.declaring import Way, law
from properties.laws import aggregate, coarsest, flat_row, require_bits, result_in, result_of
from properties.liars import ATTACKS, Lied, as_updates, flat_layout, lied_rounds
from properties.oracles import median_pull, minsker_factor
from properties.strategies import name_workers
from properties.subject import Subject
from properties.tolerances import bound_slack, rounding
from properties.ways import ROBUST_WAYS, lied_for, ways_where

Rows = npt.NDArray[np.float64]

MEDIAN = Way("geometric_median", "flat")
PULL_MAX = 1e-4  # per contribution: what an iteration may leave undone

every_robust_way = pytest.mark.parametrize("way", ROBUST_WAYS, ids=str)


@every_robust_way
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, lying=True))
def test_error_stays_within_the_proven_bound(implementation: Subject, way: Way, case: Lied) -> None:
    """The result is at most sqrt(kappa) sigma from the mean of the honest, whatever f liars send.

    Clause: 4.5. Catches: planted.MeanCalledMedian, planted.FarthestWins.
    """
    require_within_bound(implementation, way, case)


@pytest.mark.parametrize("way", [Way(rule, "flat") for rule in BESIDE_KAPPA], ids=str)
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, lying=True))
def test_error_stays_within_what_else_is_proven(implementation: Subject, way: Way, case: Lied) -> None:
    """Each coordinate errs by a share of the honest range, or the whole by one of their diameter, distances or width.

    By coordinates: both medians, trimmed mean, MeaMed. As a whole: minimum diameter, geometric median, SMEA.

    Clause: 4.5. Catches: planted.StraysInOneCoordinate, planted.MeanCalledMedian.
    """
    require_within_the_bound_beside(implementation, way, case)


@law(needs=(Aggregate,), ways=(MEDIAN,), case=lied_rounds(lying=True), weight=st.floats(0, 1))
def test_median_stays_within_the_honest_radius(implementation: Subject, case: Lied, weight: float) -> None:
    """The geometric median is within (1 - a)/sqrt(1 - 2a) honest radii of any point z, a = f/n, also of rejected ones.

    Minsker 2015, Lemma 2.1; z is drawn between the mean and a corner of the honest.

    Clause: 4.5. Catches: planted.MeanCalledMedian, planted.MedianOfEachCoordinateDoubled.
    """
    reply = aggregate(implementation, MEDIAN, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    result = result_in(reply, implementation)
    point = flat_row(result, case.layout)
    honest = case.honest_rows()
    z = (1 - weight) * honest.mean(axis=0) + weight * honest[0]
    radius = float(np.linalg.norm(honest - z, axis=1).max())
    # Rejecting more than clause 4.4 allows loosens no bound.
    left = len(case.updates) - min(len(reply.rejected or ()), case.faulty_max)
    bound = minsker_factor(left, case.faulty_max) * radius
    slack = bound_slack(coarsest(result, case.layout), top=float(np.abs(honest).max()), size=honest.shape[1])
    error = float(np.linalg.norm(point - z))
    if bound > 0:
        target(error / bound, label="error over radius")
    assert error <= bound * (1 + 1e-9) + slack, (
        f"the median lies {error:.6g} from z, the farthest honest {radius:.6g}; {bound:.6g} is the bound"
    )


@pytest.mark.parametrize("way", ways_where(lambda rule: rule.fits), ids=str)
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way, lying=True, equal_honest=True))
def test_equal_honest_contributions_are_the_result(implementation: Subject, way: Way, case: Lied) -> None:
    """If all honest send the same, that is the result to the bit, whatever f liars send.

    Clause: 4.6. Catches: planted.MeanCalledMedian, planted.StopsShort.
    """
    result = result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    honest = next(update for update in case.updates if update.worker in case.honest)
    require_bits(result, honest.tensors, "all honest sent the same")


# ------------------------------------------------------------------------------------------------ the geometric median


def _require_median(implementation: Subject, updates: tuple[Update, ...], rows: dict[str, Rows], case: Lied) -> None:
    """The result is a geometric median of what was used, judged by the pull that is left at it (clause 4.7)."""
    reply = aggregate(implementation, MEDIAN, updates, layout=case.layout, faulty_max=case.faulty_max)
    result = result_in(reply, implementation)
    point = flat_row(result, case.layout)
    assert np.isfinite(point).all(), f"the result is {point.tolist()}"
    used = [worker for worker in rows if reply.used is None or worker in reply.used]
    table = np.stack([rows[worker] for worker in used])
    near = 4 * rounding(coarsest(result, case.layout), top=float(np.abs(point).max()), size=point.size)
    pull, explained = median_pull(table, point, near=near)
    assert pull <= explained + PULL_MAX * len(used), (
        f"at the result {len(used)} contributions still pull with {pull:.4g} of one ({explained:.2g} is rounding); "
        f"at a geometric median they do not pull at all"
    )


@law(needs=(Aggregate,), ways=(MEDIAN,), case=lied_rounds())
def test_the_output_certifies_itself_as_a_median(implementation: Subject, case: Lied) -> None:
    """At the result the unit vectors to the contributions cancel, but for those at the very place.

    Computed from the output and the contributions alone, wherever the optimum lies.

    Clause: 4.7. Catches: planted.WeiszfeldFromMean, planted.MedianOfEachCoordinate, planted.StopsShort.
    """
    _require_median(implementation, case.updates, case.rows, case)


@law(
    needs=(Aggregate,),
    ways=(MEDIAN,),
    case=lied_rounds(attacks=tuple(attack for attack in ATTACKS if attack != "huge")),
    exponent=st.integers(-30, 30),
)
def test_a_median_is_one_at_any_scale(implementation: Subject, case: Lied, exponent: int) -> None:
    """Contributions of size 1e-30 or 1e30 have a geometric median like any others.

    An absolute stop at 1e-6 returns the start for small numbers.

    Clause: 4.7. Catches: planted.AbsoluteStop, planted.SmoothsByAConstant.
    """
    workers = [update.worker for update in case.updates]
    table = np.stack([case.rows[worker] for worker in workers]) * 10.0**exponent
    updates, rows = as_updates(case.layout, workers, table)
    _require_median(implementation, updates, rows, case)


@st.composite
def _held_by_an_input(draw: st.DrawFn) -> tuple[tuple[Update, ...], str, Lied]:
    """Contributions whose median is one of them: k copies that hold against at most k others' pull, or a middle."""
    size, dtype = draw(st.sampled_from((1, 2, 5))), draw(st.sampled_from(("float32", "float64")))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    centre, others = noise.integers(-8, 9, size).astype(float), draw(st.integers(1, 4))
    if draw(st.booleans()):
        away = noise.integers(1, 20, (others, size)) * noise.choice((-1.0, 1.0), (others, size))
        rows = np.concatenate([np.repeat(centre[None], others + 1, axis=0), centre + away])
    else:
        # On a line, as many on one side as on the other.
        direction = noise.integers(1, 5, size).astype(float)
        steps = np.concatenate([[0.0], np.arange(1, others + 1), -np.cumsum(noise.integers(1, 30, others))])
        rows = centre + steps[:, None] * direction
    workers, layout = name_workers(len(rows)), flat_layout(size, dtype)
    order = draw(st.permutations(range(len(rows))))
    updates, held = as_updates(layout, workers, rows[list(order)])
    held_by = workers[order.index(0)]
    case = Lied(
        layout=layout, updates=updates, members=workers, honest=workers, liars=(), silent=(), rows=held, faulty_max=0
    )
    return updates, held_by, case


@law(needs=(Aggregate,), ways=(MEDIAN,), case=_held_by_an_input())
def test_a_median_that_is_an_input_is_hit(implementation: Subject, case: tuple[tuple[Update, ...], str, Lied]) -> None:
    """Where one contribution is the optimum, as in the middle of a line, the result is that contribution to the bit.

    Weiszfeld's iteration sticks on inputs that are not the optimum, and never quite reaches one that is.

    Clause: 4.7. Catches: planted.WeiszfeldFromMean, planted.SmoothsByAConstant.
    """
    updates, held_by, lied = case
    result = result_of(implementation, MEDIAN, updates, layout=lied.layout, faulty_max=0)
    wanted = next(update for update in updates if update.worker == held_by)
    require_bits(result, wanted.tensors, f"{held_by} is the geometric median")
