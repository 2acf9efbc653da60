"""The geometric median of many rows by sweeps over the data, where an n x n Gram matrix would cost more.

Each Weiszfeld step is one pass: in every cached block of coordinates the point y = sum a_i z_i is formed and the rows'
products with it are taken. Rows in high dimension converge in a few steps; where they do not, or the point comes near
an input, the caller turns to the Gram matrix and Newton's method.

Source: HQDE clause 4.7; Weiszfeld 1937.
Pure: no clock, no randomness, no input or output; arguments are never changed. It promises no convergence: None means
that the steps did not contract.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hqde_ref.core.kernels.centres import choose_centre, is_wide_sample
from hqde_ref.core.kernels.gram_blocks import centred_blocks
from hqde_ref.core.kernels.rows import new_row

__all__ = ["SWEEP_ROWS", "Swept", "sweep_median"]

SWEEP_ROWS = 129  # from so many rows on, a few passes are cheaper than n * n / 2 products per coordinate
_STEPS_MAX = 15
_CONTRACTION = 0.4
_TOLERANCE = 1e-7


class Swept(NamedTuple):
    """A geometric median (d,), each row's distance from it, (n,) float64, and a bound on the subgradient's norm there.

    The bound is for weights as given, and as good as float32 products are.
    """

    row: Tensor
    far: Tensor
    gradient_norm: float


def sweep_median(rows: Sequence[Tensor], weights: Sequence[float]) -> Swept | None:
    """Return the geometric median of rows (d,) in content order, or None where sweeps do not settle it.

    Args:
        rows: n tensors (d,) of one floating dtype.
        weights: n positive numbers of any sum.
    """
    centre = choose_centre(rows, weights)
    base = None if is_wide_sample(rows, centre) else centre
    w = torch.tensor(weights, dtype=torch.float64, device=rows[0].device)
    w = w / w.sum()
    result = new_row(rows[0])
    shares = torch.zeros_like(w)
    shares[centre] = 1.0
    squares, change = None, float("inf")
    for step in range(_STEPS_MAX):
        far, squares = _sweep(rows, base, shares, squares, result)
        if step == 0:
            far[centre] = torch.inf  # leave the row started from
        if not bool((far > 1e-3 * far.median()).all()) or not bool(torch.isfinite(squares).all()):
            return None
        pulls = w / far
        after = pulls / pulls.sum()
        last, change = change, float((after - shares).abs().sum())
        if change <= _TOLERANCE:
            # R = sum of pulls * (row - y) = their total * sum of (after - shares) * (row - y), since y is the blend.
            leaning = float(pulls.sum() * ((after - shares).abs() * far).sum())
            return Swept(row=result, far=far, gradient_norm=leaning * math.fsum(weights))
        if step > 1 and change > _CONTRACTION * last and change > 10 * _TOLERANCE:
            return None
        shares = after
    return None


def _sweep(
    rows: Sequence[Tensor], base: int | None, shares: Tensor, squares: Tensor | None, result: Tensor
) -> tuple[Tensor, Tensor]:
    """Write base + sum shares * (row - base) to ``result``; return the rows' distances from it and their squares."""
    found = torch.zeros_like(shares) if squares is None else squares
    products, own = torch.zeros_like(shares), torch.zeros((), dtype=torch.float64, device=shares.device)
    for low, high, block in centred_blocks(rows, base, (0,) * len(rows)):
        point = torch.mv(block.T, shares.to(block.dtype))
        products += torch.mv(block, point)
        own += torch.dot(point, point)
        if squares is None:
            found += torch.linalg.vector_norm(block, dim=1).to(torch.float64).square()
        result[low:high] = point if base is None else point.add_(rows[base][low:high])
    return (found - 2.0 * products + own).clamp_min(0.0).sqrt(), found
