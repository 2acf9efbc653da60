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

from hqde_ref.core.certificates.certificate import Certificate, Judged, judge, name_faulty
from hqde_ref.core.certificates.means import farthest_from_mean
from hqde_ref.core.kernels.rows import Updates, check_count, content_order
from hqde_ref.core.kernels.selections import resolve_neighbours, resolve_selected, round_scores

__all__ = ["certify_krum", "certify_multi_krum"]

_NOTHING = -(1 << 20)  # below the binary exponent of any sum of squares


def certify_krum(updates: Updates, output: Tensor, *, faulty_max: int, neighbours: int | None = None) -> Certificate:
    """Judge ``output`` as the row with the lowest Krum score, scored afresh from float64 differences.

    Args:
        updates, output, faulty_max: as for ``certify_geometric_median``, whose errors it raises too.
        neighbours: how many other rows a score counts, faulty_max..n-1; None for n - faulty_max - 2.
    """
    rule = "krum"
    judged = judge(rule, updates, output)
    scores, order = _scores(rule, judged, faulty_max=faulty_max, neighbours=neighbours)
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
        rule=rule,
        count=len(scores),
        faulty_max=faulty_max,
        excess=excess,
        score_order=order,
        because=f"{said} among {len(scores)} with {name_faulty(faulty_max)}",
    )


def certify_multi_krum(
    updates: Updates,
    output: Tensor,
    *,
    faulty_max: int,
    selected: int | None = None,
    neighbours: int | None = None,
) -> Certificate:
    """Judge ``output`` as the mean of the ``selected`` rows with the lowest Krum scores, scored afresh.

    Where the scores on both sides of the cut are nearly equal, whoever takes distances in float32 may select otherwise;
    the sentence says by how much the first score left out is higher.

    Args:
        selected: how many rows are averaged, 1..n; None for n - faulty_max.
        updates, output, faulty_max, neighbours: as for ``certify_krum``.
    """
    rule = "multi_krum"
    judged = judge(rule, updates, output)
    scores, order = _scores(rule, judged, faulty_max=faulty_max, neighbours=neighbours)
    wanted = resolve_selected(rule, selected, count=len(scores), faulty_max=faulty_max)
    excess = farthest_from_mean(judged.among(order[:wanted]), [1.0 / wanted] * wanted)
    because = f"the output is at most {excess:.3g} in any coordinate from the mean of the {wanted} rows of lowest score"
    if wanted < len(scores):
        margin = _excess(scores[order[wanted]], scores[order[wanted - 1]])
        because += f", of which the next is {100.0 * margin:.3g} % higher"
    return Certificate(
        rule=rule,
        count=len(scores),
        faulty_max=faulty_max,
        excess=excess,
        score_order=order,
        because=f"{because}, with {name_faulty(faulty_max)}",
    )


class _Size(NamedTuple):
    """mantissa * 2**exponent, to be compared whatever float64 can hold; 0.0 has the least exponent."""

    exponent: int
    mantissa: float


def _scores(
    rule: str, judged: Judged, *, faulty_max: int, neighbours: int | None
) -> tuple[list[_Size], tuple[int, ...]]:
    """Return the rows' Krum scores in a unit of their own, and the rows in the rule's order: ties by total, content."""
    count = len(judged.rows)
    check_count(rule, count=count, faulty_max=faulty_max, beyond=3)
    counted = resolve_neighbours(rule, neighbours, count=count, faulty_max=faulty_max)
    far = torch.stack([judged.distances_to(judged.place_of(index)) for index in range(count)])
    scores, totals = _sums_of_squares(far.sort(dim=1).values[:, 1 : counted + 1]), _sums_of_squares(far)
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
