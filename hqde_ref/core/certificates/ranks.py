"""Certificate of a coordinate-wise rule: between which ranks the output lies, and how far from the rule's own value.

Source: HQDE clause 4.5.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

from torch import Tensor

from hqde_ref.core.certificates.certificate import Certificate, judge, name_faulty
from hqde_ref.core.kernels.gram import scale_up
from hqde_ref.core.kernels.rows import Updates, check_count

__all__ = ["certify_ranks"]


def certify_ranks(updates: Updates, output: Tensor, *, faulty_max: int, rule: str, low: int, high: int) -> Certificate:
    """Judge ``output`` by the ranks of its coordinates among the rows.

    Args:
        updates, output, faulty_max: as for ``certify_geometric_median``, whose errors it raises too.
        rule: the rule claimed.
        low, high: 1-based ranks, of which the rule's coordinates are the means.
    """
    judged = judge(rule, updates, output)
    count, excess = len(judged.rows), 0.0
    check_count(rule, count=count, faulty_max=faulty_max)
    below = above = count
    for block in judged.differences_to(judged.point):
        below = min(below, int((block <= 0.0).sum(dim=0).min()))
        above = min(above, int((block >= 0.0).sum(dim=0).min()))
        ordered = block.sort(dim=0).values
        off = (ordered[low - 1 : high] / (high + 1 - low)).sum(dim=0)
        excess = max(excess, scale_up(float(off.abs().max()), judged.unit))
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
        because=f"every coordinate {where} of {ranked}, {place} the honest range with {name_faulty(faulty_max)}{aside}",
    )
