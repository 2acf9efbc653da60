"""Minimum-diameter averaging: the mean of the n - f contributions that lie closest together, found exactly.

Source: HQDE clause 4.5; El Mhamdi et al. 2018 (arXiv:1802.07927), Farhadkhani et al. 2022 (arXiv:2205.12173).
Pure: no clock, no randomness, no input or output; arguments are never changed. Its error is up to 2f / (n - f) of the
honest diameter, and grows with f^2 times the variance: a kappa of order f / n is false.
"""

from __future__ import annotations

from torch import Tensor

from hqde_ref.core.kernels.gram import content_distances
from hqde_ref.core.kernels.means import average_rows
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count
from hqde_ref.core.kernels.selections import minimum_diameter_subset

__all__ = ["minimum_diameter_mean"]

_RULE = "minimum_diameter_mean"


def minimum_diameter_mean(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return the mean of the n - faulty_max rows of least diameter; of several such sets, the one found first.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite; the search takes time exponential in faulty_max at worst.
        faulty_max: how many rows may hold anything at all.
    Returns:
        A new row (d,) of the same dtype and device. Rows are searched in content order, so order leaves no trace.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    kept = len(rows) - faulty_max
    order, far = content_distances(rows, rule=_RULE, kept=kept)
    places, _ = minimum_diameter_subset(far**2, size=kept)
    return average_rows([rows[order[place]] for place in places])
