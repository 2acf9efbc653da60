"""Bulyan: n - 2f contributions chosen by repeated Krum, then per coordinate the mean of the values nearest the median.

Source: HQDE clause 4.5; El Mhamdi et al. 2018 (arXiv:1802.07927).
Pure: no clock, no randomness, no input or output; arguments are never changed. It needs n >= 4f + 3, so it cannot
stand f just below n / 3; and it does not stay inside the honest range (median 0 of -10, -10, 0, 0, 9 with the three
nearest averages 0, 0, 9).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hqde_ref.core.kernels.gram import content_distances
from hqde_ref.core.kernels.nearest import nearest_mean
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count
from hqde_ref.core.kernels.selections import krum_order

__all__ = ["average_chosen", "bulyan", "choose_repeatedly"]

_RULE = "bulyan"


def bulyan(updates: Updates, *, faulty_max: int) -> Tensor:
    """Return, per coordinate, the mean of the n - 4f values nearest to the median of n - 2f chosen rows.

    A Krum score counts the n' - f - 2 nearest of the n' rows left, at least one.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: f, how many rows may hold anything at all.
    Returns:
        A new row (d,) of the same dtype and device.
    Raises:
        TooFewContributions: unless n >= 4 * faulty_max + 3.
        NotFinite, LayoutError, ConfigurationError: for rows that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    return average_chosen(
        [rows[place] for place in choose_repeatedly(rows, faulty_max=faulty_max)], faulty_max=faulty_max
    )


def choose_repeatedly(updates: Updates, *, faulty_max: int) -> tuple[int, ...]:
    """Return the n - 2f rows that Krum chooses one after the other, each from those left; errors as for ``bulyan``."""
    rows = as_rows(updates, rule=_RULE)
    count = len(rows)
    check_count(_RULE, count=count, faulty_max=faulty_max, per_faulty=4, beyond=3)
    order, far = content_distances(rows, rule=_RULE, kept=count - faulty_max)
    squares, left, chosen = far**2, list(range(count)), list[int]()
    while len(chosen) < count - 2 * faulty_max:
        # Distances stay the same; only the set of rows they are summed over shrinks.
        neighbours = max(1, len(left) - faulty_max - 2)
        places = krum_order(squares[left][:, left], neighbours=neighbours)
        chosen.append(left.pop(places[0]))
    return tuple(order[place] for place in chosen)


def average_chosen(chosen: Sequence[Tensor], *, faulty_max: int) -> Tensor:
    """Return, per coordinate, the mean of the n - 4f values nearest to the median of the n - 2f rows chosen."""
    return nearest_mean(chosen, keep=len(chosen) - 2 * faulty_max, rule=_RULE)
