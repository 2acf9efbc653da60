"""Map, shuffle and reduce over parameters: which mapper takes which items, which reducer which names.

Source: HQDE clauses 2.1 to 2.4 with errata E4, E5. Pure.

Map emits one pair (parameter name, tensor with its source) for every parameter of every item. A mapper packs its pairs
by the reducer that owns the name, one arena a reducer: the rows of its items over that reducer's parameters, stacked.
The shuffle is then who reads which arena.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from hqde_ref.core.packing import element_count, pack, packed_bytes, unpack
from hqde_ref.errors import LayoutError, require_integer
from hqde_ref.messages import Layout

__all__ = [
    "accuracy_masses",
    "join_parts",
    "map_item",
    "partition_items",
    "partition_names",
    "rows_of",
    "softmax",
    "stack_rows",
]


def partition_items(count: int, *, mappers: int) -> tuple[tuple[int, ...], ...]:
    """Items dealt to mappers in turn; mappers without an item are left out (clause 2.3).

    Raises:
        ConfigurationError: unless mappers >= 1.
    """
    require_integer("mappers", mappers, least=1, do="use one or more")
    return tuple(found for start in range(mappers) if (found := tuple(range(start, count, mappers))))


@lru_cache(maxsize=64)
def partition_names(layout: Layout, *, reducers: int) -> tuple[Layout, ...]:
    """The parameters of each reducer: largest first, each to the reducer with the least so far (Graham 1969).

    Reducers without a parameter are left out.

    Raises:
        ConfigurationError: unless reducers >= 1.
    """
    require_integer("reducers", reducers, least=1, do="use one or more")
    sizes = [0] * reducers
    dealt: list[list[int]] = [[] for _ in range(reducers)]
    for index in sorted(range(len(layout.entries)), key=lambda i: (-element_count(layout.entries[i]), i)):
        owner = sizes.index(min(sizes))
        dealt[owner].append(index)
        sizes[owner] += element_count(layout.entries[index]) + 1  # an empty parameter is work too
    return tuple(Layout(entries=tuple(layout.entries[i] for i in sorted(mine))) for mine in dealt if mine)


def map_item(packed: Tensor, layout: Layout, parts: Sequence[Layout]) -> tuple[Tensor, ...]:
    """The pairs of one item, packed by the reducer that owns each name."""
    tensors = unpack(packed, layout)
    return tuple(pack({entry.name: tensors[entry.name] for entry in part.entries}, part) for part in parts)


def stack_rows(rows: Sequence[Tensor]) -> Tensor:
    """Packed rows of one layout, one after the other."""
    return torch.cat(list(rows))


def rows_of(arena: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """The packed rows of an arena, as views.

    Raises:
        LayoutError: when its size is no multiple of a row's.
    """
    size = packed_bytes(layout)
    if size == 0 or arena.numel() % size:
        raise LayoutError(
            what="an arena", wanted=f"rows of {size} bytes", got=f"{arena.numel()} bytes", do="use its rows' layout"
        )
    return tuple(arena[start : start + size] for start in range(0, arena.numel(), size))


def join_parts(parts: Sequence[Tensor], layouts: Sequence[Layout], layout: Layout) -> Tensor:
    """The packed vector whose parameters the reducers have."""
    tensors: dict[str, Tensor] = {}
    for part, mine in zip(parts, layouts, strict=True):
        tensors |= unpack(part, mine)
    return pack(tensors, layout)


def softmax(values: Sequence[float]) -> tuple[float, ...]:
    """exp(v) / sum of exp, in float64 (clause 2.2; E4 gives the document's example its true numbers)."""
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    total = math.fsum(powers)
    return tuple(power / total for power in powers)


def accuracy_masses(accuracies: Mapping[str, float | None]) -> tuple[dict[str, float], dict[str, str]]:
    """Masses by softmax of accuracy, and who is rejected since it gives none in [0, 1] (clause 2.4, E5).

    Returns:
        Masses by worker, and reasons by worker.
    """
    rejected: dict[str, str] = {}
    good: dict[str, float] = {}
    for worker, accuracy in accuracies.items():
        if accuracy is None:
            rejected[worker] = "accuracy: it gives none, and the weighting needs one"
        elif isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0.0 <= accuracy <= 1.0:
            rejected[worker] = f"accuracy: it gives {accuracy!r}, wanted a number in [0, 1]"
        else:
            good[worker] = float(accuracy)
    return dict(zip(good, softmax(list(good.values())), strict=True)) if good else {}, rejected
