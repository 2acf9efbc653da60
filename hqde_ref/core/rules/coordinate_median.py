"""Coordinate-wise median: the middle value of every coordinate, with the two readings of an even count named.

Source: HQDE clauses 0.8 and 4.5 (erratum E10: torch.median takes the lower middle); Yin et al. 2018, Definition 1
(arXiv:1803.01498).
Pure: no clock, no randomness, no input or output; arguments are never changed. Both stay inside the range of the
honest rows in every coordinate, not inside a ball around them.
"""

from __future__ import annotations

from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend
from hqde_ref.core.kernels.order_statistics import median_rows
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count

__all__ = ["coordinate_median", "lower_coordinate_median"]


def coordinate_median(updates: Updates, *, faulty_max: int, backend: Backend = "eager") -> Tensor:
    """Return the middle value of each coordinate; with n even the midpoint of the two middle values (as NumPy).

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: how many rows may hold anything at all.
        backend: "compiled" for torch.compile where there is a compiler: the same bits, faster once compiled.
    Returns:
        A new row (d,) of the same dtype and device, inside the range of the honest rows.
    Raises:
        TooFewContributions: unless n > 2 * faulty_max.
        NotFinite, LayoutError, ConfigurationError: for rows that do not fit.
    """
    return _median(updates, faulty_max=faulty_max, lower=False, rule="coordinate_median", backend=backend)


def lower_coordinate_median(updates: Updates, *, faulty_max: int, backend: Backend = "eager") -> Tensor:
    """Return the middle value of each coordinate; with n even the lower of the two middle values (as torch.median).

    Every value of it is a value of some row. Arguments, result and errors as for ``coordinate_median``.
    """
    return _median(updates, faulty_max=faulty_max, lower=True, rule="lower_coordinate_median", backend=backend)


def _median(updates: Updates, *, faulty_max: int, lower: bool, rule: str, backend: Backend) -> Tensor:
    rows = as_rows(updates, rule=rule)
    check_count(rule, count=len(rows), faulty_max=faulty_max)
    return median_rows(rows, lower=lower, rule=rule, backend=backend)
