"""Krum and Multi-Krum: the contribution, or contributions, with the nearest neighbours.

Peers disagree on how many neighbours a score counts (n - f - 2 in Flower, n - f - 1 in ByzFL), so it is a named
argument; the default is Blanchard's n - f - 2.

Source: HQDE clause 4.5; Blanchard et al. 2017 (arXiv:1703.02757), section 4.
Pure: no clock, no randomness, no input or output; arguments are never changed. Ties go to the row nearer to all
others together, then to the one that comes first by content. Nothing is promised coordinate by coordinate: one
coordinate of a chosen row can be far off. Rows that lie 2**400 times closer together than n - faulty_max of all do,
which float64 alone can hold, are not told apart.
"""

from __future__ import annotations

from torch import Tensor

from hqde_ref.core.kernels.gram import content_distances
from hqde_ref.core.kernels.means import average_rows
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count
from hqde_ref.core.kernels.selections import krum_order
from hqde_ref.errors import ConfigurationError

__all__ = ["choose_krum_rows", "krum", "multi_krum", "resolve_neighbours", "resolve_selected"]


def krum(updates: Updates, *, faulty_max: int, neighbours: int | None = None) -> Tensor:
    """Return the row with the least sum of squared distances to its nearest other rows.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        faulty_max: how many rows may hold anything at all.
        neighbours: how many other rows a score counts, faulty_max..n-1; None for n - faulty_max - 2.
    Returns:
        A copy (d,) of one of the rows.
    Raises:
        TooFewContributions: unless n >= 2 * faulty_max + 3.
        NotFinite, LayoutError, ConfigurationError: for rows or a number of neighbours that do not fit.
    """
    return _multi_krum("krum", updates, faulty_max=faulty_max, selected=1, neighbours=neighbours)


def multi_krum(
    updates: Updates, *, faulty_max: int, selected: int | None = None, neighbours: int | None = None
) -> Tensor:
    """Return the mean of the ``selected`` rows with the lowest Krum scores, all scored once.

    Args:
        selected: how many rows to average, 1..n; None for n - faulty_max.
        updates, faulty_max, neighbours: as for ``krum``, whose errors it raises too.
    """
    return _multi_krum("multi_krum", updates, faulty_max=faulty_max, selected=selected, neighbours=neighbours)


def choose_krum_rows(
    updates: Updates, *, faulty_max: int, selected: int | None, neighbours: int | None = None, rule: str = "multi_krum"
) -> tuple[int, ...]:
    """Return the indices of the ``selected`` best rows (None for n - f) by score; arguments as for ``krum``."""
    rows = as_rows(updates, rule=rule)
    check_count(rule, count=len(rows), faulty_max=faulty_max, beyond=3)
    counted = resolve_neighbours(rule, neighbours, count=len(rows), faulty_max=faulty_max)
    wanted = resolve_selected(rule, selected, count=len(rows), faulty_max=faulty_max)
    order, far = content_distances(rows, rule=rule, kept=len(rows) - faulty_max)
    places = krum_order(far**2, neighbours=counted)
    return tuple(order[place] for place in places[:wanted])


def resolve_neighbours(rule: str, neighbours: int | None, *, count: int, faulty_max: int) -> int:
    """Return the number of neighbours meant; it must leave honest ones among them.

    Raises:
        ConfigurationError: it is not an integer of max(1, faulty_max)..count - 1.
    """
    meant = count - faulty_max - 2 if neighbours is None else neighbours
    least = max(1, faulty_max)
    if isinstance(meant, bool) or not isinstance(meant, int) or not least <= meant <= count - 1:
        raise ConfigurationError(
            setting=f"neighbours of {rule}",
            wanted=f"an integer of {least}..{count - 1}",
            got=meant,
            do="take n - faulty_max - 2 (Blanchard) or n - faulty_max - 1 (ByzFL)",
        )
    return meant


def resolve_selected(rule: str, selected: int | None, *, count: int, faulty_max: int) -> int:
    """Return the number of rows meant to be averaged, None meaning all but ``faulty_max``.

    Raises:
        ConfigurationError: it is not an integer of 1..count.
    """
    meant = count - faulty_max if selected is None else selected
    if isinstance(meant, bool) or not isinstance(meant, int) or not 1 <= meant <= count:
        raise ConfigurationError(
            setting=f"selected of {rule}",
            wanted=f"an integer of 1..{count}",
            got=meant,
            do="average at least one row and at most all",
        )
    return meant


def _multi_krum(
    rule: str, updates: Updates, *, faulty_max: int, selected: int | None, neighbours: int | None
) -> Tensor:
    rows = as_rows(updates, rule=rule)
    chosen = choose_krum_rows(rows, faulty_max=faulty_max, selected=selected, neighbours=neighbours, rule=rule)
    # In order of their scores, which depends on content only.
    return average_rows([rows[index] for index in chosen])
