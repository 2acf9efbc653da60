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

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import Gram, distances

__all__ = ["MedianSolution", "measure_solution", "solve_median"]

_EQUAL = 1e-12
_STEPS_MAX = 300
_LENGTHS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class MedianSolution:
    """Where the geometric median lies.

    coefficients: (n,) float64 along the unit vectors from the centre, in units of 2**gram.unit.
    at: the input that is the optimum, or None.
    near: the input that is the optimum or so nearly one that the Gram matrix should be centred on it, or None.
    gradient_norm: |gradient of f| for weights of sum 1, as the Gram matrix sees it; 0 where an input is optimal.
    """

    coefficients: Tensor
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
    w = torch.tensor(weights, dtype=torch.float64, device=gram.norms.device)
    w = w / w.sum()
    far = distances(gram)
    excess = _excess(gram, w, far)
    start = int(excess.argmin())
    pull, pull_norm = _pull(gram, w, far[start], start)
    own = float(w[far[start] <= 0.0].sum())
    near = start if pull_norm <= 1.01 * own else None
    b = torch.zeros_like(w)
    b[start] = gram.norms[start]
    if pull_norm <= own * (1.0 + _EQUAL):
        twin = _twin(w, far[start], excess, start) if pull_norm >= own * (1.0 - 1e-9) else None
        if twin is not None:  # all between the two is optimal: take the middle
            b /= 2.0
            b[twin] += gram.norms[twin] / 2.0
        return MedianSolution(coefficients=b, at=start if twin is None else None, near=start, gradient_norm=0.0)
    b, norm = _descend(gram, w, b + pull * (1.0 - own / pull_norm), tolerance)
    return MedianSolution(coefficients=b, at=None, near=near, gradient_norm=norm)


def measure_solution(gram: Gram, weights: Sequence[float], solution: MedianSolution) -> tuple[Tensor, float, float]:
    """Return distances from the solution in units of 2**gram.unit, (n,), the pull left there, and its steepness.

    The pull is |R| less the weight that lies at the solution: an optimum where it is not above 0. Steepness: by how
    much R changes at most for a small step of length 1, in those units.
    """
    w = torch.tensor(weights, dtype=torch.float64, device=gram.norms.device)
    b = solution.coefficients
    far = _distances_to(gram, gram.cosines @ b, b) if solution.at is None else distances(gram)[solution.at]
    there = far <= 0.0
    pulls = torch.where(there, 0.0, w / torch.where(there, 1.0, far))
    residue = pulls.sum() * b - pulls * gram.norms
    norm = float((residue @ (gram.cosines @ residue)).clamp_min(0.0).sqrt()) - float(w[there].sum())
    return far, norm, float(pulls.sum())


def _excess(gram: Gram, w: Tensor, far: Tensor) -> Tensor:
    """Return f(z_k) - f(centre) for every k, term by term in difference form."""
    r = gram.norms
    difference = r * r - 2.0 * (r[:, None] * r) * gram.cosines  # |z_i - z_k|^2 - |z_i|^2, row i, column k
    difference.diagonal().copy_(-r * r)
    return ((w[:, None] * difference) / (far + r[:, None]).clamp_min(1e-300)).sum(dim=0)


def _pull(gram: Gram, w: Tensor, far: Tensor, k: int) -> tuple[Tensor, float]:
    """Return Weiszfeld's step off row k and |R_k|, R_k the weighted sum of unit vectors from row k to the others."""
    there = far <= 0.0
    pulls = torch.where(there, 0.0, w / torch.where(there, 1.0, far))
    direction = pulls * gram.norms
    direction[k] -= pulls.sum() * gram.norms[k]
    norm = float((direction @ (gram.cosines @ direction)).clamp_min(0.0).sqrt())
    return direction / pulls.sum().clamp_min(1e-300), norm


def _twin(w: Tensor, far: Tensor, excess: Tensor, k: int) -> int | None:
    """Return a row elsewhere that is as good as row k, at distances ``far`` from it, or None."""
    scale = float((w * far.clamp_max(2.0)).sum())
    equal = (excess - excess[k] <= _EQUAL * scale) & (far > 0.0)
    return int(equal.nonzero()[0]) if bool(equal.any()) else None


def _descend(gram: Gram, w: Tensor, b: Tensor, tolerance: float) -> tuple[Tensor, float]:
    """Follow Newton steps from ``b`` until the gradient is below ``tolerance`` or no step descends in float64."""
    norm = float("inf")
    for _ in range(_STEPS_MAX):
        along = gram.cosines @ b
        far = _distances_to(gram, along, b)
        pulls = w / far
        total = pulls.sum()
        gradient = total * b - pulls * gram.norms
        image = gram.cosines @ gradient
        norm = float((gradient @ image).clamp_min(0.0).sqrt())
        if norm <= tolerance:
            break
        newton = _newton_step(gram, b, far, pulls, gradient, image)
        moved = False
        for step in (newton, -gradient / total):
            length = 0.0 if step is None else _best_length(gram, w, b, along, far, step)
            if step is not None and length > 0.0:
                b, moved = b + length * step, True
                break
        if not moved:
            break
    return b, norm


def _distances_to(gram: Gram, along: Tensor, b: Tensor) -> Tensor:
    r = gram.norms
    return (r * r - 2.0 * r * along + b @ along).clamp_min_(1e-290).sqrt_()


def _newton_step(gram: Gram, b: Tensor, far: Tensor, pulls: Tensor, gradient: Tensor, image: Tensor) -> Tensor | None:
    """Return -(S I - U U^T)^-1 gradient by Woodbury; U's columns are sqrt(w_i / d_i) times the unit vectors to z_i."""
    units = (torch.diag(gram.norms) - b[:, None]) * (pulls.sqrt() / far)
    kernel = units.T @ (gram.cosines @ units)
    total = pulls.sum()
    eye = torch.eye(len(b), dtype=b.dtype, device=b.device)
    factor, trouble = torch.linalg.cholesky_ex(eye * (total * (1.0 + 1e-12)) - kernel)
    if int(trouble) != 0:
        return None
    solved = torch.cholesky_solve((units.T @ image)[:, None], factor)[:, 0]
    step = -(gradient + units @ solved) / total
    return step if bool(torch.isfinite(step).all()) else None


def _best_length(gram: Gram, w: Tensor, b: Tensor, along: Tensor, far: Tensor, step: Tensor) -> float:
    """Return which of a few step lengths lowers f most, or 0.0; the change of f is summed as differences."""
    image = gram.cosines @ step
    linear = 2.0 * (b @ image - gram.norms * image)
    square = step @ image
    lengths = torch.tensor(_LENGTHS, dtype=b.dtype, device=b.device)[:, None]
    change = lengths * (linear + lengths * square)
    after = (far * far + change).clamp_min_(0.0).sqrt_()
    differences = ((w * change) / after.add_(far)).sum(dim=1)
    best = int(differences.argmin())
    return _LENGTHS[best] if float(differences[best]) < 0.0 else 0.0
