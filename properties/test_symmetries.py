"""Section 4, what holds of each rule beside its bound: symmetries, whose range it stays in, and that raising raises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from hqde_ref.messages import Aggregate
from properties.declaring import Way, law
from properties.laws import coarsest, flat_row, result_of
from properties.liars import Lied, as_updates, flat_layout
from properties.robust_rules import RULES, RobustRule
from properties.strategies import name_workers
from properties.subject import Subject
from properties.tolerances import average_slack, symmetry_slack
from properties.ways import MEAN_WAYS, fewest, lied_for, ways_where

Rows = npt.NDArray[np.float64]

SIZE_MOST = 5  # coordinates
APART = 100.0  # how far off who stands apart, where others are of order 1


def where(holds: Callable[[RobustRule], object]) -> pytest.MarkDecorator:
    """Run a property for each way whose rule is like this."""
    return pytest.mark.parametrize("way", ways_where(holds), ids=str)


# ------------------------------------------------------------------------------------------------ other coordinates


@st.composite
def _in_general_position(draw: st.DrawFn, way: Way) -> Rows:
    """(n, d) rows of order 1 that score differently, of which nobody lies; as many as might may stand apart."""
    rule = RULES[way.rule]
    count, size = fewest(way, rule.faulty_untied) + draw(st.integers(1, 6)), draw(st.integers(2, SIZE_MOST))
    rows: Rows = np.random.default_rng(draw(st.integers(0, 2**16))).standard_normal((count, size))
    if draw(st.booleans()) or rule.ties:
        rows[: rule.faulty_untied] += APART
    return rows


def _full(workers: Sequence[str], faulty_max: int) -> tuple[str, ...]:
    """Members of whom as many are silent as may be: nobody may be rejected as an outlier (clause 4.4), in any unit."""
    return (*workers, *(f"silent {number}" for number in range(faulty_max)))


class _Point(NamedTuple):
    """A result, and the dtype whose rounding shows in it."""

    row: Rows
    dtype: str


def _point(implementation: Subject, way: Way, rows: Rows, *, full: bool = False) -> _Point:
    rule, layout, workers = RULES[way.rule], flat_layout(rows.shape[1], "float64"), name_workers(len(rows))
    result = result_of(
        implementation,
        way,
        as_updates(layout, workers, rows)[0],
        layout=layout,
        faulty_max=rule.faulty_untied,
        members=_full(workers, rule.faulty_untied) if full or rule.ties else None,
    )
    return _Point(flat_row(result, layout), coarsest(result, layout))


def _require_same_point(got: _Point, wanted: Rows, rows: Rows, what: str, *, spread: float = 1.0) -> None:
    slack = symmetry_slack(got.dtype, spread=spread, top=float(np.abs(rows).max()), size=rows.shape[1])
    apart = float(np.linalg.norm(got.row - wanted))
    assert apart <= slack, f"{what}: the result is {got.row.tolist()}, wanted {wanted.tolist()}"


@where(lambda rule: True)
@law(
    needs=(Aggregate,),
    thrift=4,
    rows=lambda way: _in_general_position(way),
    shift=st.integers(-40, 40),
    exponent=st.integers(-12, 12),
)
def test_moving_and_stretching_all_moves_and_stretches_the_result(
    implementation: Subject, way: Way, rows: Rows, shift: int, exponent: int
) -> None:
    """Adding the same vector to all contributions adds it to the result; a common factor, also a negative one, too.

    A rule that clips lengths is about zero, and is not moved; one that clips to a given length is negated only.

    Clause: 4.8. Catches: planted.ClipsNorms, planted.PullsTowardsZero.
    """
    rule = RULES[way.rule]
    sign = -1.0 if exponent % 2 and rule.negates else 1.0
    factor, shift = math.ldexp(sign, exponent if rule.scales else 0), shift if rule.translates else 0
    wanted = _point(implementation, way, rows).row * factor + shift
    moved = rows * factor + shift
    got = _point(implementation, way, moved)
    _require_same_point(got, wanted, moved, f"times {factor}, plus {shift}", spread=abs(factor))


@where(lambda rule: rule.rotates)
@law(needs=(Aggregate,), thrift=4, rows=lambda way: _in_general_position(way), seed=st.integers(0, 2**16))
def test_turning_all_turns_the_result(implementation: Subject, way: Way, rows: Rows, seed: int) -> None:
    """Rotating all contributions rotates the result, for rules that look at distances only.

    Clause: 4.8. Catches: planted.MedianOfEachCoordinate.
    """
    size = rows.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    wanted = _point(implementation, way, rows).row @ rotation
    _require_same_point(_point(implementation, way, rows @ rotation), wanted, rows, "rotated")


@where(lambda rule: True)
@law(
    needs=(Aggregate,),
    thrift=4,
    rows=lambda way: _in_general_position(way),
    order=st.permutations(range(SIZE_MOST)),
)
def test_coordinates_may_be_listed_in_any_order(
    implementation: Subject, way: Way, rows: Rows, order: list[int]
) -> None:
    """Listing the coordinates of all contributions in another order lists the result's in that order.

    Clause: 4.8. Catches: planted.SortsByTheFirstCoordinate.
    """
    listed = [place for place in order if place < rows.shape[1]]
    wanted = _point(implementation, way, rows).row[listed]
    _require_same_point(_point(implementation, way, rows[:, listed]), wanted, rows, f"coordinates listed as {listed}")


@where(lambda rule: rule.stretches)
@law(
    needs=(Aggregate,),
    thrift=4,
    rows=lambda way: _in_general_position(way),
    exponents=st.lists(st.integers(-12, 12), min_size=SIZE_MOST, max_size=SIZE_MOST),
)
def test_each_coordinate_may_have_a_unit_of_its_own(
    implementation: Subject, way: Way, rows: Rows, exponents: list[int]
) -> None:
    """A power of two for each coordinate scales the result by it to the bit, for rules that go by coordinates.

    Clause: 4.8. Catches: planted.FarthestWins, planted.ClipsNorms.
    """
    units = np.exp2(exponents[: rows.shape[1]])
    wanted = _point(implementation, way, rows, full=True).row * units
    got, dtype = _point(implementation, way, rows * units, full=True)
    # Summing on one grid for the whole row is exact enough, but shows in the last bits.
    top = float(np.abs(rows * units).max())
    slack = average_slack(dtype, count=len(rows), top=top) if way in MEAN_WAYS else 0.0
    assert np.all(np.abs(got - wanted) <= slack), (
        f"in units of {units.tolist()} the result is {got.tolist()}, wanted {wanted.tolist()}"
    )


# ------------------------------------------------------------------------------------------------ ranges


def _trusted(way: Way, case: Lied, rows: dict[str, Rows]) -> Rows:
    """Rows whose range the rule has to stay in."""
    return np.stack([rows[worker] for worker in (case.honest if RULES[way.rule].inside == "honest" else rows)])


def _slack(result: Mapping[str, Tensor], case: Lied, rows: Rows) -> float:
    top = float(np.abs(rows).max())
    return average_slack(coarsest(result, case.layout), count=len(case.updates), top=top)


@where(lambda rule: rule.inside)
@law(needs=(Aggregate,), thrift=4, case=lambda way: lied_for(way))
def test_no_value_leaves_the_range_of_the_contributions(implementation: Subject, way: Way, case: Lied) -> None:
    """Each value lies between the least and the greatest that was sent; under medians and trimming, by the honest.

    Clauses: 4.5, 4.8. Catches: planted.MedianOfEachCoordinateDoubled, planted.MeanCalledMedian.
    """
    result = result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    point, rows = flat_row(result, case.layout), _trusted(way, case, case.rows)
    slack = _slack(result, case, rows)
    low, high = rows.min(axis=0) - slack, rows.max(axis=0) + slack
    left = np.flatnonzero(~((low <= point) & (point <= high))).tolist()
    assert not left, f"coordinates {left} are {point[left].tolist()}, the range is {low[left]} to {high[left]}"


@where(lambda rule: rule.rises)
@law(
    needs=(Aggregate,),
    thrift=2,
    case=lambda way: lied_for(way),
    row=st.integers(0, 999),
    column=st.integers(0, 999),
    rise=st.sampled_from((0.25, 2.0, 1e3)),
)
def test_raising_a_value_lowers_nothing(
    implementation: Subject, way: Way, case: Lied, row: int, column: int, rise: float
) -> None:
    """Raising one value of one contribution lowers no value of a mean, a median or a trimmed mean.

    Clause: 4.8. Catches: planted.MeanAroundTheMedian.
    """
    workers = [update.worker for update in case.updates]
    table = np.stack([case.rows[worker] for worker in workers])
    table[row % table.shape[0], column % table.shape[1]] += rise
    raised, rows = as_updates(case.layout, workers, table)
    members = _full(workers, case.faulty_max)
    options = {"layout": case.layout, "faulty_max": case.faulty_max, "members": members}
    before = result_of(implementation, way, case.updates, **options)
    after = result_of(implementation, way, raised, **options)
    fallen = flat_row(before, case.layout) - flat_row(after, case.layout)
    fell = np.flatnonzero(~(fallen <= _slack(after, case, _trusted(way, case, rows)))).tolist()
    assert not fell, f"{rise} more for {workers[row % len(workers)]}, and values {fell} fell by {fallen[fell].tolist()}"


@where(lambda rule: rule.picks)
@law(needs=(Aggregate,), case=lambda way: lied_for(way))
def test_krum_is_one_of_the_contributions(implementation: Subject, way: Way, case: Lied) -> None:
    """The result is one of the contributions to the bit, never a mixture.

    Clause: 4.5. Catches: planted.MeanCalledMedian, planted.StopsShort.
    """
    result = result_of(implementation, way, case.updates, layout=case.layout, faulty_max=case.faulty_max)
    point = flat_row(result, case.layout)
    kind = getattr(torch, coarsest(result, case.layout))  # whether it is the layout's is clause 0.2
    sent = any(np.array_equal(point, torch.from_numpy(row).to(kind).double().numpy()) for row in case.rows.values())
    assert sent, f"the result is {point.tolist()}, which none of {', '.join(case.rows)} sent"
