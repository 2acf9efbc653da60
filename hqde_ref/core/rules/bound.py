"""A proven bound as data: what of a result is at most how many times what of the honest rows.

n rows of which any f may hold anything, h = n - f honest ones, mu their mean; F the result. A bound holds for every
input for which the rule has enough rows, in exact arithmetic, with the rule's default settings.

Source: HQDE clauses 4.5 and 4.9; the constants and where they come from are in ``bounds``.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import torch
from torch import Tensor

from hqde_ref.errors import LayoutError

__all__ = ["MEASURES", "Bound", "Measure", "ratio_to_bound"]

Measure = Literal["variance", "covariance", "range", "diameter", "radius", "distances"]
MEASURES: Mapping[Measure, str] = MappingProxyType(
    {
        "variance": "|F - mu|^2 <= c V, V the mean squared distance of the honest from mu; c is known as kappa",
        "covariance": "|F - mu|^2 <= c times the largest eigenvalue of the covariance of the honest",
        "range": "|F_j - mu_j| <= c times the range of the honest in coordinate j, for every j",
        "diameter": "|F - mu| <= c times the greatest distance between two honest rows",
        "radius": "|F - z| <= c times the greatest distance of an honest row from z, for every z",
        "distances": "|F - z| <= c times the sum of the distances of the honest rows from z, for every z",
    }
)
assert tuple(MEASURES) == get_args(Measure)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """One proven bound.

    measure: what is compared with what, a key of ``MEASURES``.
    constant: (n, f) -> c; says nothing where the rule does not take so few rows.
    tight: no smaller constant is true: a constructed input attains it, or comes as near as one likes.
    source: where the proof is.
    """

    measure: Measure
    constant: Callable[[int, int], float]
    tight: bool = False
    source: str = "derived in hqde_ref.core.rules.bounds"


def ratio_to_bound(bound: Bound, result: Tensor, honest: Tensor, *, faulty: int, point: Tensor | None = None) -> float:
    """Return how much of the bound a result uses up: at most 1 if it holds, up to rounding.

    Args:
        bound: one of ``Rule.bounds``.
        result: (d,), what an aggregation made of the honest rows and ``faulty`` others.
        honest: (h, d), of which h = n - f.
        faulty: f, how many others there were.
        point: (d,), z of the bounds that hold for every z; None for the mean of the honest.
    Returns:
        Both sides' quotient, in float64; 0 where both vanish, infinity where only the bound does.
    Raises:
        LayoutError: shapes do not fit.
    """
    if honest.ndim != 2 or not len(honest) or result.shape != honest.shape[1:]:
        raise LayoutError(
            what="honest rows and result",
            wanted="shapes (h, d) with h >= 1, and (d,)",
            got=f"{tuple(honest.shape)} and {tuple(result.shape)}",
            do="stack the honest rows, and give the row that was made of them and the others",
        )
    rows = honest.double()
    error, spread = _measure(bound.measure, result.double(), rows, rows.mean(dim=0) if point is None else point)
    errors, limits = error.reshape(-1), bound.constant(len(honest) + faulty, faulty) * spread.reshape(-1)
    shares = torch.where(limits > 0, errors / limits, torch.where(errors > 0, math.inf, 0.0))
    return float(shares.max()) if len(shares) else 0.0


def _measure(measure: Measure, result: Tensor, honest: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a bound limits, and what it is proportional to: a number each, or one a coordinate."""
    mean = honest.mean(dim=0)
    away = torch.linalg.vector_norm(result - mean)
    far = torch.linalg.vector_norm(honest - point, dim=1)
    match measure:
        case "variance":
            return away**2, (honest - mean).square().sum() / len(honest)
        case "covariance":
            return away**2, torch.linalg.matrix_norm(honest - mean, ord=2) ** 2 / len(honest)
        case "range":
            return (result - mean).abs(), honest.amax(dim=0) - honest.amin(dim=0)
        case "diameter":
            return away, torch.cdist(honest, honest, compute_mode="donot_use_mm_for_euclid_dist").max()
        case "radius":
            return torch.linalg.vector_norm(result - point), far.max()
        case "distances":
            return torch.linalg.vector_norm(result - point), far.sum()
