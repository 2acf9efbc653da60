"""Geometric median: the point with the least weighted sum of distances to all contributions.

Source: HQDE clauses 4.5, 4.6, 4.7 (erratum E11); Weber 1909, Minsker 2015 (arXiv:1308.1334), Chen, Su and Xu 2017.
Pure: no clock, no randomness, no input or output; arguments are never changed. The distance to the optimum is not
promised here but measured on the output: ``hqde_ref.core.certificates.certify_geometric_median``. Bits repeat on
one torch thread and do not depend on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.certificates import Certificate, median_certificate
from hqde_ref.core.kernels.gram import Gram, combine_rows
from hqde_ref.core.kernels.median_newton import MedianSolution, distances_to, find_median
from hqde_ref.core.kernels.median_sweeps import SWEEP_ROWS, Swept, sweep_median
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count, check_weights, content_order, require_data

__all__ = ["certified_geometric_median", "geometric_median"]

_RULE = "geometric_median"


def geometric_median(updates: Updates, *, faulty_max: int, weights: Sequence[float] | Tensor | None = None) -> Tensor:
    """Return the geometric median of the rows.

    Where a whole segment is optimal it is the middle, as far as products show it: beyond 2^18 values float32 rows are
    multiplied in float32, and an end may come out. From 129 rows on the pull that is left is some 1e-7 of all, as the
    certificate says, not 1e-15.

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
    return _solve(updates, faulty_max=faulty_max, weights=weights)[0]


def certified_geometric_median(
    updates: Updates, *, faulty_max: int, weights: Sequence[float] | Tensor | None = None
) -> tuple[Tensor, Certificate]:
    """Return the geometric median and the solver's own certificate, which costs nothing.

    It is computed from the inner products (float32 products err by some 2e-7), before the result is rounded to its
    dtype; ``certify_geometric_median`` judges the output itself, independently, in two more passes over the rows.
    Arguments and errors as for ``geometric_median``.
    """
    row, solved, given = _solve(updates, faulty_max=faulty_max, weights=weights)
    if isinstance(solved, Swept):
        far, norm = solved.far.cpu(), min(solved.gradient_norm, math.fsum(given))
    else:
        gram, solution = solved
        far = torch.ldexp(distances_to(gram, solution).cpu(), torch.tensor(gram.unit))
        norm = solution.gradient_norm * math.fsum(given)
    return row, median_certificate(far, given, norm, faulty_max=faulty_max)


def _solve(
    updates: Updates, *, faulty_max: int, weights: Sequence[float] | Tensor | None
) -> tuple[Tensor, tuple[Gram, MedianSolution] | Swept, list[float]]:
    """Return the median, how it was found, and the weights in content order."""
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    given = check_weights(_RULE, weights, count=len(rows))
    require_data(_RULE, rows)
    if len(rows) >= SWEEP_ROWS:
        order = content_order(rows)
        swept = sweep_median([rows[index] for index in order], [given[index] for index in order])
        if swept is not None:
            return swept.row, swept, [given[index] for index in order]
    order, gram, solution = find_median(rows, rule=_RULE, weights=given)
    ordered = [given[index] for index in order]
    if solution.at is not None:
        return rows[order[solution.at]].clone(), (gram, solution), ordered
    return combine_rows([rows[index] for index in order], gram, solution.coefficients), (gram, solution), ordered
