"""Certificates of Krum and Multi-Krum: the rows' scores afresh, from float64 differences.

Source: HQDE clause 4.5; Blanchard et al. 2017 (arXiv:1703.02757), section 4.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hqde_ref.core.certificates.certificate import Certificate, Judged, name_faulty
from hqde_ref.core.certificates.means import farthest_from_mean
from hqde_ref.core.kernels.rows import content_order
from hqde_ref.core.kernels.selections import round_scores

__all__ = ["judge_krum", "judge_multi_krum"]

_NOTHING = -(1 << 20)  # below the binary exponent of any sum of squares


def judge_krum(judged: Judged, *, faulty_max: int, neighbours: int) -> Certificate:
    """Judge an output as the row with the lowest Krum score, scored afresh from float64 differences.

    Args:
        judged: n rows and the output.
        faulty_max: f.
        neighbours: how many other rows a score counts, 1..n-1.
    """
    scores, order = _scores(judged, neighbours=neighbours)
    # A row's own dtype decides whether the output is that row; any other output is no row at all.
    same = [index for index in range(len(scores)) if torch.equal(judged.place_of(index), judged.point)]
    if same:
        mine = min(scores[index] for index in same)
        excess = _excess(mine, scores[order[0]])
        rank = 1 + sum(score < mine for score in scores)
        said = f"the output is row {same[0]}, of rank {rank} by score"
    else:
        excess, said = math.inf, "the output is none of the rows"
    return Certificate(
        rule="krum",
        count=len(scores),
        faulty_max=faulty_max,
        excess=excess,
        score_order=order,
        because=f"{said} among {len(scores)} with {name_faulty(faulty_max)}",
    )


def judge_multi_krum(judged: Judged, *, faulty_max: int, neighbours: int, selected: int) -> Certificate:
    """Judge an output as the mean of the ``selected`` rows with the lowest Krum scores, scored afresh.

    Where the scores on both sides of the cut are equal but for rounding, another choice is as right: the margin says
    by how much the first score left out is higher.

    Args:
        judged, faulty_max, neighbours: as for ``judge_krum``.
        selected: how many rows are averaged, 1..n.
    """
    scores, order = _scores(judged, neighbours=neighbours)
    excess = farthest_from_mean(judged.among(order[:selected]), [1.0 / selected] * selected)
    margin = _excess(scores[order[selected]], scores[order[selected - 1]]) if selected < len(scores) else None
    rest = "" if margin is None else f", of which the next is {100.0 * margin:.3g} % higher"
    return Certificate(
        rule="multi_krum",
        count=len(scores),
        faulty_max=faulty_max,
        excess=excess,
        score_order=order,
        margin=margin,
        because=f"the output is at most {excess:.3g} in any coordinate from the mean of the {selected} rows of lowest "
        f"score{rest}, with {name_faulty(faulty_max)}",
    )


class _Size(NamedTuple):
    """mantissa * 2**exponent, to be compared whatever float64 can hold; 0.0 has the least exponent."""

    exponent: int
    mantissa: float


def _scores(judged: Judged, *, neighbours: int) -> tuple[list[_Size], tuple[int, ...]]:
    """Return the rows' Krum scores in a unit of their own, and the rows in the rule's order: ties by total, content."""
    count = len(judged.rows)
    far = torch.stack([judged.distances_to(judged.place_of(index)) for index in range(count)])
    scores, totals = _sums_of_squares(far.sort(dim=1).values[:, 1 : neighbours + 1]), _sums_of_squares(far)
    content = content_order(judged.rows)
    return scores, tuple(sorted(content, key=lambda index: (scores[index], totals[index])))


def _sums_of_squares(lengths: Tensor) -> list[_Size]:
    """Return the sum of squares of each row of a matrix, rounded to 40 bits so that ties are seen as ties."""
    values = lengths.numpy()
    _, units = np.frexp(values.max(axis=1))
    sums = np.square(np.ldexp(values, -units[:, None])).sum(axis=1)
    mantissas, exponents = np.frexp(round_scores(torch.from_numpy(sums)).numpy())
    sizes = zip(mantissas.tolist(), (exponents + 2 * units).tolist(), strict=True)
    return [_Size(exponent if mantissa > 0.0 else _NOTHING, mantissa) for mantissa, exponent in sizes]


def _excess(size: _Size, least: _Size) -> float:
    """Return size / least - 1."""
    if least.mantissa == 0.0:
        return 0.0 if size.mantissa == 0.0 else math.inf
    try:
        return math.ldexp(size.mantissa / least.mantissa, size.exponent - least.exponent) - 1.0
    except OverflowError:
        return math.inf
