"""Certificates: how good an output is, from the contributions and the output alone.

They are computed in float64 from the rows themselves and share nothing with the solvers, so they judge anybody's
output as they judge ours.

Source: HQDE clauses 4.5, 4.7 and 6.7; Minsker 2015 (arXiv:1308.1334) for the radius, Lagrange duality for the gap.
Pure: no clock, no randomness, no input or output; arguments are never changed. A certificate says nothing about
which rows were honest: its bounds hold if at most ``faulty_max`` rows were not. Where float64 ends, right outputs may
look wrong: sums near 1.8e308, distances below 1e-308.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hqde_ref.core.kernels.gram import scale_up
from hqde_ref.core.kernels.rows import (
    Updates,
    as_rows,
    check_count,
    check_weights,
    cut_blocks,
    require_data,
    require_finite,
    require_finite_part,
)
from hqde_ref.core.kernels.selections import resolve_neighbours
from hqde_ref.errors import LayoutError

__all__ = [
    "Certificate",
    "certify_geometric_median",
    "certify_krum",
    "certify_ranks",
    "judged_rows",
    "median_certificate",
]

_BLOCK_VALUES = 1 << 19
_EXTREME = 200  # binary exponent of a weight
_ROUNDED = 1e-9  # a share of 1 that was computed may come out as that much less


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """What is known about an output.

    rule: the rule that the output is judged by.
    count, faulty_max: n rows, of which f may be anything.
    excess: how far the output is from all that the certificate cannot tell from right; 0.0 is the best. For the
        geometric median the subgradient norm over the sum of weights; for median and trimmed mean, in the units of the
        rows, how far a coordinate lies from the rule's own in float64, so that rounding shows; for Krum the score over
        the best score, less 1.
    because: one sentence for a person.
    subgradient_norm: G, the least norm of a subgradient of the weighted sum of distances at the output (geometric
        median only); in units of weight, so that 1 is one contribution's pull.
    gap: upper bound on f(output) - min f, in units of distance times weight (geometric median only).
    rank_interval: (a, b), 1-based: every coordinate of the output lies between the a-th and the b-th smallest value of
        it, 0 being below all and n + 1 above all rows (coordinate-wise rules only); a > f and b <= n - f prove that it
        is inside the honest range.
    score_order: the rows by Krum score, lowest first (Krum only).
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
    aside: float = 0.0
    blocks: tuple[Certificate, ...] = ()


def certify_geometric_median(
    updates: Updates, output: Tensor, *, faulty_max: int, weights: Sequence[float] | Tensor | None = None
) -> Certificate:
    """Judge ``output`` as a geometric median of ``updates``.

    Args:
        updates: n tensors (d,) or one (n, d) tensor, finite.
        output: (d,) on the same device, of any floating dtype.
        faulty_max: f; the f heaviest rows are taken to be faulty for the radius.
        weights: n positive numbers, None for 1 each.
    Raises:
        TooFewContributions, LayoutError, NotFinite, ConfigurationError: as the rule itself; NotFinite for the output.
    """
    rule = "geometric_median"
    rows, point = judged_rows(rule, updates, output)
    check_count(rule, count=len(rows), faulty_max=faulty_max)
    given = check_weights(rule, weights, count=len(rows))
    exponent = math.frexp(max(given))[1]
    unit = exponent if abs(exponent) > _EXTREME else 0  # only ratios count, and squares of extreme weights do not fit
    given = tuple(math.ldexp(weight, -unit) for weight in given)
    far = _distances(rows, point)
    found, nearest = _judge(rows, point, given, far, faulty_max), int(far.argmin())
    aside = float(far[nearest])
    if 0.0 < aside <= _rounding(output, rows[nearest]):
        row = rows[nearest].to(torch.float64)
        found = _better(found, _judge(rows, row, given, _distances(rows, row), faulty_max), aside, math.fsum(given))
    return _in_units(found, unit)


def _judge(
    rows: Sequence[Tensor], point: Tensor, weights: tuple[float, ...], far: Tensor, faulty_max: int
) -> Certificate:
    w = torch.tensor(weights, dtype=torch.float64)
    there = far == 0.0
    pulls = torch.where(there, 0.0, w / torch.where(there, 1.0, far))
    rest = torch.where(there, 0.0, w / far.clamp_min(_weighted_middle(far, w)).clamp_min(1e-300))
    pull, lean = _pull_and_lean(rows, point, pulls, rest)
    norm = max(0.0, pull - float(w[there].sum())) if math.isfinite(pull) else math.inf
    dual = _dual_gap(far, w, rest, norm, lean * norm) if math.isfinite(norm) else math.inf
    return median_certificate(far, weights, norm, faulty_max=faulty_max, gap=dual)


