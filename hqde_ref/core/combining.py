"""Contributions to one result: exact weighted means in pieces, or a robust rule on all rows.

Source: HQDE clauses 0.8, 0.10, 3.3, 4.4 to 4.7. Pure.

A partial sum is the float64 sum of the float rows followed by the untouched integer rows of its members: medians do not
compose up a tree, so those travel unreduced to the root.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.certificates import certify_geometric_median
from hqde_ref.core.kernels.exact_sums import add_sums, finish_mean, leaf_sum
from hqde_ref.core.packing import exact_dtype, float_blocks, merge_rows, split_rows
from hqde_ref.core.rules import get_rule
from hqde_ref.core.rules.filtered_geometric_median import Screening, choose_outliers
from hqde_ref.errors import BrokenCertificate
from hqde_ref.messages import Combine, Evidence, Layout, message

__all__ = ["Resolution", "combine", "lower_median", "promised", "resolve", "resolve_rows"]


_FILTERED = "filtered_geometric_median"


def combine(request: Combine, parts: Sequence[Tensor]) -> Tensor:
    """This node's partial sum, or at the root the packed mean (see ``Combine``)."""
    layout = request.layout
    if request.leaf:
        rows = [split_rows(part, layout) for part in parts]
        total = leaf_sum([row for row, _ in rows], request.masses, request.grid, float_blocks(layout))
        integers = [integer for _, integer in rows]
    else:
        width = sum(stop - start for start, stop in float_blocks(layout))
        sums = [part[: 8 * width].view(torch.float64) for part in parts]
        total = add_sums(sums)
        integers = [part[8 * width :].view(torch.int64) for part in parts]
    if not request.root:
        return torch.cat([total.view(torch.uint8), torch.cat(integers).view(torch.uint8)])
    mean = finish_mean(total, math.fsum(request.masses), exact_dtype(layout))
    table = torch.cat(integers).view(len(request.workers), -1)
    return merge_rows(mean, lower_median(table, request.masses), layout)


def lower_median(table: Tensor, masses: Sequence[float] | None = None) -> Tensor:
    """Coordinate-wise lower (weighted) median of integer rows (n, k): the least value with half the mass up to it.

    The reading of clause 0.8 for integer and boolean buffers.
    """
    if masses is None:
        return table.sort(dim=0).values[(table.shape[0] - 1) // 2].clone()
    values, order = table.sort(dim=0, stable=True)
    weight = torch.tensor(masses, dtype=torch.float64)[order].cumsum(dim=0)
    half = weight[-1] / 2
    reached = (weight >= half * (1 - 1e-12)).to(torch.int8).argmax(dim=0, keepdim=True)
    return values.gather(0, reached)[0]


@message
class Resolution:
    """A robust rule's result, by index of the rows it was given.

    Attributes:
        row: the float row (d,).
        kept: indices of the rows that were not rejected as outliers, ascending.
        scores: distance of every row from the robust centre; ``limit`` is what was allowed. Empty when nobody may be
            rejected for its distance.
    """

    row: Tensor
    kept: tuple[int, ...]
    scores: tuple[float, ...]
    limit: float
    evidence: Evidence


def resolve_rows(
    rows: Sequence[Tensor],
    *,
    rule: str,
    faulty_max: int,
    rejections_max: int,
    outlier_factor: float | None,
    dropped: int = 0,
) -> Resolution:
    """Reject at most ``rejections_max`` outliers, then apply the rule to the rows that are left.

    Args:
        rows: screened float rows (d,), in an order that does not depend on their arrival.
        faulty_max: how many of them may hold anything.
        dropped: how many rows were rejected before; the bound counts them.

    Raises:
        TooFewContributions: when the rule's condition does not hold.
        BrokenCertificate: the result of a certified rule promises nothing.
    """
    factor: float | None
    if rule == _FILTERED:  # HQDE's own rule is this screening and a geometric median: it must not reject twice
        inner = "geometric_median"
        factor = 3.0 if outlier_factor is None else outlier_factor
    else:
        inner, factor = rule, outlier_factor
    if factor is None:  # distances between all rows cost more than most rules
        screening = Screening(kept=tuple(range(len(rows))), scores=(), limit=0.0)
    else:
        screening = choose_outliers(rows, rejections_max=rejections_max, factor=factor)
    kept = [rows[index] for index in screening.kept]
    result = get_rule(inner).aggregate(kept, faulty_max=faulty_max)
    evidence = _evidence(kept, result, rule=rule, faulty_max=faulty_max, dropped=dropped + len(rows) - len(kept))
    if evidence.subgradient_norm is not None and evidence.radius_factor is None:
        because = f"{evidence.subgradient_norm:.3g} of {len(kept)} contributions pull at it, f = {faulty_max}"
        raise BrokenCertificate(rule=rule, because=because)
    return Resolution(
        row=result,
        kept=screening.kept,
        scores=screening.scores,
        limit=screening.limit,
        evidence=evidence,
    )


def resolve(
    parts: Sequence[Tensor],
    layout: Layout,
    *,
    rule: str,
    faulty_max: int,
    rejections_max: int,
    outlier_factor: float | None,
    dropped: int = 0,
) -> tuple[Tensor, Resolution]:
    """``resolve_rows`` on packed vectors: the packed result, integer entries by the lower median of those kept."""
    rows, integers = zip(*(split_rows(part, layout) for part in parts), strict=True)
    found = resolve_rows(
        rows,
        rule=rule,
        faulty_max=faulty_max,
        rejections_max=rejections_max,
        outlier_factor=outlier_factor,
        dropped=dropped,
    )
    whole = lower_median(torch.stack([integers[index] for index in found.kept]))
    packed = merge_rows(found.row, whole, layout)
    published, _ = split_rows(packed, layout)
    if not torch.equal(published, found.row):  # entries of a narrower dtype were rounded: judge what is published
        kept = [rows[index] for index in found.kept]
        gone = dropped + len(rows) - len(kept)
        evidence = _evidence(kept, published, rule=rule, faulty_max=faulty_max, dropped=gone)
        found = dataclasses.replace(found, evidence=evidence)
    return packed, found


def _evidence(kept: Sequence[Tensor], result: Tensor, *, rule: str, faulty_max: int, dropped: int) -> Evidence:
    """The bound against the honest among all that arrived, of whom the screening may have dropped some."""
    honest = len(kept) + dropped - faulty_max
    if rule in ("geometric_median", _FILTERED):
        certificate = certify_geometric_median(kept, result, faulty_max=faulty_max)
        # However the rejections fell, so many honest rows must rest at the median to hold it there.
        resting = -(-(len(kept) - 2 * faulty_max) // 2)
        return Evidence(
            rule=rule,
            faulty_max=faulty_max,
            kappa=(honest - resting) / resting,
            subgradient_norm=certificate.subgradient_norm,
            radius_factor=certificate.radius_factor,
        )
    return promised(rule, kept=len(kept), faulty_max=faulty_max, dropped=dropped)


def promised(rule: str, *, kept: int, faulty_max: int, dropped: int) -> Evidence:
    """What a rule promises of any result, whatever it is, when ``dropped`` rows were rejected before."""
    honest, left = kept + dropped - faulty_max, kept - faulty_max
    promise = get_rule(rule).kappa
    if promise is None:
        return Evidence(rule=rule, faulty_max=faulty_max, kappa=None)
    # The rule's bound holds for the honest that were kept; their variance and mean are that far from everyone's.
    kappa = (math.sqrt(promise(kept, faulty_max) * honest / left) + math.sqrt(dropped / left)) ** 2
    return Evidence(rule=rule, faulty_max=faulty_max, kappa=kappa)
