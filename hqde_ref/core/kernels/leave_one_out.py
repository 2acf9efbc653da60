"""Leave-one-out median absolute deviations of all n rows from one sort.

For row i and one coordinate: m_i is the lower median of the n - 1 other values, spread_i the lower median of their
|x_j - m_i|, deviation_i = |x_i - m_i|. All m_i are one of two neighbouring order statistics, and so are all spread_i
once the deviations from those two are merged; nothing is sorted again per row. Values equal the definition's bit for
bit, coordinate by coordinate.

Source: HQDE clause 4.3 (erratum E10: where the spread is 0 the document's score is 1e7 for honest rows).
Pure: no clock, no randomness, no input or output; arguments are never changed. The document's mean of ratios is
offered as it is written, with its floor; ``leave_one_out_ratios`` is the reading that keeps far rows above all others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from numbers import Real

import torch
from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend, build_leave_one_out, is_compiled
from hqde_ref.core.kernels.networks import selection_program
from hqde_ref.core.kernels.order_statistics import NETWORK_MAX, is_finite_span, run_program
from hqde_ref.core.kernels.rows import (
    Updates,
    as_rows,
    choose_block_length,
    cut_blocks,
    require_data,
    require_finite,
    wide_dtype,
)
from hqde_ref.errors import ConfigurationError, TooFewContributions

__all__ = ["leave_one_out_ratios", "leave_one_out_scores", "leave_one_out_table"]

_RULE = "leave_one_out"
_BITS = {torch.float32: (torch.int32, 31), torch.float64: (torch.int64, 63)}
_LEAST_SHARE = 1e-6
_SPARE = 10
_LEAST = 512
_LEAST_ROWS = 2  # without one there is another to compare it with

# (row, low, high, deviation, spread): both (high - low,) buffers.
Visit = Callable[[int, int, int, Tensor, Tensor], None]


def leave_one_out_scores(updates: Updates, *, floor: float = 1e-8, backend: Backend = "eager") -> tuple[float, ...]:
    """Return, per row, the mean over all coordinates of deviation / (spread + floor), as the document has it.

    A score beyond the numbers of the rows' dtype is the greatest float64, so every score is finite.

    Args:
        updates: n >= 2 tensors (d,) or one (n, d) tensor, finite.
        floor: above 0, in units of the rows; what makes the score finite where the spread is 0.
        backend: "compiled" for torch.compile where there is a compiler; scores then differ in their last digits.
    Raises:
        ConfigurationError: the floor is not finite and above 0, or less than float32 (for float64 rows, float64) holds
            with all digits.
        TooFewContributions, NotFinite, LayoutError: for rows that do not fit.
    """
    if not _is_positive(floor):
        raise ConfigurationError(
            setting=f"floor of {_RULE}",
            wanted="finite and above 0",
            got=floor,
            do="take 1e-8 for the document's own score",
        )
    floor = float(floor)
    rows = _checked(updates)
    require_data(_RULE, rows)
    least = torch.finfo(wide_dtype(rows[0].dtype)).tiny
    if floor < least:  # beside a spread of 0 it would be 0 too
        raise ConfigurationError(
            setting=f"floor of {_RULE}",
            wanted=f"at least {least:.3g} for {rows[0].dtype} rows",
            got=floor,
            do="take leave_one_out_ratios, which need none",
        )
    if is_compiled(backend, rows, rule=_RULE):
        kernel = build_leave_one_out(len(rows), rows[0].dtype, rows[0].device)
        if kernel is not None:
            sums, span = kernel(list(rows), torch.tensor(floor, dtype=rows[0].dtype, device=rows[0].device))
            if not math.isfinite(float(span)):
                require_finite(_RULE, rows)
            return tuple(min(float(total) / rows[0].numel(), sys.float_info.max) for total in sums)
    totals = [0.0] * len(rows)

    def add(index: int, low: int, high: int, deviation: Tensor, spread: Tensor) -> None:
        totals[index] += float(deviation.div_(spread.add_(floor)).sum(dtype=torch.float64))

    _visit_all(rows, add)
    return tuple(min(total / max(1, rows[0].numel()), sys.float_info.max) for total in totals)


def leave_one_out_ratios(updates: Updates) -> tuple[float, ...]:
    """Return, per row, the sum of its deviations over the sum of its spreads: free of units, finite for any input.

    A sum of spreads below 1e-6 of the greatest sum of deviations is taken to be that, so where most rows are equal
    scores stay in the order of the deviations. A row equal to most others scores 0.

    Args and Raises: as for ``leave_one_out_scores``.
    """
    rows = _checked(updates)
    require_data(_RULE, rows)
    deviations, spreads = _sum_up(rows, 1.0)
    if not all(map(math.isfinite, (*deviations, *spreads))):  # a difference or a sum overflowed: as many bits less
        deviations, spreads = _sum_up(rows, 2.0 ** -(2 + rows[0].numel().bit_length()))
    greatest = max(deviations)
    return tuple(_ratio(there, spread, greatest) for there, spread in zip(deviations, spreads, strict=True))


def _sum_up(rows: Sequence[Tensor], scale: float) -> tuple[list[float], list[float]]:
    """Return, per row, the sums of deviations and of spreads of rows times ``scale``."""
    deviations, spreads = [0.0] * len(rows), [0.0] * len(rows)

    def add(index: int, low: int, high: int, deviation: Tensor, spread: Tensor) -> None:
        deviations[index] += float(deviation.sum(dtype=torch.float64))
        spreads[index] += float(spread.sum(dtype=torch.float64))

    _visit_all(rows, add, scale=scale)
    return deviations, spreads


def _ratio(deviation: float, spread: float, greatest: float) -> float:
    """Return a deviation over a spread of at least a share of the greatest deviation, however small all of them are."""
    if deviation == 0.0:
        return 0.0
    unit = -math.frexp(greatest)[1]
    return math.ldexp(deviation, unit) / max(math.ldexp(spread, unit), _LEAST_SHARE * math.ldexp(greatest, unit))


def leave_one_out_table(updates: Updates) -> tuple[Tensor, Tensor]:
    """Return all deviations and all spreads, both (n, d) of the accumulating dtype: for diagnosis, it is large."""
    rows = _checked(updates)
    shape, dtype = (len(rows), rows[0].numel()), wide_dtype(rows[0].dtype)
    deviations = torch.empty(shape, dtype=dtype, device=rows[0].device)
    spreads = torch.empty_like(deviations)

    def put(index: int, low: int, high: int, deviation: Tensor, spread: Tensor) -> None:
        deviations[index, low:high] = deviation
        spreads[index, low:high] = spread

    _visit_all(rows, put)
    return deviations, spreads


def _checked(updates: Updates) -> tuple[Tensor, ...]:
    rows = as_rows(updates, rule=_RULE)
    if len(rows) < _LEAST_ROWS:
        raise TooFewContributions(rule=_RULE, faulty_max=None, needed=_LEAST_ROWS, got=len(rows))
    return rows


def _is_positive(value: object) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return 0.0 < float(value) < math.inf
    except OverflowError:
        return False


def _visit_all(rows: Sequence[Tensor], visit: Visit, *, scale: float = 1.0) -> None:
    suspicious = False
    for low, high, values, ordered, scratch in _sorted_blocks(rows, scale):
        suspicious = suspicious or not is_finite_span(ordered[0], ordered[-1])
        _visit_block(low, high, values, ordered, scratch, visit)
    if suspicious:
        require_finite(_RULE, rows)


def _sorted_blocks(
    rows: Sequence[Tensor], scale: float
) -> Iterator[tuple[int, int, Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]]:
    """Yield (low, high, values, ordered, scratch): n rows each, and n + 10 spare ones, all contiguous buffers.

    ``scale`` is a power of 2 that all values are multiplied by.
    """
    count, dtype = len(rows), wide_dtype(rows[0].dtype)
    program = selection_program(count, tuple(range(count))) if count <= NETWORK_MAX else None
    held = count if program is None else program.scratch
    step = choose_block_length(rows[0], rows_held=3 * count + held + _SPARE, least=_LEAST)
    shape = (2 * count + _SPARE + held, min(step, rows[0].numel()))
    buffers = torch.empty(shape, dtype=dtype, device=rows[0].device).unbind(0)
    low = 0
    for pieces in cut_blocks(rows, step):
        size = pieces[0].numel()
        usable = buffers if size == shape[1] else [buffer[:size] for buffer in buffers]
        # Adding 0.0 turns -0.0 into 0.0, which the selection by bits below needs.
        values = [torch.add(piece, 0.0, out=out) for piece, out in zip(pieces, usable[:count], strict=True)]
        if scale != 1.0:
            values = [value.mul_(scale) for value in values]
        if program is None:
            ordered: Sequence[Tensor] = torch.stack(values).sort(dim=0).values.unbind(0)
        else:
            places = run_program(program, [*values, *usable[2 * count + _SPARE :]])
            ordered = [places[rank] for rank in range(count)]
        yield low, low + size, values, ordered, usable[count : 2 * count + _SPARE]
        low += size


def _visit_block(
    low: int, high: int, values: Sequence[Tensor], s: Sequence[Tensor], scratch: Sequence[Tensor], visit: Visit
) -> None:
    k = (len(values) - 2) // 2  # rank of the lower median among n - 1 values
    low0, low1, high0, high1, low_flip, high_flip, above, below, deviation, spare = scratch[:_SPARE]
    _write_spread_pair(s, k, k, (low0, low1), scratch[_SPARE:], spare)
    _write_spread_pair(s, k + 1, k, (high0, high1), scratch[_SPARE:], spare)
    kind, sign = _BITS[spare.dtype]
    low_bits = torch.bitwise_xor(low0.view(kind), low1.view(kind), out=low_flip.view(kind))
    high_bits = torch.bitwise_xor(high0.view(kind), high1.view(kind), out=high_flip.view(kind))
    above_bits, below_bits, mask = above.view(kind), below.view(kind), spare.view(kind)
    for index, x in enumerate(values):
        # The median without x is s[k] if x lies above it, else s[k + 1].
        torch.sub(x, s[k], out=above)
        torch.sub(s[k + 1], x, out=below)
        torch.maximum(above, below, out=deviation)
        torch.sub(s[k], x, out=spare)
        mask.bitwise_right_shift_(sign)
        # Of the two candidates for a spread, the one that x's own deviation is not: t0 ^ t1 ^ clamp(deviation, t0, t1).
        torch.clamp(above, low0, low1, out=above)
        torch.clamp(below, high0, high1, out=below)
        above_bits.bitwise_xor_(low_bits)
        below_bits.bitwise_xor_(high_bits)
        below_bits.bitwise_xor_(above_bits.bitwise_xor_(below_bits).bitwise_and_(mask))
        visit(index, low, high, deviation, below)


def _write_spread_pair(
    s: Sequence[Tensor], centre: int, k: int, out: tuple[Tensor, Tensor], room: Sequence[Tensor], spare: Tensor
) -> None:
    """Write the k-th and (k+1)-th smallest of |s[r] - s[centre]| over all r; ``room`` is n buffers."""
    for rank, target in enumerate(room):
        if rank <= centre:
            torch.sub(s[centre], s[rank], out=target)
        else:
            torch.sub(s[rank], s[centre], out=target)
    # Going away from the centre, the deviations to either side ascend: two sorted lists.
    down, up = list(room[centre::-1]), list(room[centre + 1 :])
    _write_merged(down, up, k, out[0], spare)
    _write_merged(down, up, k + 1, out[1], spare)


def _write_merged(down: Sequence[Tensor], up: Sequence[Tensor], k: int, out: Tensor, spare: Tensor) -> None:
    """Write the k-th smallest of two ascending lists: the least, over all ways to take k + 1, of the greatest taken."""
    first = True
    for taken in range(max(0, k + 1 - len(up)), min(len(down), k + 1) + 1):
        ends = ([down[taken - 1]] if taken else []) + ([up[k - taken]] if taken <= k else [])
        greatest = ends[0] if len(ends) == 1 else torch.maximum(ends[0], ends[1], out=spare)
        if first:
            out.copy_(greatest)
        else:
            torch.minimum(out, greatest, out=out)
        first = False
