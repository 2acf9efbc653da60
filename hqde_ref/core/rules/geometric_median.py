"""Geometric median: the point with the least weighted sum of distances to all contributions.

Source: HQDE clauses 4.5, 4.6, 4.7 (erratum E11); Weber 1909, Minsker 2015 (arXiv:1308.1334), Chen, Su and Xu 2017.
Pure: no clock, no randomness, no input or output; arguments are never changed. The distance to the optimum is not
promised here but measured on the output: ``hqde_ref.core.certificates.certify_geometric_median``, or bounded on the
way by ``certified_geometric_median``. Bits repeat on one torch thread and do not depend on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.certificates import Certificate, claim_median
from hqde_ref.core.kernels.gram import Gram, combine_rows, content_gram
from hqde_ref.core.kernels.median_newton import MedianSolution, measure_solution, solve_median
from hqde_ref.core.kernels.row_norms import row_norms
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count, check_weights, wide_dtype
from hqde_ref.errors import LayoutError

__all__ = ["blockwise_geometric_median", "certified_geometric_median", "geometric_median"]

_RULE = "geometric_median"
_GRAM_DIGITS = 8.0  # relative errors of distances, measured at 2 to 3 units of the last digit (rows centred)


def geometric_median(updates: Updates, *, faulty_max: int, weights: Sequence[float] | Tensor | None = None) -> Tensor:
    """Return the geometric median of the rows; the middle of the segment where a whole segment is optimal.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite, of any scale.
        faulty_max: how many rows may hold anything at all.
        weights: n positive numbers, None for 1 each; never what a contribution says of itself (clause 4.10).
    Returns:
        A new row (d,) of the same dtype and device; where an input is optimal, that input to the bit.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows or weights that do not fit.
    """
    result, _, _, _ = _solve(updates, faulty_max, weights)
    return result


def certified_geometric_median(
    updates: Updates, *, faulty_max: int, weights: Sequence[float] | Tensor | None = None
) -> tuple[Tensor, Certificate]:
    """Return the geometric median and a certificate that costs next to nothing: it comes from the same Gram matrix.

    Its numbers are upper bounds that allow for all rounding, of the Gram matrix as of the output: for 32-bit rows an
    excess near 1e-5, where ``certify_geometric_median``, which looks at all rows again, finds one near 1e-8.

    Arguments and errors: as for ``geometric_median``.
    """
    result, gram, given, solution = _solve(updates, faulty_max, weights)
    far, pull, steepness = measure_solution(gram, given, solution)
    norm = max(0.0, pull + _GRAM_DIGITS * torch.finfo(wide_dtype(result.dtype)).eps * math.fsum(given))
    if solution.at is None:
        norm += 2.0 * steepness * _rounding(result, gram, solution.coefficients)
    lengths = far.cpu() * 2.0**gram.unit
    return result, claim_median(lengths, given, faulty_max=faulty_max, norm=min(norm, math.fsum(given)))


def _rounding(result: Tensor, gram: Gram, coefficients: Tensor) -> float:
    """Return how far at most the result lies from the combination that it rounds, in units of 2**gram.unit."""
    sizes = coefficients.abs()
    shares = sizes / torch.where(gram.norms > 0, gram.norms, 1.0)
    # The terms of the sum: differences to the centre, or where rows are no farther apart than from 0, rows.
    terms = float(sizes.sum()) + 4.0 * (1.0 + float(shares.sum()))
    length = math.ldexp(_length(result), -gram.unit)
    wide = torch.finfo(wide_dtype(result.dtype)).eps
    return (len(sizes) + 2) * wide * terms + torch.finfo(result.dtype).eps * length


def _length(row: Tensor) -> float:
    """Return |row|; by one product where that neither overflows nor vanishes."""
    square = float(torch.dot(row, row)) if row.dtype == wide_dtype(row.dtype) else 0.0
    return math.sqrt(square) if 1e-20 < square < math.inf else row_norms([row])[0]


def _solve(
    updates: Updates, faulty_max: int, weights: Sequence[float] | Tensor | None
) -> tuple[Tensor, Gram, list[float], MedianSolution]:
    """Return the median, the Gram matrix it was found with, the weights in that matrix's order, and the solution."""
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    given = check_weights(_RULE, weights, count=len(rows))
    order, gram = content_gram(rows, rule=_RULE, weights=given)
    solution = solve_median(gram, [given[index] for index in order])
    if solution.near is not None and solution.near != gram.centre:
        # Near an input only a Gram matrix around that input has digits left to decide.
        order, gram = content_gram(rows, rule=_RULE, weights=given, centre=order[solution.near])
        solution = solve_median(gram, [given[index] for index in order])
    ordered = [given[index] for index in order]
    if solution.at is not None:
        return rows[order[solution.at]].clone(), gram, ordered, solution
    return combine_rows([rows[index] for index in order], gram, solution.coefficients), gram, ordered, solution


def blockwise_geometric_median(
    updates: Updates,
    *,
    faulty_max: int,
    blocks: Sequence[tuple[int, int]],
    weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """Return the geometric median of each block of coordinates by itself, joined to one row (d,).

    Its kappa is that of the joint rule, its distance bounds add up over the blocks (theory, section 1).

    Args:
        blocks: (low, high) ranges that cover 0..d in order.
        updates, faulty_max, weights: as for ``geometric_median``, whose errors it raises too.
    """
    rows = as_rows(updates, rule=_RULE)
    edges = [0] + [high for _, high in blocks]
    if [low for low, _ in blocks] != edges[:-1] or edges[-1] != rows[0].numel() or sorted(edges) != edges:
        raise LayoutError(
            what=f"blocks of {_RULE}",
            wanted=f"ranges that cover 0..{rows[0].numel()} in order",
            got=str(list(blocks)[:4]),
            do="use the layout's own entries",
        )
    parts = [
        geometric_median([row[low:high] for row in rows], faulty_max=faulty_max, weights=weights)
        for low, high in blocks
    ]
    return torch.cat(parts) if parts else rows[0].clone()
