"""Map and shuffle behind the foreign request ``MapShuffle``: the pairs that real aggregators emit, by parameter name.

Source: HQDE clause 2.1. Mappers, reducers and the arenas between them are those of a MapReduce round; here the arenas
are opened again, to show every pair with its source.
"""

from __future__ import annotations

import math

from hqde_ref.core.mapreduce import partition_items, partition_names, rows_of
from hqde_ref.core.packing import digest, find_misfit, pack, packed_bytes, unpack
from hqde_ref.core.screening import MISSHAPEN
from hqde_ref.messages import Call, Layout, Map, Mapped, MapShuffle, Pair, Payload, Shuffled, Update
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.runtimes.local import Local

__all__ = ["shuffle"]


def shuffle(request: MapShuffle) -> Shuffled:
    """Map every item that fits the layout.

    Raises:
        ConfigurationError: unless there is a mapper and a reducer.
    """
    misfits = [find_misfit(item.tensors, request.layout) for item in request.items]
    items = [item for item, misfit in zip(request.items, misfits, strict=True) if misfit is None]
    parts = partition_names(request.layout, reducers=request.reducers)
    deal = partition_items(len(items), mappers=request.mappers)
    runtime = Local([AggregatorSpec(name=f"mapper {number}") for number in range(len(deal))])
    calls = [
        Call(node=f"mapper {number}", request=_map([items[index] for index in mine], request.layout, parts))
        for number, mine in enumerate(deal)
    ]
    groups: dict[str, list[Pair]] = {entry.name: [] for entry in request.layout.entries}
    for answer in runtime.ask(calls, enough=len(calls), until=math.inf):
        assert isinstance(answer.reply, Mapped), "nothing fails here"
        _open(answer.reply, parts, groups)
    unmapped = {
        item.worker: f"{MISSHAPEN}: {misfit}"
        for item, misfit in zip(request.items, misfits, strict=True)
        if misfit is not None
    }
    return Shuffled(groups={name: tuple(pairs) for name, pairs in groups.items()}, unmapped=unmapped)


def _map(items: list[Update], layout: Layout, parts: tuple[Layout, ...]) -> Map:
    packed = [pack(item.tensors, layout) for item in items]
    return Map(
        round=0,
        layout=layout,
        items=tuple(Payload(key=digest(row), ref=row, nbytes=row.numel()) for row in packed),
        workers=tuple(item.worker for item in items),
        parts=parts,
    )


def _open(mapped: Mapped, parts: tuple[Layout, ...], groups: dict[str, list[Pair]]) -> None:
    """Put a mapper's pairs into their groups."""
    for part, arena in zip(parts, mapped.arenas, strict=True):
        empty = packed_bytes(part) == 0  # parameters without values: nothing in the arena tells the rows apart
        rows = [arena.ref] * len(mapped.workers) if empty else rows_of(arena.ref, part)
        for source, row in zip(mapped.workers, rows, strict=True):
            for name, tensor in unpack(row, part).items():
                groups[name].append(Pair(source=source, tensor=tensor.clone()))
