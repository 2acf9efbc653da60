"""Certificates by the name and the settings of a rule: what ``certify`` of the registry calls.

A certificate takes the settings that its rule takes; an output made with others is judged as wrong as it is. Here
settings are turned into numbers as the rules do it; ``hqde_ref.core.certificates`` judges by numbers.

Source: HQDE clauses 4.5 and 4.7.
Pure: no clock, no randomness, no input or output; arguments are never changed. Which rows the filtered geometric
median keeps is decided by its own screening, whose result is then judged; all else is independent of the rules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from hqde_ref.core.certificates import (
    Certificate,
    certify_ranks,
    judge,
    judge_geometric_median,
    judge_krum,
    judge_multi_krum,
)
from hqde_ref.core.kernels.rows import Updates, as_rows, check_count, check_weights
from hqde_ref.core.rules.blockwise_geometric_median import resolve_blocks
from hqde_ref.core.rules.filtered_geometric_median import choose_outliers, resolve_rejections
from hqde_ref.core.rules.krum import resolve_neighbours, resolve_selected
from hqde_ref.core.rules.trimmed_mean import resolve_trimmed

__all__ = [
    "certify_blockwise",
    "certify_filtered",
    "certify_krum",
    "certify_lower_median",
    "certify_median",
    "certify_multi_krum",
    "certify_trimmed",
]

_BLOCKWISE = "blockwise_geometric_median"
_FILTERED = "filtered_geometric_median"


def certify_median(updates: Updates, output: Tensor, *, faulty_max: int) -> Certificate:
    """Judge a coordinate-wise median with midpoints; errors as for ``certify_ranks``."""
    rule = "coordinate_median"
    rows = as_rows(updates, rule=rule)
    low, high = (len(rows) + 1) // 2, len(rows) // 2 + 1
    return certify_ranks(rows, output, faulty_max=faulty_max, rule=rule, low=low, high=high)


def certify_lower_median(updates: Updates, output: Tensor, *, faulty_max: int) -> Certificate:
    """Judge a lower coordinate-wise median; errors as for ``certify_ranks``."""
    rule = "lower_coordinate_median"
    rows = as_rows(updates, rule=rule)
    middle = (len(rows) + 1) // 2
    return certify_ranks(rows, output, faulty_max=faulty_max, rule=rule, low=middle, high=middle)


def certify_trimmed(updates: Updates, output: Tensor, *, faulty_max: int, trimmed: int | None = None) -> Certificate:
    """Judge a trimmed mean, ``trimmed`` as the rule takes it; errors as for the rule and ``certify_ranks``."""
    rule = "trimmed_mean"
    rows = as_rows(updates, rule=rule)
    left_out = resolve_trimmed(trimmed, count=len(rows), faulty_max=faulty_max)
    return certify_ranks(rows, output, faulty_max=faulty_max, rule=rule, low=left_out + 1, high=len(rows) - left_out)


def certify_krum(updates: Updates, output: Tensor, *, faulty_max: int, neighbours: int | None = None) -> Certificate:
    """Judge a row chosen by Krum, by scores afresh; settings and errors as the rule's."""
    rows = as_rows(updates, rule="krum")
    check_count("krum", count=len(rows), faulty_max=faulty_max, beyond=3)
    counted = resolve_neighbours("krum", neighbours, count=len(rows), faulty_max=faulty_max)
    return judge_krum(judge("krum", rows, output), faulty_max=faulty_max, neighbours=counted)


def certify_multi_krum(
    updates: Updates,
    output: Tensor,
    *,
    faulty_max: int,
    selected: int | None = None,
    neighbours: int | None = None,
) -> Certificate:
    """Judge a mean of the rows that Multi-Krum selects, by scores afresh; settings and errors as the rule's."""
    rule = "multi_krum"
    rows = as_rows(updates, rule=rule)
    check_count(rule, count=len(rows), faulty_max=faulty_max, beyond=3)
    counted = resolve_neighbours(rule, neighbours, count=len(rows), faulty_max=faulty_max)
    wanted = resolve_selected(rule, selected, count=len(rows), faulty_max=faulty_max)
    judged = judge(rule, rows, output)
    return judge_multi_krum(judged, faulty_max=faulty_max, neighbours=counted, selected=wanted)


def certify_blockwise(
    updates: Updates,
    output: Tensor,
    *,
    faulty_max: int,
    blocks: Sequence[tuple[int, int]] | None = None,
    weights: Sequence[float] | Tensor | None = None,
) -> Certificate:
    """Judge a geometric median of each block by itself: the worst excess, and all blocks' certificates.

    The gaps add up to that of the sum of distances over all blocks; the radius factor, for the whole row, is the
    largest of a block times the root of their number. Settings and errors as for the rule.
    """
    judged = judge(_BLOCKWISE, updates, output)
    check_count(_BLOCKWISE, count=len(judged.rows), faulty_max=faulty_max)
    given = check_weights(_BLOCKWISE, weights, count=len(judged.rows))
    ranges = resolve_blocks(blocks, length=judged.point.numel())
    if not ranges:
        return judge_geometric_median(judged, faulty_max=faulty_max, weights=given, rule=_BLOCKWISE)
    found = tuple(
        judge_geometric_median(judged.cut(low, high), faulty_max=faulty_max, weights=given) for low, high in ranges
    )
    worst = max(range(len(found)), key=lambda place: found[place].excess)
    factors = [one.radius_factor for one in found if one.radius_factor is not None]
    factor = max(factors) * math.sqrt(len(found)) if len(factors) == len(found) else None
    return replace(
        found[worst],
        rule=_BLOCKWISE,
        gap=math.fsum(one.gap or 0.0 for one in found),
        radius_factor=factor,
        aside=math.hypot(*(one.aside for one in found)),
        blocks=found,
        because=_blockwise_sentence(found[worst].because, ranges[worst], count=len(found), factor=factor),
    )


def _blockwise_sentence(of_block: str, block: tuple[int, int], *, count: int, factor: float | None) -> str:
    low, high = block
    if count == 1:
        return f"in the only block, {low}..{high}, {of_block}"
    whole = (
        "of the whole no radius can be promised"
        if factor is None
        else f"the whole lies within {factor:.4g} of any point"
    )
    of_block = of_block.replace("honest radii of any point", "honest radii of that block of any point", 1)
    return f"in the worst of {count} blocks, {low}..{high}, {of_block}; {whole}"


def certify_filtered(
    updates: Updates,
    output: Tensor,
    *,
    faulty_max: int,
    rejections_max: int | None = None,
    factor: float = 3.0,
    floor: float = 0.0,
) -> Certificate:
    """Judge a filtered geometric median as a geometric median of the rows that are kept; settings as the rule's."""
    rows = as_rows(updates, rule=_FILTERED)
    check_count(_FILTERED, count=len(rows), faulty_max=faulty_max, per_faulty=3)
    most = resolve_rejections(rejections_max, faulty_max=faulty_max)
    judged = judge(_FILTERED, rows, output)
    kept = choose_outliers(rows, rejections_max=most, factor=factor, floor=floor).kept
    found = judge_geometric_median(judged.among(kept), faulty_max=faulty_max, rule=_FILTERED)
    return replace(found, because=f"of the {len(kept)} rows kept of {len(rows)}, {found.because}")
