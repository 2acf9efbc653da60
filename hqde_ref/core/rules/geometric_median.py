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

from hqde_ref.core.kernels.gram import Gram, centred_gram, combine_rows
from hqde_ref.core.kernels.median_newton import MedianSolution, solve_median
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count, check_weights, content_classes, require_finite
from hqde_ref.errors import LayoutError, NotFinite

__all__ = ["blockwise_geometric_median", "geometric_median"]

_RULE = "geometric_median"


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
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    given = check_weights(_RULE, weights, count=len(rows))
    classes = content_classes(rows)
    points = [rows[members[0]] for members in classes]
    masses = [math.fsum(given[index] for index in members) for members in classes]
    try:
        gram, solution = _solve(points, masses)
    except NotFinite:
        require_finite(_RULE, rows)  # names the rows as the caller counts them
        raise
    if solution.at is not None:
        return points[solution.at].clone()
    return combine_rows(points, gram, solution.coefficients)


def _solve(points: Sequence[Tensor], masses: Sequence[float]) -> tuple[Gram, MedianSolution]:
    gram = centred_gram(points, rule=_RULE, weights=masses)
    solution = solve_median(gram, masses)
    if solution.near is not None and solution.near != gram.centre:
        # Near an input only a Gram matrix around that input has digits left to decide.
        gram = centred_gram(points, rule=_RULE, weights=masses, centre=solution.near)
        solution = solve_median(gram, masses)
    return gram, solution


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
