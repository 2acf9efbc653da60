"""Coordinate-wise order statistics in cache-sized blocks.

Up to 48 rows a pruned comparator network runs over blocks of the rows themselves; beyond that a block is transposed
and sorted (by NumPy on the CPU, whose vector sort no network beats there). Both give the same values, and the
result of every function here depends on the multiset of values in a coordinate only, to the bit.

Source: HQDE clauses 0.3, 0.5, 0.9, 4.5.
Pure: no clock, no randomness, no input or output; arguments are never changed. One policy on every path: NaN and
infinities are refused by name. 16-bit rows are ordered and averaged in float32, and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hqde_ref.core.kernels.compiled import Backend, bits_of, build_middle_mean, is_compiled
from hqde_ref.core.kernels.networks import Program, selection_program
from hqde_ref.core.kernels.rows import choose_block_length, cut_blocks, new_row, rejoin, require_finite, wide_dtype

__all__ = [
    "NETWORK_MAX",
    "Ordered",
    "is_finite_span",
    "mean_of_middle",
    "median_rows",
    "ordered_blocks",
    "run_program",
    "write_rank_mean",
]

# The values of one block by rank: a mapping from the ranks asked for, or an (n, m) tensor with rank k in row k.
Ordered: TypeAlias = Mapping[int, Tensor] | Tensor

NETWORK_MAX = 48
_SORT_VALUES = 1 << 18
_STAGED_VALUES = 1 << 21


def ordered_blocks(rows: Sequence[Tensor], ranks: Sequence[int], *, rule: str) -> Iterator[tuple[int, int, Ordered]]:
    """Yield (low, high, ordered) block by block; ``ordered[k]`` is the k-th smallest value of each coordinate.

    Values are of the accumulating dtype and are buffers: good until the next block, never to be written to.

    Raises:
        NotFinite: after the last block, if any row held NaN or an infinity.
    """
    count = len(rows)
    wanted = tuple(sorted({0, *ranks, count - 1}))
    blocks = _network_blocks(rows, wanted) if count <= NETWORK_MAX else _sorted_blocks(rows)
    suspicious = False
    for low, high, ordered in blocks:
        suspicious = suspicious or not is_finite_span(ordered[0], ordered[count - 1])
        yield low, high, ordered
    if suspicious:
        require_finite(rule, rows)


def is_finite_span(lowest: Tensor, highest: Tensor) -> bool:
    """Ask whether all values between the two ends of sorted blocks are finite; False may also mean an overflow.

    NaN is carried to both ends by networks, and sorted last.
    """
    return lowest.is_meta or math.isfinite(float(torch.sub(highest, lowest).sum()))


def _network_blocks(rows: Sequence[Tensor], ranks: tuple[int, ...]) -> Iterator[tuple[int, int, Ordered]]:
    program = selection_program(len(rows), ranks)
    length, dtype = rows[0].numel(), wide_dtype(rows[0].dtype)
    copies = len(rows) if rows[0].dtype != dtype else 0
    step = choose_block_length(rows[0], rows_held=len(rows) + program.scratch)
    buffers = torch.empty(copies + program.scratch, min(step, length), dtype=dtype, device=rows[0].device).unbind(0)
    low = 0
    for columns in cut_blocks(rows, step):
        size = columns[0].numel()
        usable = list(buffers) if size == step else [buffer[:size] for buffer in buffers]
        inputs = [target.copy_(column) for target, column in zip(usable, columns, strict=False)] if copies else columns
        yield low, low + size, run_program(program, [*inputs, *usable[copies:]])
        low += size


def run_program(program: Program, registers: Sequence[Tensor]) -> dict[int, Tensor]:
    """Run the steps over registers (inputs, then scratch) of equal length; return rank -> register."""
    minimum, maximum = torch.minimum, torch.maximum
    for is_maximum, first, second, target in program.steps:
        (maximum if is_maximum else minimum)(registers[first], registers[second], out=registers[target])
    return {rank: registers[place] for rank, place in program.places.items()}


def _sorted_blocks(rows: Sequence[Tensor]) -> Iterator[tuple[int, int, Ordered]]:
    count, length, dtype = len(rows), rows[0].numel(), wide_dtype(rows[0].dtype)
    step = max(64, min(4096, _SORT_VALUES // count // 16 * 16))
    if rows[0].device.type != "cpu":
        step = choose_block_length(rows[0], rows_held=count)
    buffer = torch.empty(min(step, length), count, dtype=dtype, device=rows[0].device)
    low = 0
    for columns in _columns(rows, step):
        high = low + columns.shape[1]
        block = buffer[: high - low]
        block.copy_(columns.T)
        yield low, high, _sort_last(block).T
        low = high


def _columns(rows: Sequence[Tensor], step: int) -> Iterator[Tensor]:
    """Yield (n, m) tensors of ``step`` coordinates of all rows: views of an arena, else copies in one buffer."""
    joined = rejoin(rows)
    if joined is not None:  # in what order the rows are stored does not matter here
        yield from torch.split(joined.arena, step, dim=1)
        return
    # Many rows at once: slicing and stacking narrow pieces would cost more than sorting them.
    width = max(step, _STAGED_VALUES // len(rows) // step * step)
    staging = torch.empty(len(rows) * min(width, rows[0].numel()), dtype=rows[0].dtype, device=rows[0].device)
    for pieces in cut_blocks(rows, width):
        size = pieces[0].numel()
        yield from torch.split(torch.stack(pieces, out=staging[: len(rows) * size].view(len(rows), size)), step, dim=1)


def _sort_last(block: Tensor) -> Tensor:
    if block.device.type != "cpu":
        return block.sort(dim=1).values
    block.numpy().sort(axis=-1)
    return block


def write_rank_mean(ordered: Ordered, low: int, high: int, *, out: Tensor) -> None:
    """Write the mean of ranks low..high-1, added in rank order, to ``out`` (accumulating dtype).

    They are halved until the sum of as many of the greatest numbers does not overflow, which costs no digit.
    """
    halving = 2.0 ** -(high - low).bit_length()
    if isinstance(ordered, Tensor):
        torch.sum(ordered[low:high] * halving, dim=0, out=out)
    else:
        torch.mul(ordered[low], halving, out=out)
        for rank in range(low + 1, high):
            out.add_(ordered[rank], alpha=halving)
    out.mul_(1.0 / ((high - low) * halving))


def median_rows(rows: Sequence[Tensor], *, lower: bool, rule: str, backend: Backend = "eager") -> Tensor:
    """Return the coordinate-wise median, (d,): the lower middle value, or the midpoint of the two middle ones."""
    count = len(rows)
    below, above = (count - 1) // 2, (count - 1) // 2 if lower else count // 2
    compiled = _compiled_mean(rows, below, above + 1, rule, backend)
    if compiled is not None:
        return compiled
    result = new_row(rows[0])
    for low, high, ordered in ordered_blocks(rows, (below, above), rule=rule):
        if below == above:
            result[low:high] = ordered[below]
        else:
            # Halves first: the sum of two of the greatest numbers would overflow.
            result[low:high] = (ordered[below] * 0.5).add_(ordered[above], alpha=0.5)
    return result


def mean_of_middle(rows: Sequence[Tensor], *, trimmed: int, rule: str, backend: Backend = "eager") -> Tensor:
    """Return the mean of each coordinate without its ``trimmed`` smallest and largest values, (d,)."""
    count = len(rows)
    compiled = _compiled_mean(rows, trimmed, count - trimmed, rule, backend)
    if compiled is not None:
        return compiled
    result = new_row(rows[0])
    for low, high, ordered in ordered_blocks(rows, range(trimmed, count - trimmed), rule=rule):
        part = torch.empty(high - low, dtype=ordered[0].dtype, device=result.device)
        write_rank_mean(ordered, trimmed, count - trimmed, out=part)
        # Clamping to the values kept undoes the rounding of the mean: equal values give that value.
        torch.maximum(part, ordered[trimmed], out=part)
        result[low:high] = torch.minimum(part, ordered[count - 1 - trimmed], out=part)
    return result


def _compiled_mean(rows: Sequence[Tensor], low: int, high: int, rule: str, backend: Backend) -> Tensor | None:
    """Return the mean of ranks low..high-1 by the compiled kernel, or None if there is none."""
    if not is_compiled(backend, rows, rule=rule):
        return None
    kernel = build_middle_mean(len(rows), low, high, rows[0].dtype, rows[0].device)
    if kernel is None:
        return None
    result = new_row(rows[0])
    if not math.isfinite(float(kernel(bits_of(rows), result))):
        require_finite(rule, rows)
    return result
