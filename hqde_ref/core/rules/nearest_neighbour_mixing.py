"""Nearest-neighbour mixing: each contribution becomes the mean of the n - f nearest to it, before a rule is applied.

Source: HQDE clause 4.5; Allouah et al. 2023 (arXiv:2302.01772), Lemma 1: kappa becomes 8f / (n - f) (kappa + 1).
Pure: no clock, no randomness, no input or output; arguments are never changed. In the worst case mixing doubles the
error of the trimmed mean; it helps where honest contributions differ much. The chains with geometric median and Krum
are solved in coefficient space: no mixed row is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import Gram, centre_row, combine_rows, content_gram, distances, row_distances
from hqde_ref.core.kernels.median_newton import solve_median
from hqde_ref.core.kernels.mixing import mix_gram, mix_rows, over_mixed_blocks, unmix
from hqde_ref.core.kernels.order_statistics import mean_of_middle
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count
from hqde_ref.core.kernels.selections import krum_order, nearest_rows
from hqde_ref.core.rules.krum import resolve_neighbours

__all__ = [
    "mix_nearest_neighbours",
    "mixed_geometric_median",
    "mixed_krum",
    "mixed_trimmed_mean",
    "mixing_matrix",
    "trim_mixed",
]

_TRIMMED = "mixed_trimmed_mean"


def mix_nearest_neighbours(updates: Updates, *, faulty_max: int) -> tuple[Tensor, ...]:
    """Return n new rows: row i is the mean of the n - faulty_max rows nearest to row i, itself among them.

    Ties go to the row that comes first by content.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: how many rows may hold anything at all.
    Returns:
        n tensors (d,), in the order of the rows, of the same dtype and device.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows that do not fit.
    """
    rows, order, gram, matrix = _prepare("nearest_neighbour_mixing", updates, faulty_max)
    mixed = mix_rows(rows, matrix, centre=centre_row(gram))
    return tuple(mixed[order.index(index)] for index in range(len(rows)))


def mixed_geometric_median(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return the geometric median of the mixed rows; arguments, result and errors as for ``geometric_median``."""
    rows, _, gram, matrix = _prepare("mixed_geometric_median", updates, faulty_max)
    distinct, copies = torch.unique(matrix, dim=0, return_counts=True)
    mixed = mix_gram(gram, distinct)
    solution = solve_median(mixed, copies.tolist())
    return combine_rows(rows, gram, unmix(gram, mixed, distinct, solution.coefficients))


def mixed_krum(updates: Updates, *, faulty_max: int, neighbours: int | None = None) -> Tensor:
    """Return the mixed row with the lowest Krum score; arguments and errors as for ``krum``."""
    rule = "mixed_krum"
    rows, _, gram, matrix = _prepare(rule, updates, faulty_max, beyond=3)
    counted = resolve_neighbours(rule, neighbours, count=len(rows), faulty_max=faulty_max)
    best = krum_order(distances(mix_gram(gram, matrix)) ** 2, neighbours=counted)[0]
    return mix_rows(rows, matrix[best : best + 1], centre=centre_row(gram))[0]


def mixed_trimmed_mean(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return the trimmed mean of the mixed rows; arguments, result and errors as for ``trimmed_mean``."""
    rows, _, gram, matrix = _prepare(_TRIMMED, updates, faulty_max)
    return trim_mixed(rows, matrix, faulty_max=faulty_max, centre=centre_row(gram))


def trim_mixed(rows: Sequence[Tensor], matrix: Tensor, *, faulty_max: int, centre: int) -> Tensor:
    """Return the trimmed mean, (d,), of the rows mixed by ``matrix`` (n, n); most rows are near to row ``centre``."""

    def trim(mixed: Sequence[Tensor]) -> Tensor:
        return mean_of_middle(mixed, trimmed=faulty_max, rule=_TRIMMED)

    return over_mixed_blocks(rows, matrix, trim, centre=centre)


def mixing_matrix(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return (n, n) float64: row i says how much of every row is in mixed row i; errors as for the rules."""
    _, order, _, matrix = _prepare(_TRIMMED, updates, faulty_max)
    places = torch.argsort(torch.tensor(order, device=matrix.device))
    return matrix[places][:, places]


def _prepare(
    rule: str, updates: Updates, faulty_max: int, beyond: int = 1
) -> tuple[tuple[Tensor, ...], tuple[int, ...], Gram, Tensor]:
    """Return the rows in content order, that order, their Gram matrix, and the mixing matrix."""
    rows = as_rows(updates, rule=rule)
    check_count(rule, count=len(rows), faulty_max=faulty_max, beyond=beyond)
    kept = len(rows) - faulty_max
    order, gram = content_gram(rows, rule=rule, kept=kept)
    near = nearest_rows(row_distances([rows[index] for index in order], gram, rule=rule) ** 2, count=kept)
    matrix = torch.zeros_like(gram.cosines).scatter_(1, near, 1.0 / kept)
    return tuple(rows[index] for index in order), order, gram, matrix
