"""Mean of the values nearest to the median, coordinate by coordinate: MeaMed and the second stage of Bulyan.

The m values nearest to the median are a window of the sorted column. Where two windows are equally near, both are
averaged, so that the rule stays symmetric under negation. Which is nearer is decided exactly: around a midpoint that
was rounded, values that lie close beside their distance from 0 would be told apart wrongly.

Source: HQDE clauses 0.3 and 4.5; Xie et al. 2018 (MeaMed, arXiv:1802.10116); El Mhamdi et al. 2018 (Bulyan).
Pure: no clock, no randomness, no input or output; arguments are never changed. Windows are summed by masks,
never updated by differences, so distant values leave no trace. Bits depend on the multiset of a coordinate only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.order_statistics import ordered_blocks
from hqde_ref.core.kernels.rows import new_row

__all__ = ["nearest_mean"]

_BITS = {torch.float32: (torch.int32, 31), torch.float64: (torch.int64, 63)}


def nearest_mean(rows: Sequence[Tensor], *, keep: int, rule: str) -> Tensor:
    """Return, per coordinate, the mean of the ``keep`` values nearest to the (midpoint) median, (d,).

    Args:
        rows: n tensors (d,) of one floating dtype.
        keep: 1..n.
        rule: who asks; errors name it.
    Raises:
        NotFinite: a row holds NaN or an infinity.
    """
    count = len(rows)
    result = new_row(rows[0])
    for low, high, ordered in ordered_blocks(rows, range(count), rule=rule):
        values = ordered if isinstance(ordered, Tensor) else torch.stack([ordered[rank] for rank in range(count)])
        result[low:high] = _nearest_window(values.contiguous(), keep)
    return result


def _nearest_window(values: Tensor, keep: int) -> Tensor:
    """Return the mean of the ``keep`` ranks of sorted columns (n, m) nearest to the median; of two such, their mean."""
    count = len(values)
    summed = _without_overflow(values)
    middle, middle_lost = _add_exactly(summed[(count - 1) // 2], summed[count // 2])  # twice the median
    ends, ends_lost = _add_exactly(summed[: count - keep], summed[keep:])
    # A window moves on where its first rank is farther from the median than the rank behind its last one; the second
    # window also where they are equally far.
    moved = ends.sub_(middle).add_(ends_lost.sub_(middle_lost))
    first = _window_mean(values, _is_negative(moved), keep)
    last = _window_mean(values, ~_is_negative(moved.neg_().add_(0.0)), keep)  # -0.0 has a sign too
    return first.mul_(0.5).add_(last, alpha=0.5)


def _window_mean(values: Tensor, moved: Tensor, keep: int) -> Tensor:
    """Return the mean of the window that starts at the first rank and moves on by one for each mask (n - keep, m)."""
    held, halving = values.clone(), 2.0 ** -keep.bit_length()  # so many of the greatest numbers do not overflow
    bits = held.view(moved.dtype)
    bits[: len(moved)].bitwise_and_(~moved)
    bits[keep:].bitwise_and_(moved)
    total = torch.zeros_like(values[0])
    for column in held.unbind(0):
        total.add_(column, alpha=halving)
    # Clamping to the window's own ends undoes the rounding of the mean: equal values give that value.
    start = -moved.sum(dim=0, keepdim=True, dtype=torch.int64)
    low, high = values.gather(0, start)[0], values.gather(0, start + (keep - 1))[0]
    return torch.minimum(torch.maximum(total.mul_(1.0 / (keep * halving)), low), high)


def _without_overflow(values: Tensor) -> Tensor:
    """Return sorted columns that can be added, differences between sums too; quarters of them where the ends cannot."""
    limit = torch.finfo(values.dtype).max / 4
    if values.is_meta or values.numel() == 0 or (float(values[0].min()) > -limit and float(values[-1].max()) < limit):
        return values
    return values * 0.25


def _add_exactly(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rounded sum of a and b, and what rounding took from it (Knuth's two-sum)."""
    total = a + b
    of_b = total - a
    lost = (a - (total - of_b)).add_(b - of_b)
    return total, lost


def _is_negative(values: Tensor) -> Tensor:
    """Return a mask of all bits where a value is below 0, of no bit elsewhere (torch.where is slow on such masks)."""
    kind, sign = _BITS[values.dtype]
    return values.view(kind).bitwise_right_shift(sign)
