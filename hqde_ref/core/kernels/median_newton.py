"""The geometric median in the space of n coefficients: an n x n problem once the Gram matrix is known.

Minimises f(y) = sum_i w_i |z_i - y| over y = sum_j b_j h_j, h_j being the unit vector along z_j. The exact test of
Vardi and Zhang decides whether an input is the optimum; otherwise Newton steps (by Woodbury, n x n) go down from
the best input, with Weiszfeld's step to fall back on. All comparisons of f are made in difference form, since
distant rows drown them otherwise.

Source: HQDE clause 4.7 (erratum E11: Weiszfeld sticks on inputs, an absolute stop returns the mean); Weiszfeld
1937; Vardi and Zhang 2000 (PNAS 97).
Pure: no clock, no randomness, no input or output; arguments are never changed. It is as good as the Gram matrix;
``certify_geometric_median`` judges the output against the rows themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hqde_ref.core.kernels.gram import NEAR, Gram, content_gram, distances, product_sizes

__all__ = ["MedianSolution", "distances_to", "find_median", "solve_median"]

# n x n arithmetic is done in NumPy on the CPU: small operations cost a third of torch's there.
Array = NDArray[np.float64]

_EQUAL = 1e-12
_STEPS_MAX = 300
_RECENTRE_MAX = 4
_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class MedianSolution:
    """Where the geometric median lies.

    coefficients: (n,) float64 along the unit vectors from the centre, in units of 2**gram.unit.
    shares: (n,) float64, at least 0 and of sum 1: the same point as a mean of the rows, whatever the centre.
    at: the input that is the optimum, or None.
    near: an input so close to the optimum, or to others that are, that only a Gram matrix around it has the digits to
        decide, or None.
    gradient_norm: |gradient of f| for weights of sum 1, as the Gram matrix sees it; 0 where an input is optimal.
    """

    coefficients: Tensor
    shares: Tensor
    at: int | None
    near: int | None
    gradient_norm: float


def solve_median(gram: Gram, weights: Sequence[float], *, tolerance: float = 1e-13) -> MedianSolution:
    """Return the minimiser of the weighted sum of distances; the midpoint where a whole segment minimises it.

    Args:
        gram: of n rows, equal ones at distance exactly 0 (as ``content_gram`` gives).
        weights: n positive numbers of any sum.
        tolerance: stop at this gradient norm, for weights of sum 1.
    """
    w = np.asarray(weights, dtype=np.float64)
    w = w / w.max()
    w = w / w.sum()
    h, r, far = gram.cosines.cpu().numpy(), gram.norms.cpu().numpy(), distances(gram).cpu().numpy()
    excess = _excess(h, r, far, w)
    start = int(excess.argmin())
    pull, pull_norm = _pull(h, r, far[start], w, start)
    own = float(w[far[start] <= 0.0].sum())
    sizes = product_sizes(gram).cpu().numpy()
    beside = far[start] ** 2 < NEAR * np.maximum(sizes, sizes[start])
    beside[start] = False
    near: int | None = start if pull_norm <= 1.01 * own or bool(beside.any()) else None
    at: int | None = None
    norm, b, shares = 0.0, np.zeros_like(w), np.zeros_like(w)
    b[start], shares[start] = r[start], 1.0
    # Where an input is optimal to the precision of the products, a point beside it would be worse.
    if pull_norm <= own * (1.0 + max(_EQUAL, len(w) ** 2 * gram.error)):
        twin = _twin(w, far[start], excess, start) if pull_norm >= own * (1.0 - 1e-9) else None
        if twin is None:
            at, norm = start, max(0.0, pull_norm - own)
        else:  # all between the two is optimal: take the middle
            b /= 2.0
            b[twin] += r[twin] / 2.0
            shares[[start, twin]] = 0.5
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # a step that overflows is not taken
            b, norm = _descend(h, r, w, b + pull * (1.0 - own / pull_norm), tolerance)
            # Weiszfeld's weights at the optimum give the optimum.
            last = _distances_to(h, r, b)
            pulls = w / last
            shares = pulls / pulls.sum()
        closest = int(last.argmin())
        if near is None and last[closest] ** 2 < NEAR * sizes[closest]:
            near = closest
    coefficients, convex = (torch.from_numpy(found).to(gram.norms.device) for found in (b, shares))
    return MedianSolution(coefficients=coefficients, shares=convex, at=at, near=near, gradient_norm=norm)


def find_median(
    rows: Sequence[Tensor], *, rule: str, weights: Sequence[float]
) -> tuple[tuple[int, ...], Gram, MedianSolution]:
    """Return the rows' order by content, their Gram matrix in it around a row with digits to decide, and the median.

    Args:
        rows: n tensors (d,) of one floating dtype.
        rule: who asks; errors name it.
        weights: n positive numbers, in the order of ``rows``.
    Raises:
        NotFinite, LayoutError: for rows that do not fit.
    """
    order, gram = content_gram(rows, rule=rule, weights=weights)
    solution = solve_median(gram, [weights[index] for index in order])
    for _ in range(_RECENTRE_MAX):
        if solution.near is None or (gram.norms[solution.near] == 0.0 and not gram.by_origin):
            break
        order, gram = content_gram(rows, rule=rule, weights=weights, centre=order[solution.near])
        solution = solve_median(gram, [weights[index] for index in order])
    return order, gram, solution


def distances_to(gram: Gram, solution: MedianSolution) -> Tensor:
    """Return each row's distance from the solution, (n,) float64, in units of 2**gram.unit; 0 where they are equal."""
    b = solution.coefficients
    along = gram.cosines @ b
    squares = gram.norms**2 - 2.0 * gram.norms * along + b @ along
    if solution.at is not None:
        place = solution.at
        ray = (gram.cosines[place] >= 1.0) | (gram.norms[place] == 0.0)
        squares = torch.where((gram.norms == gram.norms[place]) & ray, 0.0, squares)
    return squares.clamp_min(0.0).sqrt()


