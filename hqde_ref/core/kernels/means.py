"""Weighted sums of rows at the speed of memory, in the order given.

Source: HQDE clauses 0.9 and 0.13.
Pure: no clock, no randomness, no input or output; arguments are never changed. Bits depend on the order of the rows
(callers that promise otherwise pass them in content order), an arena's on torch's number of threads too; sums that
depend on neither are in ``exact_sums``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.rows import (
    choose_block_length,
    choose_sum_length,
    cut_blocks,
    is_finite_row,
    new_row,
    wide_dtype,
)

__all__ = ["average_rows", "blend_rows", "clamp_finite", "multiply_arena"]

_PRODUCT_PIECE = 1 << 14
_PRODUCT_ROWS = 256  # of one product, whose errors pile up; fewer cost a pass over the result each
_GROUP = 64  # more rows than this are summed in groups: fewer, larger steps, and rounding errors that do not pile up


def blend_rows(rows: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return sum_i shares[i] * rows[i], (d,), accumulated in float32 at least and rounded once."""
    result = new_row(rows[0])
    wide = wide_dtype(result.dtype)
    many = len(rows) > _GROUP
    step = choose_block_length(result, rows_held=_GROUP) if many else choose_sum_length(result)
    factors = torch.tensor(shares, dtype=wide, device=result.device)
    buffer = torch.empty(min(step, result.numel()), dtype=wide, device=result.device)
    staging = torch.empty(_GROUP * len(buffer) if many else 0, dtype=result.dtype, device=result.device)
    for out, pieces in zip(torch.split(result, step), cut_blocks(rows, step), strict=True):
        part = out if out.dtype == wide else buffer[: out.numel()]
        if many:
            _sum_groups(pieces, None, factors, part, staging)
        else:
            torch.mul(pieces[0].to(wide), shares[0], out=part)
            for piece, share in zip(pieces[1:], shares[1:], strict=True):
                part.add_(piece, alpha=share)
        if part is not out:
            out.copy_(part)
    return result


def _sum_groups(pieces: Sequence[Tensor], middle: Tensor | None, factors: Tensor, out: Tensor, staging: Tensor) -> None:
    """Write the sum of factors[i] * (pieces[i] - middle) to ``out``, without the subtraction where middle is None.

    ``staging`` has the pieces' dtype and room for a group of them.
    """
    out.zero_()
    for low in range(0, len(pieces), _GROUP):
        group = pieces[low : low + _GROUP]
        block = staging[: len(group) * out.numel()].view(len(group), out.numel())
        stacked = torch.stack(list(group), out=block).to(out.dtype)
        if middle is not None:
            stacked.sub_(middle)
        out.add_(torch.mv(stacked.T, factors[low : low + _GROUP]))


def multiply_arena(arena: Tensor, shares: Tensor) -> Tensor:
    """Return sum_i shares[i] * arena[i], (d,), by matrix products at the speed of memory, on all threads."""
    count, length = arena.shape
    if count > _PRODUCT_ROWS and length < 2 * _PRODUCT_PIECE:
        return _multiply_groups(arena, shares)
    result = new_row(arena[0])
    _multiply_pieces(arena[:_PRODUCT_ROWS], shares[:_PRODUCT_ROWS], result)
    if count > _PRODUCT_ROWS:
        part = new_row(result)
        for low in range(_PRODUCT_ROWS, count, _PRODUCT_ROWS):
            group = slice(low, low + _PRODUCT_ROWS)
            _multiply_pieces(arena[group], shares[group], part)
            result.add_(part)
    return result


def _multiply_groups(arena: Tensor, shares: Tensor) -> Tensor:
    """``multiply_arena`` of many short rows: the threads share groups of them."""
    groups = len(arena) // _GROUP
    whole = groups * _GROUP
    grouped = arena[:whole].view(groups, _GROUP, arena.shape[1])
    result = torch.bmm(shares[:whole].view(groups, 1, _GROUP), grouped).sum(dim=0).squeeze(0)
    return result.add_(torch.mv(arena[whole:].T, shares[whole:])) if whole < len(arena) else result


