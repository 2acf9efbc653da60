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

from hqde_ref.core.kernels.rows import check_count, require_finite, require_finite_part
from hqde_ref.errors import LayoutError

__all__ = ["AROUND_A_POINT", "MEASURES", "Bound", "Measure", "ratio_to_bound"]

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
AROUND_A_POINT: frozenset[Measure] = frozenset({"radius", "distances"})  # bounds that hold for every z

_ROUNDINGS = 8  # of a value: of the rows, of what is made of them, and of the result
_SHIFT_MAX = 1000  # 2**1000 is a float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """One proven bound.

    measure: what is compared with what, a key of ``MEASURES``.
    constant: (n, f) -> c. Those of a ``Rule`` refuse fewer rows than the rule takes.
    tight: no smaller constant is true: a constructed input attains it, or comes as near as one likes.
    source: where the proof is.
    """

    measure: Measure
    constant: Callable[[int, int], float]
    tight: bool = False
    source: str = "derived in hqde_ref.core.rules.bounds"


def ratio_to_bound(bound: Bound, result: Tensor, honest: Tensor, *, faulty: int, point: Tensor | None = None) -> float:
    """Return how much of the bound a result uses up: at most 1 if the bound holds.

    What rounding to the coarser dtype of the two may explain is not counted as error.

    Args:
        bound: one of ``Rule.bounds``.
        result: (d,), what an aggregation made of the honest rows and ``faulty`` others.
        honest: (h, d), finite, of which h = n - f.
        faulty: f, how many others there were.
        point: (d,), z of the bounds that hold for every z; None for the mean of the honest.
    Returns:
        Both sides' quotient, in float64; 0 where there is no error, infinity where the result is not finite, or only
        the bound is 0.
    Raises:
        LayoutError: shapes or types do not fit.
        NotFinite: an honest row or the point holds NaN or an infinity.
        ConfigurationError: ``faulty`` is not an integer of at least 0.
        TooFewContributions: the rule does not take so few rows.
    """
    _check(bound, result, honest, point)
    check_count("ratio_to_bound", count=len(honest), faulty_max=faulty, per_faulty=0)
    constant = bound.constant(len(honest) + faulty, faulty)
    if not bool(torch.isfinite(result).all()):
        return math.inf
    if result.numel() == 0:
        return 0.0
    eps = max(torch.finfo(result.dtype).eps, torch.finfo(honest.dtype).eps)
    given = torch.cat([honest.double(), (honest[0] if point is None else point).double()[None], result.double()[None]])
    given.ldexp_(-_exponent(given[:-1]))  # so that no sum overflows
    rounding = _ROUNDINGS * eps * given[:-1].abs().amax(dim=0)
    given -= given[:-2].mean(dim=0)
    unit = _exponent(given[:-2])  # so that no square vanishes
    given.ldexp_(-unit)
    rows, z, away = given[:-2], given[-2], given[-1]
    error, spread, power = _measure(bound.measure, away, rows, torch.zeros_like(z) if point is None else z)
    error = error - (torch.ldexp(rounding, -unit) if error.dim() else torch.linalg.vector_norm(rounding) / 2.0**unit)
    return _quotient(error, spread, constant, power)


def _check(bound: object, result: Tensor, honest: Tensor, point: Tensor | None) -> None:
    if not isinstance(bound, Bound):
        raise LayoutError(
            what="bound", wanted="one of Rule.bounds", got=type(bound).__name__, do="pass get_rule(name).bounds[0], say"
        )
    parts = (result, honest) if point is None else (result, honest, point)
    if (
        not all(isinstance(part, Tensor) and part.is_floating_point() for part in parts)
        or any(part.layout != torch.strided or part.is_meta or part.device != honest.device for part in parts)
        or honest.ndim != 2
        or not len(honest)
        or any(part.shape != honest.shape[1:] for part in parts if part is not honest)
    ):
        got = " and ".join(map(_tell, parts))
        raise LayoutError(
            what="result, honest rows and point of a bound",
            wanted="dense floating tensors (d,), (h, d) with h >= 1, and (d,), on one device",
            got=got,
            do="stack the honest rows, and give the row that was made of them and the others",
        )
    require_finite("ratio_to_bound", honest.unbind(0))
    if point is not None:
        require_finite_part("ratio_to_bound", "the point", point, do="measure from a finite one")


def _tell(part: object) -> str:
    if not isinstance(part, Tensor):
        return type(part).__name__
    return f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')} on {part.device}"


def _exponent(values: Tensor) -> Tensor:
    top = float(values.abs().max())
    return torch.tensor(max(math.frexp(top)[1], -_SHIFT_MAX))


def _quotient(error: Tensor, spread: Tensor, constant: float, power: int) -> float:
    errors, spreads = error.clamp_min(0.0).reshape(-1), spread.reshape(-1) * (constant > 0.0)
    shares = torch.where(errors > 0.0, (errors / spreads) ** power, 0.0)
    worst = float(shares.max())
    return worst / constant if 0.0 < worst < math.inf else worst


def _measure(measure: Measure, away: Tensor, honest: Tensor, point: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return what a bound limits, what it is proportional to, a number each or one a coordinate, and which powers of.

    ``away``, ``honest`` and ``point`` are relative to the mean of the honest.
    """
    length = torch.linalg.vector_norm
    match measure:
        case "variance":
            return length(away), length(honest) / math.sqrt(len(honest)), 2
        case "covariance":
            return length(away), torch.linalg.matrix_norm(honest, ord=2) / math.sqrt(len(honest)), 2
        case "range":
            return away.abs(), honest.amax(dim=0) - honest.amin(dim=0), 1
        case "diameter":
            return length(away), torch.cdist(honest, honest, compute_mode="donot_use_mm_for_euclid_dist").max(), 1
        case "radius":
            return length(away - point), length(honest - point, dim=1).max(), 1
        case "distances":
            return length(away - point), length(honest - point, dim=1).sum(), 1
