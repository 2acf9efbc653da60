"""Weighted means whose bits do not depend on order, grouping or topology.

Every summand is first rounded to a grid so coarse that float64 sums of grid points are exact in any grouping; a
flat sum, a tree, a MapReduce and a simulated round then give equal bits. The grid of a block of coordinates follows
from the largest magnitudes in it and the masses alone, so whoever screened the rows can fix it for everybody.

Source: HQDE clauses 0.9, 0.10 and 3.3; pre-rounding after Demmel and Nguyen 2013 ("Fast reproducible floating-point
summation", ARITH 21).
Pure: no clock, no randomness, no input or output; arguments are never changed. It does not screen: a magnitude must
come from a trusted ``largest_magnitudes``. A claimed magnitude that is too small breaks exactness, one that is too
large costs accuracy. Accuracy is absolute per block (``mean_error_bound``), not relative per coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend, build_exact_mean, is_compiled
from hqde_ref.core.kernels.means import clamp_finite
from hqde_ref.core.kernels.rows import (
    Updates,
    as_rows,
    check_weights,
    choose_sum_length,
    new_row,
    require_data,
)
from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions

__all__ = [
    "Blocks",
    "add_sums",
    "choose_grid",
    "exact_weighted_mean",
    "finish_mean",
    "largest_magnitudes",
    "leaf_sum",
    "mean_error_bound",
    "product_limit",
    "round_once",
]

Blocks: TypeAlias = tuple[tuple[int, int], ...]

_RULE = "exact weighted mean"
_ALL_ZERO = -900  # any exponent would do: every summand of such a block is 0
_LEAST = -1022  # below it the grid is finer than the subnormal numbers
_GREATEST = 1022  # above it 1.5 * 2**k plus a summand may overflow
_TINIEST = 5e-324


def largest_magnitudes(row: Tensor, blocks: Blocks) -> tuple[float, ...]:
    """Return max |x| of each block of ``row``: 0.0 for an empty block, NaN or inf if the block holds one.

    Args:
        row: (d,) floating tensor.
        blocks: (low, high) coordinate ranges.
    """
    limits = [torch.stack(torch.aminmax(row[low:high])) for low, high in blocks if high > low]
    if not limits:
        return (0.0,) * len(blocks)
    found = iter(torch.stack(limits).to(torch.float64).abs().amax(dim=1).tolist())
    return tuple(next(found) if high > low else 0.0 for low, high in blocks)


def choose_grid(tops: Sequence[tuple[float, ...]], masses: Sequence[float]) -> tuple[int, ...]:
    """Return one exponent k per block: summands are rounded to multiples of 2**(k - 52).

    Args:
        tops: per row, ``largest_magnitudes`` of its blocks.
        masses: per row, its weight in the mean: finite, above 0.
    Raises:
        TooFewContributions: there is no row.
        LayoutError: rows and masses, or the numbers of blocks, do not match.
        NotFinite: a magnitude is NaN or infinite.
        ConfigurationError: a mass is not finite and positive, or mass times magnitude times rows nears 2**1023.
    """
    largest = _largest_products(tops, masses)
    most = product_limit(len(tops))
    grid = []
    for block, product in enumerate(largest):
        if product > 2.0**most:
            raise ConfigurationError(
                setting=f"mass times magnitude of block {block} of {_RULE}",
                wanted=f"at most 2**{most} for {len(tops)} rows",
                got=product,
                do="divide all masses by a power of two: only their ratios count",
            )
        grid.append(_ALL_ZERO if product == 0.0 else max(_LEAST, _ceil_log2(product) + _GREATEST - most))
    return tuple(grid)


def product_limit(count: int) -> int:
    """Return c: mass times magnitude may be at most 2**c for ``count`` rows, or their sum may leave float64."""
    return _GREATEST - max(1, (count - 1).bit_length())


def _largest_products(tops: Sequence[tuple[float, ...]], masses: Sequence[float]) -> list[float]:
    if not tops:
        raise TooFewContributions(rule=_RULE, faulty_max=None, needed=1, got=0)
    weights = check_weights(_RULE, masses, count=len(tops))
    if any(len(row) != len(tops[0]) for row in tops):
        raise LayoutError(
            what=f"magnitudes of {_RULE}",
            wanted="one per block in all rows",
            got=f"{sorted({len(row) for row in tops})} of them",
            do="screen all rows with one layout",
        )
    bad = tuple(index for index, row in enumerate(tops) if not all(map(math.isfinite, row)))
    if bad:
        raise NotFinite(rule=_RULE, rows=bad)
    return [
        max(weight * top for weight, top in zip(weights, column, strict=True)) for column in zip(*tops, strict=True)
    ]


def _ceil_log2(value: float) -> int:
    """Return the least integer c with 2**c >= value, exactly."""
    fraction, exponent = math.frexp(value)
    return exponent - 1 if fraction == 0.5 else exponent


def leaf_sum(rows: Sequence[Tensor], masses: Sequence[float], grid: Sequence[int], blocks: Blocks) -> Tensor:
    """Return the sum of mass times row, each summand rounded to the grid: (d,) float64, exact in any grouping.

    Args:
        rows: (d,) floating tensors of one device.
        masses: one weight per row.
        grid: one exponent per block, from ``choose_grid`` over all rows of the round, not only these.
        blocks: (low, high) ranges that cover 0..d in order.
    Raises:
        LayoutError: the blocks do not cover the rows in order, or their number is not the grid's.
    """
    _check_blocks(blocks, length=rows[0].numel(), grid=grid)
    total = new_row(rows[0], dtype=torch.float64)
    step = choose_sum_length(total)
    buffer = torch.empty(min(step, total.numel()), dtype=torch.float64, device=total.device)
    for low, high, exponent in _pieces(blocks, grid, step):
        _sum_piece([row[low:high] for row in rows], masses, exponent, out=total[low:high], buffer=buffer)
    return total


def _sum_piece(rows: Sequence[Tensor], masses: Sequence[float], exponent: int, *, out: Tensor, buffer: Tensor) -> None:
    """Write the sum of mass times row, rounded to one grid, to ``out``; ``buffer`` is float64 and at least as long."""
    magnet = 1.5 * 2.0**exponent
    target = out
    for row, mass in zip(rows, masses, strict=True):
        target.copy_(row)
        # A multiply of its own: alpha= and addcmul may fuse, and then the bits depend on the offset.
        if mass != 1.0:
            target.mul_(mass)
        target.add_(magnet).sub_(magnet)
        if target is not out:
            out.add_(target)
        target = buffer[: out.numel()]


def _pieces(blocks: Blocks, grid: Sequence[int], step: int) -> Iterator[tuple[int, int, int]]:
    """Yield (low, high, exponent) of pieces of at most ``step`` coordinates; equal neighbours are joined first."""
    start = stop = 0
    current: int | None = None
    for (low, high), exponent in zip(blocks, grid, strict=True):
        if high > low and exponent != current:
            yield from _cut(start, stop, current, step)
            start, current = low, exponent
        stop = high
    yield from _cut(start, stop, current, step)


def _cut(start: int, stop: int, exponent: int | None, step: int) -> Iterator[tuple[int, int, int]]:
    if exponent is not None:
        for low in range(start, stop, step):
            yield low, min(low + step, stop), exponent


def _check_blocks(blocks: Blocks, *, length: int, grid: Sequence[int]) -> None:
    reached = 0
    for low, high in blocks:
        if low != reached or high < low:
            raise LayoutError(
                what=f"blocks of {_RULE}",
                wanted=f"ranges that cover 0..{length} in order",
                got=f"({low}, {high}) where {reached} was reached",
                do="use the layout's own entries",
            )
        reached = high
    if reached != length or len(blocks) != len(grid):
        raise LayoutError(
            what=f"blocks of {_RULE}",
            wanted=f"ranges that cover 0..{length}, one grid exponent each",
            got=f"{len(blocks)} ranges up to {reached} with {len(grid)} exponents",
            do="use the layout and the grid of one and the same round",
        )


def add_sums(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of partial sums, (d,) float64; exact, so any grouping gives the same bits.

    Raises:
        TooFewContributions: there is no part.
        LayoutError: a part is not float64 of the first part's length and device.
    """
    rows = as_rows(parts, rule=_RULE)
    if rows[0].dtype != torch.float64:
        raise LayoutError(
            what=f"partial sums of {_RULE}",
            wanted="float64",
            got=str(rows[0].dtype),
            do="pass what leaf_sum or add_sums returned",
        )
    total = rows[0].clone()
    step = choose_sum_length(total)
    for low in range(0, total.numel(), step):
        part = total[low : low + step]
        for row in rows[1:]:
            part.add_(row[low : low + step])
    return total


