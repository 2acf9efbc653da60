"""Inner products of rows, block by block, around one of them; rows of extreme size are scaled by powers of two.

Source: HQDE clause 4.7 (any scale from 1e-30 to 1e30).
Pure: no clock, no randomness, no input or output; arguments are never changed. At most a cache-sized block of the
rows is copied at a time, never all n x d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.centres import is_wide_sample, work_dtype
from hqde_ref.core.kernels.rows import choose_block_length, cut_blocks, require_finite

__all__ = ["centred_blocks", "is_well_scaled", "products_around", "products_by_origin", "scale_exponents"]

_CACHE = 9 << 20  # so that 32 rows of float32 are cut as rarely as 8: on two threads each cut costs a wait
# Products are summed in float32 inside a piece, and pieces share the threads. A full block's row is an odd number of
# pieces, and those an odd number of float32 cache lines: rows a power of two apart would all fall on the same few
# places of the first cache, and 16 of them push each other out.
_PIECE = 784
_GROUP = 128
_LEAST = 4096  # a thousand rows in shorter blocks would be more calls than work


def centred_blocks(
    rows: Sequence[Tensor], centre: int | None, exponents: Sequence[int], *, dtype: torch.dtype | None = None
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (low, high, block) with block[i] = (rows[i] - rows[centre]) * 2**-exponents[i]; the buffer is reused.

    Without a centre, block[i] = rows[i]. ``dtype`` is ``work_dtype`` unless another is given.
    """
    length, dtype = rows[0].numel(), work_dtype(rows) if dtype is None else dtype
    like = torch.empty(0, dtype=dtype, device=rows[0].device)
    step = _odd_pieces(choose_block_length(like, rows_held=len(rows), cache_bytes=_CACHE, least=_LEAST))
    buffer = torch.empty(len(rows) * min(step, length), dtype=dtype, device=rows[0].device)
    plain = rows[0].dtype == dtype and not any(exponents)
    low = 0
    for pieces in cut_blocks(rows, step):
        size = pieces[0].numel()
        block = buffer[: len(rows) * size].view(len(rows), size)
        if plain:
            torch.stack(pieces, out=block)
            if centre is not None:
                block.sub_(pieces[centre])
        elif centre is None:
            block.copy_(torch.stack(pieces))
        else:
            for piece, exponent, out in zip(pieces, exponents, block.unbind(0), strict=True):
                _write_difference(piece, pieces[centre].to(dtype), exponent, out)
        yield low, low + size, block
        low += size


def _odd_pieces(length: int) -> int:
    """Return the length of the greatest odd number of pieces within ``length``, which holds one at least."""
    return (length // _PIECE - 1) // 2 * 2 * _PIECE + _PIECE


def _write_difference(row: Tensor, middle: Tensor, exponent: int, out: Tensor) -> None:
    out.copy_(row)
    if exponent > 0:  # scale down first: the difference itself may overflow
        out.mul_(2.0**-exponent).sub_(middle * 2.0**-exponent)
    else:  # scale up last: the rows themselves may overflow
        out.sub_(middle).mul_(2.0**-exponent)


def products_around(rows: Sequence[Tensor], centre: int | None, exponents: Sequence[int]) -> Tensor:
    """Return <z_i, z_j>, (n, n) float64, of the rows as ``centred_blocks`` gives them."""
    count = len(rows)
    total = torch.zeros(count, count, dtype=torch.float64, device=rows[0].device)
    # The matrix is symmetric: groups of rows are multiplied with themselves and later ones only.
    groups = [(low, min(low + _GROUP, count)) for low in range(0, count, _GROUP)]
    for _, _, block in centred_blocks(rows, centre, exponents):
        for part in _pieces(block):
            for low, high in groups:
                products = torch.bmm(part[:, low:high], part[:, low:].transpose(1, 2))
                total[low:high, low:] += products.sum(dim=0, dtype=torch.float64)
    return torch.triu(total) + torch.triu(total, diagonal=1).T


def _pieces(block: Tensor) -> Iterator[Tensor]:
    """Cut (n, length) into (pieces, n, piece) views; what is left over comes as one shorter piece."""
    count, length = block.shape
    whole = length // _PIECE * _PIECE
    if whole:
        yield block[:, :whole].view(count, -1, _PIECE).transpose(0, 1)
    if whole < length:
        yield block[:, whole:][None]


def products_by_origin(rows: Sequence[Tensor], centre: int) -> Tensor | None:
    """Return the products around row ``centre`` from ones around the origin, or None where that would cost digits.

    It costs none where most rows lie as far from the centre as from the origin, and saves a subtraction per value.
    """
    if not is_wide_sample(rows, centre):
        return None
    raw = products_around(rows, None, (0,) * len(rows))
    own = raw[centre]
    products = raw - own[:, None] - own + own[centre]
    products[centre] = 0.0
    products[:, centre] = 0.0
    squares = products.diagonal().sort().values
    # The probe may have missed where the rows are close.
    return products if bool(squares[len(rows) // 2] >= 0.5 * own[centre]) else None


def is_well_scaled(products: Tensor, centre: int, dtype: torch.dtype) -> bool:
    """Ask whether no product overflowed and no row but the centre is so short that its products may have vanished."""
    squares = products.diagonal().clone()
    squares[centre] = 1.0
    least = 1e-200 if dtype == torch.float64 else 1e-20
    return bool(torch.isfinite(products).all()) and bool((squares >= least).all())


def scale_exponents(rows: Sequence[Tensor], centre: int, rule: str) -> tuple[int, ...]:
    """Return e with |x_i - centre| <= 2**e in every coordinate; 0 for a row equal to the centre."""
    found = torch.zeros(len(rows), dtype=torch.float64, device=rows[0].device)
    # Halves, so that the difference of two of the greatest numbers does not overflow.
    ones = (1,) * len(rows)
    for _, _, block in centred_blocks(rows, centre, ones):
        found = torch.maximum(found, block.abs().amax(dim=1).to(torch.float64))
    tops: list[float] = found.tolist()
    if not all(map(math.isfinite, tops)):
        require_finite(rule, rows)
    widest = 1000 if work_dtype(rows) == torch.float64 else 126
    return tuple(min(max(math.frexp(top)[1] + 1, -widest), widest + 1) if top else 0 for top in tops)
