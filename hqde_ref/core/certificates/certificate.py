"""What a certificate holds, and what all certificates look at: rows and outputs that fit, differences in float64.

Source: HQDE clauses 4.5, 4.7 and 6.7.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hqde_ref.core.kernels.rows import (
    FLOATS,
    Updates,
    as_rows,
    cut_blocks,
    require_data,
    require_finite,
    require_finite_part,
)
from hqde_ref.errors import LayoutError

__all__ = ["Certificate", "Judged", "judge", "name_faulty"]

_BLOCK_VALUES = 1 << 19
_LARGEST, _SMALLEST, _DEEPEST = 1023, -900, 1000  # binary exponents; 2**1000 is still a number
_SQUARES = 1e100  # squares of what is smaller, and of all types narrower than float64, fit into float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What is known about an output.

    rule: the rule that the output is judged by.
    count, faulty_max: n rows, of which f may be anything.
    excess: how far the output is from all that the certificate cannot tell from right; 0.0 is the best. For the
        geometric median the subgradient norm over the sum of weights; for Krum the score over the best score, less 1;
        for all others, in the units of the rows, how far a coordinate lies from the rule's own in float64, so that
        rounding shows.
    because: one sentence for a person.
    subgradient_norm: G, the least norm of a subgradient of the weighted sum of distances at the output (geometric
        median only); in units of weight, so that 1 is one contribution's pull.
    gap: upper bound on f(output) - min f, in units of distance times weight (geometric median only).
    rank_interval: (a, b), 1-based: every coordinate of the output lies between the a-th and the b-th smallest value of
        it, 0 being below all and n + 1 above all rows (coordinate-wise rules only); a > f and b <= n - f prove that it
        is inside the honest range.
    score_order: the rows by Krum score, lowest first (Krum and Multi-Krum only).
    margin: by what share of it the lowest score left out is above the highest counted in, or None where no row is
        left out (Multi-Krum only). Where that is below what rounding does to distances (some 1e-6 in float32),
        another choice is as right, and an excess decides nothing.
    radius_factor: C such that |output - z| <= aside + C * max over honest i of |x_i - z| for every z, or None where f
        and G are too large for such a bound (geometric median only).
    aside: 0.0, or how far the output lies from the row that is judged in its place, being that row but for rounding:
        beside an optimal row, however near, the pull of that row is left (geometric median only).
    blocks: the certificate of each block of coordinates (blockwise geometric median only).
    """

    rule: str
    count: int
    faulty_max: int
    excess: float
    because: str
    subgradient_norm: float | None = None
    gap: float | None = None
    radius_factor: float | None = None
    rank_interval: tuple[int, int] | None = None
    score_order: tuple[int, ...] | None = None
    margin: float | None = None
    aside: float = 0.0
    blocks: tuple[Certificate, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Rows and an output that fit together, seen in units of 2**unit where float64 ends; all else is in these units.

    rows: n tensors (d,), as they were given.
    point: the output, (d,) float64, in units of 2**unit.
    dtype: the output's own.
    unit: 0 but for float64 numbers so large that distances could overflow, or so small that they could vanish.
    """

    rows: tuple[Tensor, ...]
    point: Tensor
    dtype: torch.dtype
    unit: int

    def among(self, places: Sequence[int]) -> Judged:
        """The same with these rows alone."""
        return replace(self, rows=tuple(self.rows[place] for place in places))

    def cut(self, low: int, high: int) -> Judged:
        """The same in the coordinates low..high - 1 alone."""
        return replace(self, rows=tuple(row[low:high] for row in self.rows), point=self.point[low:high])

    def place_of(self, index: int) -> Tensor:
        """Return a row, (d,) float64, in units of 2**unit."""
        return _in_unit(self.rows[index].to(torch.float64), self.unit)

    def differences_to(self, point: Tensor) -> Iterator[Tensor]:
        """Yield (n, m) float64 blocks of rows - point; the buffer is reused."""
        step, length = max(256, _BLOCK_VALUES // len(self.rows)), point.numel()
        if length == 0:
            return
        buffer = torch.empty(len(self.rows) * min(step, length), dtype=torch.float64, device=point.device)
        for pieces in cut_blocks([*self.rows, point], step):
            block = buffer[: len(self.rows) * pieces[-1].numel()].view(len(self.rows), -1)
            for out, piece in zip(block.unbind(0), pieces[:-1], strict=True):
                out.copy_(piece)
            if self.unit:
                block.mul_(2.0**-self.unit)
            yield block.sub_(pieces[-1])

    def distances_to(self, point: Tensor) -> Tensor:
        """Return |x_i - point|, (n,) float64 on the CPU, without overflow or underflow on squaring."""
        squares = torch.zeros(len(self.rows), dtype=torch.float64, device=point.device)
        if self.rows[0].dtype != torch.float64 and _largest(point) < _SQUARES:
            for block in self.differences_to(point):
                squares += block.square_().sum(dim=1)
            return squares.sqrt().cpu()
        tops = torch.zeros_like(squares)
        for block in self.differences_to(point):
            tops = torch.maximum(tops, block.abs().amax(dim=1))
        tops.clamp_min_(1e-300)
        for block in self.differences_to(point):
            squares += block.div_(tops[:, None]).square_().sum(dim=1)
        return (squares.sqrt() * tops).cpu()


def _largest(row: Tensor) -> float:
    """Return the greatest absolute value, 0.0 of none; nothing is copied."""
    return max(-float(row.min()), float(row.max())) if row.numel() else 0.0


def _in_unit(row: Tensor, unit: int) -> Tensor:
    return row * 2.0**-unit if unit else row


def judge(rule: str, updates: Updates, output: Tensor) -> Judged:
    """Return the rows and the output, after checking that both are finite and fit together.

    Raises:
        TooFewContributions, LayoutError, NotFinite: for rows or an output that do not fit.
    """
    rows = as_rows(updates, rule=rule)
    what = f"output of {rule}"
    if not isinstance(output, Tensor):
        raise LayoutError(what=what, wanted="a torch tensor", got=type(output).__name__, do="pass the rule's result")
    if output.is_nested or output.layout != torch.strided:
        raise LayoutError(
            what=what,
            wanted="a dense row",
            got="a nested tensor" if output.is_nested else f"a {output.layout} one",
            do="call to_dense() first",
        )
    if output.shape != rows[0].shape or output.device != rows[0].device or output.dtype not in FLOATS:
        raise LayoutError(
            what=what,
            wanted=f"a float16, bfloat16, float32 or float64 row of {rows[0].numel()} on {rows[0].device}",
            got=f"{tuple(output.shape)} {output.dtype} on {output.device}",
            do="pass the rule's result",
        )
    require_data(rule, rows)
    require_finite(rule, rows)
    require_finite_part(rule, "the output", output, do="do not use it: no rule makes that of finite rows")
    point = output.detach().to(torch.float64)
    unit = _choose_unit(rows, point)
    return Judged(rows=rows, point=_in_unit(point, unit), dtype=output.dtype, unit=unit)


def _choose_unit(rows: Sequence[Tensor], point: Tensor) -> int:
    """Return 0, or a unit in which neither n distances over d coordinates overflow nor the largest entry vanishes."""
    wide = (*rows, point) if rows[0].dtype == torch.float64 else (point,)  # narrower rows fit whatever they hold
    size = math.frexp(max(map(_largest, wide)))[1]
    room = 4 + point.numel().bit_length() // 2 + len(rows).bit_length()
    if size > _LARGEST - room:
        return size + room - _LARGEST
    return max(size, -_DEEPEST) if size < _SMALLEST and len(wide) > 1 else 0


def name_faulty(faulty_max: int) -> str:
    """Return "1 faulty row", "2 faulty rows" and so on."""
    return "1 faulty row" if faulty_max == 1 else f"{faulty_max} faulty rows"
