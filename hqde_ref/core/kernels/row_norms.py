"""Euclidean lengths of rows, and of their differences to a point, at any scale.

Source: HQDE clause 4.7 (any scale from 1e-30 to 1e30).
Pure: no clock, no randomness, no input or output; arguments are never changed. Squares are summed in float64, so
they neither overflow nor vanish for narrower rows; float64 rows are scaled by their own greatest entry first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["row_norms"]

_STEP = 16384


def row_norms(rows: Sequence[Tensor], point: Tensor | None = None, *, unit: float = 1.0) -> tuple[float, ...]:
    """Return |x_i|, or |x_i - point| where a point (d,) is given, for every row.

    Lengths are in units of ``unit``, a power of two: a float64 row may be finite and its length not.
    """
    return tuple(_norm(row, point, unit) for row in rows)


def _norm(row: Tensor, point: Tensor | None, unit: float) -> float:
    if row.numel() == 0:
        return 0.0
    top = 1.0
    if row.dtype == torch.float64:
        top = max(float(block.abs().max()) for block in _blocks(row, point))
        if top == 0.0:
            return 0.0
    squares = [
        torch.dot(block, block) for block in (block / top if top != 1.0 else block for block in _blocks(row, point))
    ]
    return float(torch.stack(squares).sum().sqrt()) * (top / unit)


def _blocks(row: Tensor, point: Tensor | None) -> Iterator[Tensor]:
    for low in range(0, row.numel(), _STEP):
        block = row[low : low + _STEP].to(torch.float64)
        yield block if point is None else block - point[low : low + _STEP].to(torch.float64)
