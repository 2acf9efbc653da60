"""Certificate of a geometric median: the pull that is left at the output, a gap by duality, a radius.

Source: HQDE clause 4.7; Minsker 2015 (arXiv:1308.1334) for the radius, Lagrange duality for the gap.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hqde_ref.core.certificates.certificate import Certificate, Judged, judge, name_faulty
from hqde_ref.core.kernels.gram import scale_up
from hqde_ref.core.kernels.rows import Updates, check_count, check_weights

__all__ = ["certify_geometric_median", "judge_geometric_median", "median_certificate"]

_EXTREME = 200  # binary exponent of a weight
_ROUNDED = 1e-9  # a share of 1 that was computed may come out as that much less


def certify_geometric_median(
    updates: Updates, output: Tensor, *, faulty_max: int, weights: Sequence[float] | Tensor | None = None
) -> Certificate:
    """Judge ``output`` as a geometric median of ``updates``.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        output: (d,) on the same device, float16, bfloat16, float32 or float64 whatever the rows are.
        faulty_max: f; the f heaviest rows are taken to be faulty for the radius.
        weights: n positive numbers, None for 1 each.
    Raises:
        TooFewContributions, LayoutError, NotFinite, ConfigurationError: as the rule itself; NotFinite for the output.
    """
    return judge_geometric_median(judge("geometric_median", updates, output), faulty_max=faulty_max, weights=weights)


def judge_geometric_median(
    judged: Judged,
    *,
    faulty_max: int,
    weights: Sequence[float] | Tensor | None = None,
    rule: str = "geometric_median",
) -> Certificate:
    """``certify_geometric_median`` of rows and an output that were found to fit; errors name ``rule``."""
    check_count(rule, count=len(judged.rows), faulty_max=faulty_max)
    given = check_weights(rule, weights, count=len(judged.rows))
    exponent = math.frexp(max(given))[1]
    unit = exponent if abs(exponent) > _EXTREME else 0  # only ratios count, and squares of extreme weights do not fit
    given = tuple(math.ldexp(weight, -unit) for weight in given)
    far = judged.distances_to(judged.point)
    found, nearest = _judge(judged, judged.point, given, far, faulty_max), int(far.argmin())
    aside = float(far[nearest])
    if 0.0 < aside <= _rounding(judged, nearest):
        row = judged.place_of(nearest)
        of_row = _judge(judged, row, given, judged.distances_to(row), faulty_max)
        found = _better(found, of_row, aside, math.fsum(given))
    return _in_units(replace(found, rule=rule), weight=unit, length=judged.unit)


def _judge(judged: Judged, point: Tensor, weights: tuple[float, ...], far: Tensor, faulty_max: int) -> Certificate:
    w = torch.tensor(weights, dtype=torch.float64)
    there = far == 0.0
    pulls = torch.where(there, 0.0, w / torch.where(there, 1.0, far))
    rest = torch.where(there, 0.0, w / far.clamp_min(_weighted_middle(far, w)).clamp_min(1e-300))
    pull, lean = _pull_and_lean(judged, point, pulls, rest)
    norm = max(0.0, pull - float(w[there].sum())) if math.isfinite(pull) else math.inf
    dual = _dual_gap(far, w, rest, norm, lean * norm) if math.isfinite(norm) else math.inf
    return median_certificate(far, weights, norm, faulty_max=faulty_max, gap=dual)


def _rounding(judged: Judged, index: int) -> float:
    """Return how far rounding to the coarser dtype of the two may have moved the output from that row."""
    eps = max(torch.finfo(judged.dtype).eps, torch.finfo(judged.rows[index].dtype).eps)
    size = float(torch.linalg.vector_norm(judged.point))
    if not 1e-150 < size < math.inf:  # squares of what is so large or small do not fit
        top = float(judged.point.abs().max())
        size = top * float(torch.linalg.vector_norm(judged.point / top)) if top > 0.0 else 0.0
    return eps * size


def _better(own: Certificate, of_row: Certificate, aside: float, total: float) -> Certificate:
    """Return the certificate of the output, or of the row that it is but for rounding, whichever says more."""
    assert own.subgradient_norm is not None
    assert of_row.subgradient_norm is not None
    assert of_row.gap is not None
    if own.subgradient_norm <= of_row.subgradient_norm:
        return own
    return replace(of_row, aside=aside, gap=of_row.gap + total * aside)


def _in_units(found: Certificate, *, weight: int, length: int) -> Certificate:
    """The certificate where weights are 2**weight and distances 2**length as large; its sentence keeps the weights."""
    assert found.subgradient_norm is not None
    assert found.gap is not None
    gap, aside = scale_up(found.gap, length), scale_up(found.aside, length)
    return replace(
        found,
        subgradient_norm=scale_up(found.subgradient_norm, weight),
        gap=scale_up(gap, weight),
        aside=aside,
        because=_median_sentence(found.subgradient_norm, gap, found.radius_factor, found.faulty_max, aside=aside),
    )


def median_certificate(
    far: Tensor, weights: Sequence[float], norm: float, *, faulty_max: int, gap: float = math.inf
) -> Certificate:
    """Return the certificate of a point whose least subgradient has norm ``norm``, given the rows' distances from it.

    Args:
        far: (n,) float64 distances.
        weights: n positive numbers.
        norm: in units of weight.
        faulty_max: f.
        gap: an upper bound on f(point) - min f, if a better one is known than norm times the reach of the optimum.
    """
    w = torch.tensor(weights, dtype=torch.float64)
    total, heaviest = math.fsum(weights), math.fsum(sorted(weights)[len(weights) - faulty_max :])
    factor = _radius_factor((heaviest + norm) / (total - heaviest) if total > heaviest else 1.0)
    gap = min(gap, norm * _reach(far, w)) if norm > 0.0 else 0.0
    return Certificate(
        rule="geometric_median",
        count=len(weights),
        faulty_max=faulty_max,
        excess=norm / total,
        gap=gap,
        subgradient_norm=norm,
        radius_factor=factor,
        because=_median_sentence(norm, gap, factor, faulty_max),
    )


def _median_sentence(norm: float, gap: float, factor: float | None, faulty_max: int, *, aside: float = 0.0) -> str:
    beside = f", but for {aside:.3g} of rounding," if aside > 0.0 else ""
    found = "is a geometric median" if norm == 0.0 else f"leaves a pull of {norm:.3g} contributions (gap {gap:.3g})"
    bound = (
        "and no radius can be promised" if factor is None else f"and lies within {factor:.4g} honest radii of any point"
    )
    return f"the output{beside} {found} {bound} with {name_faulty(faulty_max)}"


def _pull_and_lean(judged: Judged, point: Tensor, pulls: Tensor, rest: Tensor) -> tuple[float, float]:
    """Return |R| and <R/|R|, sum_i rest_i (x_i - point)> for R = sum_i pulls_i (x_i - point)."""
    pulls, rest = pulls.to(point.device), rest.to(point.device)
    square = inner = 0.0
    for block in judged.differences_to(point):
        pull = torch.mv(block.T, pulls)
        square += float(torch.dot(pull, pull))
        inner += float(torch.dot(rest, torch.mv(block, pull)))
    norm = math.sqrt(square)
    return norm, inner / norm if norm > 0.0 else 0.0


def _weighted_middle(far: Tensor, w: Tensor) -> float:
    order = torch.argsort(far)
    mass = w[order].cumsum(0)
    return float(far[order[int(torch.searchsorted(mass, mass[-1] / 2).clamp_max(len(far) - 1))]])


def _radius_factor(share: float) -> float | None:
    """Return 1 / sqrt(1 - share^2), share being (weight of the faulty + G) / weight of the honest."""
    return 1.0 / math.sqrt(1.0 - share * share) if share < 1.0 - _ROUNDED else None


def _dual_gap(far: Tensor, w: Tensor, rest: Tensor, norm: float, lean: float) -> float:
    """Return f(output) less the value of a dual point: the unit pulls, with what is left spread by ``rest``."""
    spread = float(rest.sum())
    if norm == 0.0 or spread == 0.0:
        return 0.0 if norm == 0.0 else math.inf
    # Beside extreme weights some are 0, and so is their share of the rest.
    shrink = norm * float((rest / w.clamp_min(1e-300)).max()) / spread
    gap = (shrink * float(w @ far) + lean / spread) / (1.0 + shrink)
    return max(0.0, gap) if math.isfinite(gap) else math.inf


def _reach(far: Tensor, w: Tensor) -> float:
    """Return an upper bound on |output - optimum|: 2 sum_S w d / (w_S - w_rest), for the best S of nearest rows."""
    order = torch.argsort(far)
    mass, cost = w[order].cumsum(0), (w * far)[order].cumsum(0)
    majority = 2.0 * mass - mass[-1]
    usable = majority > 1e-12 * mass[-1]
    return float((2.0 * cost[usable] / majority[usable]).min())
