"""Weighted sums of rows at the speed of memory, in the order given.

Source: HQDE clauses 0.9 and 0.13.
Pure: no clock, no randomness, no input or output; arguments are never changed. Bits depend on the order of the rows
(callers that promise otherwise pass them in content order); sums that do not are in ``exact_sums``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.rows import choose_block_length, wide_dtype

__all__ = ["average_rows", "blend_rows"]


def blend_rows(rows: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return sum_i shares[i] * rows[i], (d,), accumulated in float32 at least and rounded once."""
    result = torch.empty(rows[0].numel(), dtype=rows[0].dtype, device=rows[0].device)
    wide = wide_dtype(result.dtype)
    step = choose_block_length(result, rows_held=2)
    buffer = torch.empty(min(step, result.numel()), dtype=wide, device=result.device)
    for out, pieces in zip(
        torch.split(result, step), zip(*(torch.split(row, step) for row in rows), strict=True), strict=True
    ):
        part = out if out.dtype == wide else buffer[: out.numel()]
        torch.mul(pieces[0].to(wide), shares[0], out=part)
        for piece, share in zip(pieces[1:], shares[1:], strict=True):
            part.add_(piece, alpha=share)
        if part is not out:
            out.copy_(part)
    return result


def average_rows(rows: Sequence[Tensor]) -> Tensor:
    """Return the plain mean of rows, (d,), as the first row plus mean differences: equal rows give that row."""
    if len(rows) == 1:
        return rows[0].clone()
    result = torch.empty(rows[0].numel(), dtype=rows[0].dtype, device=rows[0].device)
    wide, share = wide_dtype(result.dtype), 1.0 / len(rows)
    step = choose_block_length(result, rows_held=3)
    buffers = torch.empty(3, min(step, result.numel()), dtype=wide, device=result.device)
    for out, pieces in zip(
        torch.split(result, step), zip(*(torch.split(row, step) for row in rows), strict=True), strict=True
    ):
        difference, part, first = (buffer[: out.numel()] for buffer in buffers.unbind(0))
        first = pieces[0] if pieces[0].dtype == wide else first.copy_(pieces[0])
        torch.sub(pieces[1], first, out=part)
        for piece in pieces[2:]:
            part.add_(torch.sub(piece, first, out=difference))
        if out.dtype == wide:
            torch.add(first, part, alpha=share, out=out)
        else:
            out.copy_(part.mul_(share).add_(first))
    return result
