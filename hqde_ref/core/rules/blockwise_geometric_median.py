"""Blockwise geometric median: the geometric median of each block of coordinates, say each tensor of a model, by itself.

Its kappa is that of the joint rule, since errors and variances add over blocks. A bound by the greatest distance does
not: with B blocks it is up to sqrt(B) times the joint one. In return a liar that is far off in one tensor has no less
say in the others, and one that hides in a small tensor is seen there.

Source: HQDE clauses 4.5 and 4.7; Minsker 2015 (arXiv:1308.1334), block by block.
Pure: no clock, no randomness, no input or output; arguments are never changed. It commutes with rotations within blocks
only. Without blocks, as in a round, the whole row is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor

from hqde_ref.core.kernels.rows import Updates, as_rows, check_count, check_weights, require_data, require_finite
from hqde_ref.core.rules.geometric_median import geometric_median
from hqde_ref.errors import LayoutError

__all__ = ["blockwise_geometric_median", "resolve_blocks"]

_RULE = "blockwise_geometric_median"
Blocks = Sequence[tuple[int, int]]


def blockwise_geometric_median(
    updates: Updates,
    *,
    faulty_max: int,
    blocks: Blocks | None = None,
    weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """Return the geometric median of each block of coordinates by itself, joined to one row (d,).

    Args:
        updates, faulty_max, weights: as for ``geometric_median``, whose errors it raises too.
        blocks: (low, high) ranges that cover 0..d in order, as ``hqde_ref.core.packing.float_blocks`` gives them for
            the tensors of a layout; None for one block.
    Raises:
        LayoutError: the blocks are not as said.
    """
    rows = as_rows(updates, rule=_RULE)
    check_count(_RULE, count=len(rows), faulty_max=faulty_max)
    given = check_weights(_RULE, weights, count=len(rows))
    require_data(_RULE, rows)
    ranges = resolve_blocks(blocks, length=rows[0].numel())
    require_finite(_RULE, rows)  # by this name, and those too that are bad in a later block
    parts = [
        geometric_median([row[low:high] for row in rows], faulty_max=faulty_max, weights=given) for low, high in ranges
    ]
    return torch.cat(parts) if parts else rows[0].clone()


def resolve_blocks(blocks: Blocks | None, *, length: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges meant, those without coordinates left out; arguments and errors as for the rule."""
    found = ((0, length),) if blocks is None else _as_pairs(blocks)
    edges = [0] + [high for _, high in found or ()]
    if found is None or [low for low, _ in found] != edges[:-1] or edges[-1] != length or sorted(edges) != edges:
        raise LayoutError(
            what=f"blocks of {_RULE}",
            wanted=f"ranges (pairs of integers) that cover 0..{length} in order",
            got=repr(blocks)[:80],
            do="use the layout's own entries",
        )
    return tuple((low, high) for low, high in found if low < high)


def _as_pairs(blocks: object) -> tuple[tuple[int, int], ...] | None:
    try:
        return tuple((index(low), index(high)) for low, high in blocks)  # type: ignore[attr-defined]
    except (TypeError, ValueError):  # no iterable, no pairs, or no integers
        return None