def _rounding(output: Tensor, row: Tensor) -> float:
    """Return how far rounding to the coarser dtype of the two may have moved the output."""
    eps = max(torch.finfo(output.dtype).eps, torch.finfo(row.dtype).eps)
    size = float(torch.linalg.vector_norm(output.detach(), dtype=torch.float64))  # without a copy in float64
    if not 1e-150 < size < math.inf:  # squares of what is so large or small do not fit
        top = float(output.detach().abs().max())
        size = top * float(torch.linalg.vector_norm(output.detach().double() / top)) if top > 0.0 else 0.0
    return eps * size


def _better(own: Certificate, of_row: Certificate, aside: float, total: float) -> Certificate:
    """Return the certificate of the output, or of the row that it is but for rounding, whichever says more."""
    assert own.subgradient_norm is not None
    assert of_row.subgradient_norm is not None
    assert of_row.gap is not None
    if own.subgradient_norm <= of_row.subgradient_norm:
        return own
    because = of_row.because.replace("the output", f"the output, but for {aside:.3g} of rounding,", 1)
    return replace(of_row, aside=aside, gap=of_row.gap + total * aside, because=because)


def _in_units(found: Certificate, unit: int) -> Certificate:
    """The certificate where weights are 2**unit as large; its sentence counts in the heaviest."""
    assert found.subgradient_norm is not None
    assert found.gap is not None
    return replace(
        found,
        subgradient_norm=scale_up(found.subgradient_norm, unit) if math.isfinite(found.excess) else math.inf,
        gap=scale_up(found.gap, unit) if math.isfinite(found.gap) else math.inf,
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


def _faulty(faulty_max: int) -> str:
    return "1 faulty row" if faulty_max == 1 else f"{faulty_max} faulty rows"


def _median_sentence(norm: float, gap: float, factor: float | None, faulty_max: int) -> str:
    found = "is a geometric median" if norm == 0.0 else f"leaves a pull of {norm:.3g} contributions (gap {gap:.3g})"
    bound = (
        "and no radius can be promised" if factor is None else f"and lies within {factor:.4g} honest radii of any point"
    )
    return f"the output {found} {bound} with {_faulty(faulty_max)}"


def judged_rows(rule: str, updates: Updates, output: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the rows, and the output in float64, after checking that both are finite and fit together.

    Raises:
        TooFewContributions, LayoutError, NotFinite: for rows or an output that do not fit.
    """
    rows = as_rows(updates, rule=rule)
    if not isinstance(output, Tensor):
        raise LayoutError(
            what=f"output of {rule}", wanted="a torch tensor", got=type(output).__name__, do="pass the rule's result"
        )
    if output.is_nested or output.layout != torch.strided:
        raise LayoutError(
            what=f"output of {rule}",
            wanted="a dense row",
            got="a nested tensor" if output.is_nested else f"a {output.layout} one",
            do="call to_dense() first",
        )
    if output.shape != rows[0].shape or output.device != rows[0].device or not output.is_floating_point():
        raise LayoutError(
            what=f"output of {rule}",
            wanted=f"a floating row of {rows[0].numel()} on {rows[0].device}",
            got=f"{tuple(output.shape)} {output.dtype} on {output.device}",
            do="pass the rule's result",
        )
    require_data(rule, rows)
    require_finite(rule, rows)
    require_finite_part(rule, "the output", output, do="do not use it: no rule makes that of finite rows")
    return rows, output.detach().to(torch.float64)


def _differences(rows: Sequence[Tensor], point: Tensor) -> Iterator[Tensor]:
    """Yield (n, m) float64 blocks of rows - point; the buffer is reused."""
    step, length = max(256, _BLOCK_VALUES // len(rows)), point.numel()
    if length == 0:
        return
    buffer = torch.empty(len(rows) * min(step, length), dtype=torch.float64, device=point.device)
    for pieces in cut_blocks([*rows, point], step):
        block = buffer[: len(rows) * pieces[-1].numel()].view(len(rows), -1)
        for out, piece in zip(block.unbind(0), pieces[:-1], strict=True):
            out.copy_(piece)
        yield block.sub_(pieces[-1])


def _distances(rows: Sequence[Tensor], point: Tensor) -> Tensor:
    """Return |x_i - point|, (n,) float64 on the CPU, without overflow or underflow on squaring."""
    squares = torch.zeros(len(rows), dtype=torch.float64, device=point.device)
    if rows[0].dtype != torch.float64:  # squares of narrower types fit into float64 as they are
        for block in _differences(rows, point):
            squares += block.square_().sum(dim=1)
        return squares.sqrt().cpu()
    tops = torch.zeros_like(squares)
    for block in _differences(rows, point):
        tops = torch.maximum(tops, block.abs().amax(dim=1))
    tops.clamp_min_(1e-300)
    for block in _differences(rows, point):
        squares += block.div_(tops[:, None]).square_().sum(dim=1)
    return (squares.sqrt() * tops).cpu()


def _pull_and_lean(rows: Sequence[Tensor], point: Tensor, pulls: Tensor, rest: Tensor) -> tuple[float, float]:
    """Return |R| and <R/|R|, sum_i rest_i (x_i - point)> for R = sum_i pulls_i (x_i - point)."""
    pulls, rest = pulls.to(point.device), rest.to(point.device)
    square = inner = 0.0
    for block in _differences(rows, point):
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


def certify_ranks(updates: Updates, output: Tensor, *, faulty_max: int, rule: str, low: int, high: int) -> Certificate:
    """Judge ``output`` by the ranks of its coordinates among the rows.

    Args:
        updates, output, faulty_max: as for ``certify_geometric_median``, whose errors it raises too.
        rule: the rule claimed.
        low, high: 1-based ranks, of which the rule's coordinates are the means.
    """
    rows, point = judged_rows(rule, updates, output)
    check_count(rule, count=len(rows), faulty_max=faulty_max)
    count, excess, below, above = len(rows), 0.0, len(rows), len(rows)
    for block in _differences(rows, point):
        below = min(below, int((block <= 0.0).sum(dim=0).min()))
        above = min(above, int((block >= 0.0).sum(dim=0).min()))
        ordered = block.sort(dim=0).values
        off = (ordered[low - 1 : high] / (high + 1 - low)).sum(dim=0)
        excess = max(excess, float(off.abs().max()))
    interval = (below, count + 1 - above)
    inside = interval[0] > faulty_max and interval[1] <= count - faulty_max
    low, high = interval
    ends = (["0: below all rows"] if low == 0 else []) + ([f"{high}: above all rows"] if high > count else [])
    ranked = f"{count} ({', '.join(ends)})" if ends else f"{count}"
    where = f"lies between ranks {low} and {high}" if low <= high else f"equals those of ranks {high} to {low}"
    place = "inside" if inside else "not proven to be inside"
    aside = f", and is at most {excess:.3g} from the rule's own" if excess > 0.0 else ""
    return Certificate(
        rule=rule,
        count=count,
        faulty_max=faulty_max,
        excess=excess,
        rank_interval=interval,
        because=f"every coordinate {where} of {ranked}, {place} the honest range with {_faulty(faulty_max)}{aside}",
    )


def certify_krum(updates: Updates, output: Tensor, *, faulty_max: int, neighbours: int | None = None) -> Certificate:
    """Judge ``output`` as the row with the lowest Krum score, scored afresh from float64 differences.

    Args:
        updates, output, faulty_max: as for ``certify_geometric_median``, whose errors it raises too.
        neighbours: how many other rows a score counts, faulty_max..n-1; None for n - faulty_max - 2.
    """
    rule = "krum"
    rows, point = judged_rows(rule, updates, output)
    count = len(rows)
    check_count(rule, count=count, faulty_max=faulty_max, beyond=3)
    counted = resolve_neighbours(rule, neighbours, count=count, faulty_max=faulty_max)
    far = torch.stack([_distances(rows, row.to(torch.float64)) for row in rows])
    nearest = far.sort(dim=1).values[:, 1 : counted + 1]
    # In units of the least reach of any row the scores that matter neither overflow nor vanish, whoever lies far out.
    reach = nearest[:, -1][nearest[:, -1] > 0.0]
    scores = (nearest / reach.min() if len(reach) else nearest).square().sum(dim=1)
    order = tuple(torch.argsort(scores, stable=True).tolist())
    # A row's own dtype decides whether the output is that row; any other output is no row at all.
    same = [index for index, row in enumerate(rows) if torch.equal(row.to(torch.float64), point)]
    best = float(scores[order[0]])
    mine = min((float(scores[index]) for index in same), default=math.inf)
    excess = 0.0 if mine == best else (mine / best - 1.0 if best > 0.0 else math.inf)
    rank = sorted(scores.tolist()).index(mine) + 1 if same else None
    said = f"the output is row {same[0]}, of rank {rank} by score" if same else "the output is none of the rows"
    return Certificate(
        rule=rule,
        count=count,
        faulty_max=faulty_max,
        excess=excess,
        score_order=order,
        because=f"{said} among {count} with {_faulty(faulty_max)}",
    )
