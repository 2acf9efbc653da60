"""MeaMed: each coordinate's mean of the n - f values nearest to its median.

Source: HQDE clause 4.5; Xie et al. 2018 (arXiv:1802.10116), "mean around median".
Pure: no clock, no randomness, no input or output; arguments are never changed. It does leave the range of the honest
rows (by up to 2f / (n - f) of it): for containment take the median or the trimmed mean.
"""

from __future__ import annotations

from torch import Tensor

from hqde_ref.core.kernels.nearest import nearest_mean
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count

__all__ = ["mean_around_median"]

_RULE = "mean_around_median"


def mean_around_median(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return, per coordinate, the mean of the n - faulty_max values nearest to the (midpoint) median.

    Where two windows of values are equally near, the mean of their means.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: how many rows may hold anything at all.
    Returns:
        A new row (d,) of the same dtype and device.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    return nearest_mean(rows, keep=len(rows) - faulty_max, rule=_RULE)