def _multiply_pieces(arena: Tensor, shares: Tensor, out: Tensor) -> None:
    """Write sum_i shares[i] * arena[i] to ``out``; threads share the pieces, one alone has more of a single product."""
    count, length = arena.shape
    whole = length // _PRODUCT_PIECE * _PRODUCT_PIECE if torch.get_num_threads() > 1 else 0
    if whole:
        pieces = arena[:, :whole].view(count, -1, _PRODUCT_PIECE).transpose(0, 1)
        torch.bmm(shares.expand(len(pieces), 1, count), pieces, out=out[:whole].view(len(pieces), 1, _PRODUCT_PIECE))
    if whole < length:
        torch.mv(arena[:, whole:].T, shares, out=out[whole:])


def average_rows(rows: Sequence[Tensor]) -> Tensor:
    """Return the plain mean of rows, (d,): equal rows give that row.

    Halves are averaged by themselves and blended, and so on down to pairs. So a coordinate is off by at most
    ceil(log2(n)) units in the last place of its greatest entry, in the accumulating dtype, and is rounded once more.
    """
    if len(rows) == 1:
        return rows[0].clone()
    result = new_row(rows[0])
    if len(rows) > _GROUP:
        _average_groups(rows, result)
    else:
        _average_halves(rows, result)
    if not is_finite_row(result):
        return clamp_finite(blend_rows(rows, [1.0 / len(rows)] * len(rows)))  # a difference overflowed
    return result


def _average_groups(rows: Sequence[Tensor], result: Tensor) -> None:
    """Write the first row and the mean of the others' differences from it, summed group by group."""
    wide, share = wide_dtype(result.dtype), 1.0 / len(rows)
    step = choose_block_length(result, rows_held=_GROUP)
    ones = torch.ones(len(rows), dtype=wide, device=result.device)
    buffer = torch.empty(min(step, result.numel()), dtype=wide, device=result.device)
    staging = torch.empty(_GROUP * len(buffer), dtype=result.dtype, device=result.device)
    for out, pieces in zip(torch.split(result, step), cut_blocks(rows, step), strict=True):
        part, first = buffer[: out.numel()], pieces[0].to(wide)
        _sum_groups(pieces, first, ones, part, staging)
        out.copy_(torch.add(first, part, alpha=share, out=part))


def _average_halves(rows: Sequence[Tensor], result: Tensor) -> None:
    wide, step = wide_dtype(result.dtype), choose_sum_length(result)
    shape = (len(rows).bit_length() + 1, min(step, result.numel()))
    buffers = torch.empty(shape, dtype=wide, device=result.device).unbind(0)
    for out, pieces in zip(torch.split(result, step), cut_blocks(rows, step), strict=True):
        spare = [buffer[: out.numel()] for buffer in buffers]
        if out.dtype == wide:
            _blend_halves(pieces, out, spare)
        else:
            _blend_halves(pieces, spare[0], spare[1:])
            out.copy_(spare[0])


def _blend_halves(pieces: Sequence[Tensor], out: Tensor, spare: Sequence[Tensor]) -> None:
    """Write the mean of two pieces or more to ``out``, by way of a spare buffer for each level of halves."""
    middle = len(pieces) // 2
    first = _average_half(pieces[:middle], out, spare)
    second = _average_half(pieces[middle:], spare[0], spare[1:])
    torch.lerp(first, second, 1.0 - middle / len(pieces), out=out)


def _average_half(half: Sequence[Tensor], room: Tensor, spare: Sequence[Tensor]) -> Tensor:
    if len(half) == 1:
        return half[0].to(room.dtype)
    _blend_halves(half, room, spare)
    return room


def clamp_finite(mean: Tensor) -> Tensor:
    """Bring a mean of finite rows that rounding carried beyond the greatest number back to it, in place."""
    greatest = torch.finfo(mean.dtype).max
    return mean.clamp_(-greatest, greatest)
