"""A robust rule node by node up a tree: what one node makes of its children's results.

Source: HQDE clauses 0.8, 0.9, 3.7 and 4.7. Pure.

Between nodes a result is a float64 row, rounded once at the root, followed by the untouched integer rows of its
members: lower medians do not compose, so those travel unreduced.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.combining import lower_median, resolve_rows
from hqde_ref.core.packing import float_blocks, merge_rows, split_rows
from hqde_ref.messages import Condense

__all__ = ["condense"]


def condense(request: Condense, parts: Sequence[Tensor]) -> tuple[Tensor, float | None]:
    """This node's result (see ``Condense``), and its radius factor (see ``Combined``).

    Raises:
        BrokenCertificate: the node's result of a certified rule promises nothing.
    """
    layout = request.layout
    if request.leaf:
        pairs = [split_rows(part, layout) for part in parts]
        rows = [row.double() for row, _ in pairs]
        integers = [integer for _, integer in pairs]
    else:
        width = 8 * sum(stop - start for start, stop in float_blocks(layout))
        rows = [part[:width].view(torch.float64) for part in parts]
        integers = [part[width:].view(torch.int64) for part in parts]
    found = resolve_rows(rows, rule=request.rule, faulty_max=request.faulty_max, rejections_max=0, outlier_factor=None)
    own = found.evidence.radius_factor
    table = torch.cat(integers)
    if request.root:
        packed = merge_rows(found.row, lower_median(table.view(len(request.workers), -1)), layout)
    else:
        packed = torch.cat([found.row.contiguous().view(torch.uint8), table.view(torch.uint8)])
    whole = None if own is None or request.radius_factor is None else own * request.radius_factor
    return packed, whole
