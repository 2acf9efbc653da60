"""Certificates of Krum and Multi-Krum: the rows' scores afresh, from float64 differences.

Source: HQDE clause 4.5; Blanchard et al. 2017 (arXiv:1703.02757), section 4.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hqde_ref.core.certificates.certificate import (
    Certificate,
    distances_to,
    judged_rows,
    name_faulty,
)
from hqde_ref.core.certificates.means import farthest_from_mean
from hqde_ref.core.kernels.rows import Updates, check_count, content_order
from hqde_ref.core.kernels.selections import lowest_scores, resolve_neighbours, resolve_selected

__all__ = ["certify_krum", "certify_multi_krum"]


def certify_krum(updates: Updates, output: Tensor, *, faulty_max: int, neighbours: int | None = None) -> Certificate:
    """Judge ``output`` as the row with the lowest Krum score, scored afresh from float64 differences.

    Args:
        updates, output, faulty_max: as for ``certify_geometric_median``, whose errors it raises too.
        neighbours: how many other rows a score counts, faulty_max..n-1; None for n - faulty_max - 2.
    """
    rule = "krum"
    rows, point = judged_rows(rule, updates, output)
    scores, order = _scores(rule, rows, faulty_max=faulty_max, neighbours=neighbours)
    # A row's own dtype decides whether the output is that row; any other output is no row at all.
    same = [index for index, row in enumerate(rows) if torch.equal(row.to(torch.float64), point)]
    best = float(scores[order[0]])
    mine = min((float(scores[index]) for index in same), default=math.inf)
    excess = 0.0 if mine == best else (mine / best - 1.0 if best > 0.0 else math.inf)
    rank = sorted(scores.tolist()).index(mine) + 1 if same else None
    said = f"the output is row {same[0]}, of rank {rank} by score" if same else "the output is none of the rows"
    return Certificate(
        rule=rule,
        count=len(rows),
        faulty_max=faulty_max,
        excess=excess,
        score_order=order,
        because=f"{said} among {len(rows)} with {name_faulty(faulty_max)}",
    )


def certify_multi_krum(
    updates: Updates,
    output: Tensor,
    *,
    faulty_max: int,
    selected: int | None = None,
    neighbours: int | None = None,
) -> Certificate:
    """Judge ``output`` as the mean of the ``selected`` rows with the lowest Krum scores, scored afresh.

    Where the scores on both sides of the cut are nearly equal, whoever takes distances in float32 may select otherwise;
    the sentence says by how much the first score left out is higher.

    Args:
        selected: how many rows are averaged, 1..n; None for n - faulty_max.
        updates, output, faulty_max, neighbours: as for ``certify_krum``.
    """
    rule = "multi_krum"
    rows, point = judged_rows(rule, updates, output)
    scores, order = _scores(rule, rows, faulty_max=faulty_max, neighbours=neighbours)
    wanted = resolve_selected(rule, selected, count=len(rows), faulty_max=faulty_max)
    chosen = [rows[index] for index in order[:wanted]]
    excess = farthest_from_mean(chosen, point, [1.0 / wanted] * wanted)
    because = f"the output is at most {excess:.3g} in any coordinate from the mean of the {wanted} rows of lowest score"
    if wanted < len(rows):
        last, next_score = (float(scores[order[place]]) for place in (wanted - 1, wanted))
        margin = next_score / last - 1.0 if last > 0.0 else (math.inf if next_score > 0.0 else 0.0)
        because += f", of which the next is {100.0 * margin:.3g} % higher"
    return Certificate(
        rule=rule,
        count=len(rows),
        faulty_max=faulty_max,
        excess=excess,
        score_order=order,
        because=f"{because}, with {name_faulty(faulty_max)}",
    )


def _scores(
    rule: str, rows: tuple[Tensor, ...], *, faulty_max: int, neighbours: int | None
) -> tuple[Tensor, tuple[int, ...]]:
    """Return the rows' Krum scores in a unit of their own, and the rows in the rule's order: ties by total, content."""
    check_count(rule, count=len(rows), faulty_max=faulty_max, beyond=3)
    counted = resolve_neighbours(rule, neighbours, count=len(rows), faulty_max=faulty_max)
    far = torch.stack([distances_to(rows, row.to(torch.float64)) for row in rows])
    nearest = far.sort(dim=1).values[:, 1 : counted + 1]
    # In units of the least reach of any row the scores that matter neither overflow nor vanish, whoever lies far out.
    reach = nearest[:, -1][nearest[:, -1] > 0.0]
    unit = reach.min() if len(reach) else torch.tensor(1.0, dtype=torch.float64)
    scores, totals = (nearest / unit).square().sum(dim=1), (far / unit).square().sum(dim=1)
    content = content_order(rows)
    places = lowest_scores(scores[list(content)], len(rows), totals=totals[list(content)])
    return scores, tuple(content[place] for place in places)
