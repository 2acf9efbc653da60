"""Bucketing: contributions are averaged in small groups before a rule is applied to the averages.

Source: HQDE clause 4.5; Karimireddy et al. 2022 (arXiv:2006.09365).
Pure: no clock, no randomness, no input or output; arguments are never changed. Which rows share a bucket is the
caller's choice (``order``, from a seed that contributors cannot know). A faulty row spoils its whole bucket: with
n_b = ceil(n / size) buckets the rule after it must stand f faulty ones of n_b, so for f < n / 3 only size 1 is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from torch import Tensor

from hqde_ref.core.kernels.means import average_rows
from hqde_ref.core.kernels.rows import Updates, as_rows, content_order, require_data, require_finite
from hqde_ref.errors import ConfigurationError

__all__ = ["average_buckets", "check_size"]

_RULE = "bucketing"  # as the registry calls it


def average_buckets(updates: Updates, *, size: int, order: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    """Return the means of consecutive groups of ``size`` rows, the last one perhaps smaller.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        size: rows in a bucket, 1..n.
        order: a permutation of 0..n-1; rows order[0], ..., order[size - 1] make the first bucket. None for rows that
            come shuffled.
    Returns:
        ceil(n / size) new rows (d,) of the same dtype and device. Within a bucket, order leaves no trace.
    Raises:
        ConfigurationError: size or order is not as said.
        TooFewContributions, NotFinite, LayoutError: for rows that do not fit.
    """
    rows = as_rows(updates, rule=_RULE)
    require_data(_RULE, rows)
    require_finite(_RULE, rows)
    check_size(size, most=len(rows))
    places = range(len(rows)) if order is None else _as_permutation(order, len(rows))
    buckets = [[rows[place] for place in places[start : start + size]] for start in range(0, len(rows), size)]
    return tuple(average_rows([bucket[place] for place in content_order(bucket)]) for bucket in buckets)


def _as_permutation(order: Sequence[int], count: int) -> list[int]:
    try:
        places = [index(place) for place in order]
    except TypeError:  # no sequence, or not of integers
        places = []
    if sorted(places) != list(range(count)):
        raise ConfigurationError(
            setting=f"order of {_RULE}",
            wanted=f"a permutation of 0..{count - 1}",
            got=order,
            do="shuffle the indices of the rows",
        )
    return places


def check_size(size: object, *, most: int | None = None) -> None:
    """Refuse a size that is no number of rows, or more than ``most``.

    Raises:
        ConfigurationError: it says what may be taken.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or (most is not None and size > most):
        raise ConfigurationError(
            setting=f"size of {_RULE}",
            wanted="an integer of at least 1" if most is None else f"an integer of 1..{most}",
            got=size,
            do="take 1 where f may be just below n / 3",
        )