def _excess(h: Array, r: Array, far: Array, w: Array) -> Array:
    """Return f(z_k) - f(centre) for every k, term by term in difference form."""
    difference = r * r - 2.0 * (r[:, None] * r) * h  # |z_i - z_k|^2 - |z_i|^2, row i, column k
    np.fill_diagonal(difference, -r * r)
    found: Array = w @ (difference / np.maximum(far + r[:, None], 1e-300))
    return found


def _pull(h: Array, r: Array, far: Array, w: Array, k: int) -> tuple[Array, float]:
    """Return Weiszfeld's step off row k and |R_k|, R_k the weighted sum of unit vectors from row k to the others."""
    there = far <= 0.0
    pulls = np.where(there, 0.0, w / np.where(there, 1.0, far))
    direction = pulls * r
    direction[k] -= pulls.sum() * r[k]
    return direction / max(float(pulls.sum()), 1e-300), _norm(direction, h @ direction)


def _norm(vector: Array, image: Array) -> float:
    return float(np.sqrt(max(float(vector @ image), 0.0)))


def _twin(w: Array, far: Array, excess: Array, k: int) -> int | None:
    """Return a row elsewhere that is as good as row k, at distances ``far`` from it, or None."""
    # f cannot change by more than the way between two rows: near each other, they are equal only to a part of that.
    scale = np.minimum(float((w * np.minimum(far, 2.0)).sum()), far)
    equal = (excess - excess[k] <= _EQUAL * scale) & (far > 0.0)
    return int(equal.argmax()) if bool(equal.any()) else None


def _descend(h: Array, r: Array, w: Array, b: Array, tolerance: float) -> tuple[Array, float]:
    """Follow Newton steps from ``b`` until the gradient is below ``tolerance`` or no step descends in float64."""
    norm = float("inf")
    for _ in range(_STEPS_MAX):
        far = _distances_to(h, r, b)
        pulls = w / far
        total = float(pulls.sum())
        gradient = total * b - pulls * r
        image = h @ gradient
        norm = _norm(gradient, image)
        if norm <= tolerance:
            break
        moved = False
        for step in (_newton_step(h, r, b, far, pulls, gradient, image), -gradient / total):
            length = 0.0 if step is None else _best_length(h, r, w, b, far, step)
            if step is not None and length > 0.0:
                b, moved = b + length * step, True
                break
        if not moved:
            break
    return b, norm


def _distances_to(h: Array, r: Array, b: Array) -> Array:
    along = h @ b
    found: Array = np.sqrt(np.maximum(r * r - 2.0 * r * along + b @ along, 1e-290))
    return found


def _newton_step(h: Array, r: Array, b: Array, far: Array, pulls: Array, gradient: Array, image: Array) -> Array | None:
    """Return -(S I - U U^T)^-1 gradient by Woodbury; U's columns are sqrt(w_i / d_i) times the unit vectors to z_i."""
    units = (np.diag(r) - b[:, None]) * (np.sqrt(pulls) / far)
    system = -(units.T @ (h @ units))
    total = float(pulls.sum())
    np.fill_diagonal(system, system.diagonal() + total * (1.0 + 1e-12))
    try:
        step: Array = -(gradient + units @ np.linalg.solve(system, units.T @ image)) / total
    except np.linalg.LinAlgError:
        return None
    return step if bool(np.isfinite(step).all()) else None


def _best_length(h: Array, r: Array, w: Array, b: Array, far: Array, step: Array) -> float:
    """Return which of a few step lengths lowers f most, or 0.0; the change of f is summed as differences."""
    image = h @ step
    linear, square = 2.0 * (b @ image - r * image), float(step @ image)
    best, lowest = 0.0, 0.0
    for length in _LENGTHS:
        change = length * linear + length * length * square
        difference = float(w @ (change / (far + np.sqrt(np.maximum(far * far + change, 0.0)))))
        if difference < lowest:
            best, lowest = length, difference
        elif best > 0.0:
            break
    return best
