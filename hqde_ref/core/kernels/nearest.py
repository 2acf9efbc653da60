"""Mean of the values nearest to the median, coordinate by coordinate: MeaMed and the second stage of Bulyan.

The m values nearest to the median are a window of the sorted column. Where two windows are equally near, both are
averaged, so that the rule stays symmetric under negation. Which is nearer is decided exactly: around a midpoint that
was rounded, values that lie close beside their distance from 0 would be told apart wrongly.

Source: HQDE clauses 0.3 and 4.5; Xie et al. 2018 (MeaMed, arXiv:1802.10116); El Mhamdi et al. 2018 (Bulyan).
Pure: no clock, no randomness, no input or output; arguments are never changed. Windows are summed afresh, never
updated by differences, so distant values leave no trace. Bits depend on the multiset of a coordinate only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.order_statistics import Ordered, ordered_blocks, write_rank_mean
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
        columns = [ordered[rank].contiguous() for rank in range(count)]
        result[low:high] = _nearest_window(columns, ordered, keep)
    return result


def _nearest_window(columns: Sequence[Tensor], ordered: Ordered, keep: int) -> Tensor:
    """Return the mean of the window of ``keep`` ranks nearest to the median, of two equally near ones their mean."""
    count, first = len(columns), torch.empty_like(columns[0])
    write_rank_mean(ordered, 0, keep, out=first)
    last, window = first.clone(), torch.empty_like(first)
    lows, highs = [columns[0].clone(), columns[0].clone()], [columns[keep - 1].clone(), columns[keep - 1].clone()]
    summed = _without_overflow(columns)
    middle = _add_exactly(summed[(count - 1) // 2], summed[count // 2])  # twice the median
    for start in range(count - keep):
        # Move on where rank start is farther from the median than rank start + keep; `last` also where they are equal.
        ends = _add_exactly(summed[start], summed[start + keep])
        write_rank_mean(ordered, start + 1, start + 1 + keep, out=window)
        moved = (ends[0] - middle[0]).add_(ends[1] - middle[1])
        farther, nearer = _is_negative(moved), _is_negative(moved.neg_().add_(0.0))  # -0.0 has a sign too
        for target, new in ((first, window), (lows[0], columns[start + 1]), (highs[0], columns[start + keep])):
            _replace(target, new, farther)
        for target, new in ((last, window), (lows[1], columns[start + 1]), (highs[1], columns[start + keep])):
            _replace(target, new, ~nearer)
    # Clamping to the window's own ends undoes the rounding of the mean: equal values give that value.
    first = torch.minimum(torch.maximum(first, lows[0]), highs[0])
    last = torch.minimum(torch.maximum(last, lows[1]), highs[1])
    return first.mul_(0.5).add_(last, alpha=0.5)


def _without_overflow(columns: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return sorted columns that can be added, differences between sums too; quarters of them where the ends cannot."""
    limit = torch.finfo(columns[0].dtype).max / 4
    lowest, highest = columns[0], columns[-1]
    if lowest.is_meta or len(lowest) == 0 or (float(lowest.min()) > -limit and float(highest.max()) < limit):
        return columns
    return [column * 0.25 for column in columns]


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


def _replace(target: Tensor, new: Tensor, mask: Tensor) -> None:
    kind, _ = _BITS[target.dtype]
    bits = target.view(kind)
    bits.bitwise_xor_(torch.bitwise_xor(bits, new.view(kind)).bitwise_and_(mask))
