"""Mixing rows by a small matrix, in coefficient space or in cache-sized blocks.

A mixing matrix (m, n) has entries of at least 0 and rows that sum to 1; mixed row k is sum_j matrix[k, j] x_j. Rules
that need the Gram matrix only are solved on the mixed Gram matrix, without ever forming a mixed row.

Source: HQDE clause 4.5; Allouah et al. 2023 (nearest-neighbour mixing, arXiv:2302.01772).
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import Gram
from hqde_ref.core.kernels.means import clamp_finite
from hqde_ref.core.kernels.rows import new_row, wide_dtype

__all__ = ["mix_gram", "mix_rows", "over_mixed_blocks", "unmix"]

_CHUNK_VALUES = 1 << 21


def mix_gram(gram: Gram, matrix: Tensor) -> Gram:
    """Return the Gram matrix of the mixed rows around the same centre; mixed rows have no exponents of their own."""
    raw = matrix * gram.norms
    products = raw @ gram.cosines @ raw.T
    products = (products + products.T) / 2.0
    norms = products.diagonal().clamp_min(0.0).sqrt()
    inverse = torch.where(norms > 0, 1.0 / norms, 0.0)
    cosines = (products * inverse[:, None] * inverse).clamp_(-1.0, 1.0)
    cosines.diagonal().copy_(norms > 0)
    return replace(gram, cosines=cosines, norms=norms, lengths=norms, exponents=(0,) * len(norms))


def unmix(gram: Gram, mixed: Gram, matrix: Tensor, coefficients: Tensor) -> Tensor:
    """Return coefficients along the rows of ``gram`` for ones along the rows of ``mixed`` (both for combine_rows)."""
    usable = mixed.norms > 0
    shares = torch.where(usable, coefficients / torch.where(usable, mixed.norms, 1.0), 0.0)
    result: Tensor = (shares @ matrix) * gram.norms
    return result


def mix_rows(rows: Sequence[Tensor], matrix: Tensor, *, centre: int) -> tuple[Tensor, ...]:
    """Return the mixed rows, m tensors (d,) of the rows' dtype.

    ``centre`` is a row that most are near to: differences to it are mixed, so no outlier and no shared offset costs
    a digit, and rows equal to it mix to it exactly.
    """
    mixed = torch.empty(len(matrix), rows[0].numel(), dtype=rows[0].dtype, device=rows[0].device)

    def write(low: int, high: int, block: Tensor) -> None:
        mixed[:, low:high] = block

    _each_mixed_block(rows, matrix, centre, write)
    return mixed.unbind(0)


def over_mixed_blocks(
    rows: Sequence[Tensor], matrix: Tensor, rule: Callable[[Sequence[Tensor]], Tensor], *, centre: int
) -> Tensor:
    """Return what a coordinate-wise ``rule`` gives on the mixed rows, (d,), mixing some coordinates at a time."""
    result = new_row(rows[0])

    def write(low: int, high: int, block: Tensor) -> None:
        result[low:high] = rule(block.unbind(0))

    _each_mixed_block(rows, matrix, centre, write)
    return result


def _each_mixed_block(
    rows: Sequence[Tensor], matrix: Tensor, centre: int, write: Callable[[int, int, Tensor], None]
) -> None:
    dtype = wide_dtype(rows[0].dtype)
    shares = matrix.to(dtype)
    step = max(64, _CHUNK_VALUES // (len(rows) + len(matrix)))
    for low in range(0, rows[0].numel(), step):
        high = min(low + step, rows[0].numel())
        block = torch.stack([row[low:high] for row in rows]).to(dtype)
        middle = block[centre].clone()
        mixed = (shares @ block.sub_(middle)).add_(middle)
        if not mixed.is_meta and not math.isfinite(float(mixed.sum())):
            _mend_overflow([row[low:high] for row in rows], shares, centre, mixed)
        write(low, high, mixed)


def _mend_overflow(rows: Sequence[Tensor], shares: Tensor, centre: int, mixed: Tensor) -> None:
    """Mix quarters of the rows where a difference of them overflowed, in place; sums may overflow with no need."""
    at = (~torch.isfinite(mixed)).any(dim=0)
    quarters = torch.stack([row[at] for row in rows]).to(mixed.dtype).mul_(0.25)
    middle = quarters[centre].clone()
    mixed[:, at] = clamp_finite((shares @ quarters.sub_(middle)).add_(middle).mul_(4.0))