def finish_mean(total: Tensor, mass: float, dtype: torch.dtype) -> Tensor:
    """Return total / mass, (d,), divided in float64 and rounded once to ``dtype``.

    Args:
        total: (d,) float64 sum over all rows.
        mass: ``math.fsum`` of all masses, which is order-free too.
        dtype: float16, bfloat16, float32 or float64.
    Raises:
        ConfigurationError: the mass is not finite and positive.
    """
    if not (math.isfinite(mass) and mass > 0.0):
        raise ConfigurationError(
            setting=f"total mass of {_RULE}",
            wanted="finite and above 0",
            got=mass,
            do="sum the masses of the rows used with math.fsum",
        )
    # A tensor divisor: on a GPU a Python scalar may become a multiplication by its reciprocal.
    return round_once(total / torch.tensor(mass, dtype=torch.float64, device=total.device), dtype)


def round_once(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float64 ``values`` rounded once to ``dtype`` (clause 0.9); torch rounds twice on the way to 16 bits."""
    if dtype in (torch.float16, torch.bfloat16):
        return _round_to_odd_float32(values).to(dtype)
    return values.to(dtype)


def _round_to_odd_float32(values: Tensor) -> Tensor:
    """Return float32 values that later round to 16 bits as the float64 ones would: the last bit keeps what is lost."""
    near = values.to(torch.float32)
    back = near.to(torch.float64)
    bits = near.view(torch.int32) - (back.abs() > values.abs()).to(torch.int32)
    return (bits | (back != values).to(torch.int32)).view(torch.float32)


def exact_weighted_mean(
    rows: Updates,
    masses: Sequence[float] | Tensor | None = None,
    blocks: Blocks | None = None,
    *,
    backend: Backend = "eager",
) -> Tensor:
    """Return the weighted mean, (d,) of the rows' dtype, bit for bit what any tree of the parts above gives.

    Masses and rows of any size will do: where their products leave float64, the tree that is meant is one with the
    same masses in other units, which ``choose_grid`` would accept.

    Args:
        rows: n tensors (d,) or one (n, d) tensor; finite.
        masses: n weights, finite and above 0; None means 1 each.
        blocks: (low, high) ranges that cover 0..d in order, each with a grid of its own; None means one block.
        backend: "compiled" for torch.compile where there is a compiler: the same bits, faster once compiled.
    Raises:
        TooFewContributions, LayoutError, NotFinite, ConfigurationError: as the parts say.
    """
    given = as_rows(rows, rule=_RULE)
    weights = check_weights(_RULE, masses, count=len(given))
    require_data(_RULE, given)
    ranges = ((0, given[0].numel()),) if blocks is None else blocks
    tops = [largest_magnitudes(row, ranges) for row in given]
    weights = _fit_masses(tops, weights)
    grid = choose_grid(tops, weights)
    _check_blocks(ranges, length=given[0].numel(), grid=grid)
    result, mass = new_row(given[0]), math.fsum(weights)
    kernel = None
    if is_compiled(backend, given, rule=_RULE):
        kernel = build_exact_mean(len(given), result.dtype, result.device)
    if kernel is not None:
        numbers = torch.tensor([*weights, mass], dtype=torch.float64, device=result.device)
        for low, high, exponent in _pieces(ranges, grid, result.numel()):
            magnet = torch.tensor(1.5 * 2.0**exponent, dtype=torch.float64, device=result.device)
            kernel([row[low:high] for row in given], numbers[:-1], magnet, numbers[-1], result[low:high])
        return _hold(result, tops)
    step = choose_sum_length(torch.empty(0, dtype=torch.float64, device=result.device))
    total, buffer = torch.empty(2, min(step, result.numel()), dtype=torch.float64, device=result.device).unbind(0)
    divisor = torch.tensor(mass, dtype=torch.float64, device=result.device)  # a tensor, as in finish_mean
    for low, high, exponent in _pieces(ranges, grid, step):
        part = total[: high - low]
        _sum_piece([row[low:high] for row in given], weights, exponent, out=part, buffer=buffer)
        result[low:high] = round_once(part.div_(divisor), result.dtype)
    return _hold(result, tops)


def _fit_masses(tops: Sequence[tuple[float, ...]], masses: tuple[float, ...]) -> tuple[float, ...]:
    """Return the masses times a power of two with which no product of mass and magnitude overflows or vanishes.

    Only their ratios count, and such a factor changes no bit of the mean. Where all products keep their digits, as
    they almost always do, the masses stay as they are: what the parts above are given.
    """
    most = product_limit(len(tops))
    pairs = [(mass, top) for row, mass in zip(tops, masses, strict=True) for top in row if top > 0.0]
    if not pairs or not all(math.isfinite(top) for row in tops for top in row):
        return masses  # nothing to fit, or rows that choose_grid refuses
    columns = [column for column in zip(*tops, strict=True) if any(column)]
    largest = [max(mass * top for mass, top in zip(masses, column, strict=True)) for column in columns]
    if all(_is_on_grid(product, most) for product in largest):
        return masses
    exponent = max(math.frexp(mass)[1] + math.frexp(top)[1] for mass, top in pairs)
    room = _GREATEST - math.frexp(math.fsum(masses))[1]
    shift = min(most - exponent, max(0, room))
    # A mass so far below the others that it would vanish counts for nothing; it must stay above 0 all the same.
    return tuple(max(math.ldexp(mass, shift), _TINIEST) for mass in masses)


def _is_on_grid(product: float, most: int) -> bool:
    """Ask whether the grid of a block with this largest product, not of zeros only, is finer than its digits."""
    return 0.0 < product <= 2.0**most and _ceil_log2(product) + _GREATEST - most >= _LEAST


def _hold(mean: Tensor, tops: Sequence[tuple[float, ...]]) -> Tensor:
    """Return ``mean``, brought back to the greatest float64 where rounding to the grid carried it beyond, in place."""
    return clamp_finite(mean) if any(top >= 2.0**1023 for row in tops for top in row) else mean


def mean_error_bound(
    grid: Sequence[int], tops: Sequence[tuple[float, ...]], masses: Sequence[float]
) -> tuple[float, ...]:
    """Return, per block, how far sum / mass may lie from the exact weighted mean in any coordinate of it.

    The rounding of the quotient to float64 and to the dtype comes on top. Same arguments and errors as
    ``choose_grid``, whose result ``grid`` is.
    """
    largest = _largest_products(tops, masses)
    count, mass = len(tops), math.fsum(masses)
    return tuple(
        (count * math.ldexp(1.0, exponent - 53) + count * math.ldexp(product, -53)) / mass
        for exponent, product in zip(grid, largest, strict=True)
    )
