"""Cutting a packed vector into shards of coordinates, each with a layout of its own, and joining them again.

Source: HQDE clause 3.8. Pure. A shard is packed like any vector, so screening, sums and rules work on it unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from hqde_ref.core.packing import byte_ranges, digest, element_count, is_float, pack, packed_bytes, unpack
from hqde_ref.errors import ConfigurationError, LayoutError
from hqde_ref.messages import Entry, Layout, Payload, message

__all__ = ["Slice", "cut", "cut_rows", "float_slices", "join", "name_pieces", "shard_layouts"]


@message
class Slice:
    """Coordinates [start, stop) of the flattened entry ``index`` of the whole layout."""

    index: int
    start: int
    stop: int


@lru_cache(maxsize=64)
def _slices(layout: Layout, shards: int) -> tuple[tuple[Slice, ...], ...]:
    """What each shard holds: floating and integer coordinates are each dealt in equal contiguous runs."""
    if shards < 1:
        raise ConfigurationError(setting="shards", wanted="at least 1", got=shards, do="use one shard a reducer")
    dealt: list[list[Slice]] = [[] for _ in range(shards)]
    for floating in (True, False):
        entries = [(i, element_count(e)) for i, e in enumerate(layout.entries) if is_float(e) == floating]
        total, at = sum(count for _, count in entries), 0
        for index, count in entries:
            for shard in range(shards):
                low, high = total * shard // shards - at, total * (shard + 1) // shards - at
                start, stop = max(low, 0), max(0, min(high, count))
                # An entry without coordinates still belongs somewhere, so that joining gives every name back.
                if start < stop or (count == 0 and shard == 0):
                    dealt[shard].append(Slice(index=index, start=start, stop=stop))
            at += count
    return tuple(tuple(sorted(slices, key=lambda s: (s.index, s.start))) for slices in dealt)


@lru_cache(maxsize=64)
def shard_layouts(layout: Layout, shards: int) -> tuple[Layout, ...]:
    """The layout of each shard; with one shard the layout itself.

    Raises:
        ConfigurationError: unless shards >= 1.
    """
    if shards == 1:
        return (layout,)
    return tuple(
        Layout(entries=tuple(_piece(layout.entries[s.index], s) for s in slices)) for slices in _slices(layout, shards)
    )


def _piece(entry: Entry, piece: Slice) -> Entry:
    if piece.start == 0 and piece.stop == element_count(entry):
        return entry
    return dataclasses.replace(
        entry, name=f"{entry.name}[{piece.start}:{piece.stop}]", shape=(piece.stop - piece.start,)
    )


def cut(packed: Tensor, layout: Layout, shards: int) -> tuple[Tensor, ...]:
    """The shards of a packed vector; with one shard the vector itself."""
    if shards == 1:
        return (packed,)
    tensors = list(unpack(packed, layout).values())
    pieces = []
    for slices, part in zip(_slices(layout, shards), shard_layouts(layout, shards), strict=True):
        values = {
            entry.name: tensors[s.index].reshape(-1)[s.start : s.stop].view(entry.shape)
            for s, entry in zip(slices, part.entries, strict=True)
        }
        pieces.append(pack(values, part))
    return tuple(pieces)


def name_pieces(source: str, pieces: Sequence[Tensor]) -> tuple[tuple[Payload, ...], tuple[str, ...]]:
    """The pieces as payloads and their digests; keys hold the digests, so that equal ones mean equal bytes."""
    digests = tuple(map(digest, pieces))
    payloads = tuple(
        Payload(key=f"{source}/{shard}/{code}", ref=piece, nbytes=piece.numel())
        for shard, (piece, code) in enumerate(zip(pieces, digests, strict=True))
    )
    return payloads, digests


def cut_rows(rows: Sequence[Tensor], layout: Layout, shards: int) -> tuple[Tensor, ...]:
    """Arenas: for each shard the pieces of all these packed vectors, one after the other, copied once."""
    if shards == 1:
        return (torch.cat(list(rows)),)
    whole = byte_ranges(layout)
    arenas = []
    for slices, part in zip(_slices(layout, shards), shard_layouts(layout, shards), strict=True):
        arena = torch.zeros(len(rows), packed_bytes(part), dtype=torch.uint8)
        for s, (low, high) in zip(slices, byte_ranges(part), strict=True):
            count = s.stop - s.start
            start = whole[s.index][0] + s.start * ((high - low) // max(count, 1))
            for target, row in zip(arena, rows, strict=True):
                target[low:high] = row[start : start + high - low]
        arenas.append(arena.view(-1))
    return tuple(arenas)


def join(pieces: Sequence[Tensor], layout: Layout) -> Tensor:
    """The packed vector whose shards these are.

    Raises:
        LayoutError: when a piece has another size than its shard.
    """
    if len(pieces) == 1:
        if pieces[0].numel() != packed_bytes(layout):
            raise LayoutError(
                what="joining",
                wanted=f"{packed_bytes(layout)} bytes",
                got=f"{pieces[0].numel()} bytes",
                do="use its layout",
            )
        return pieces[0]
    whole = torch.zeros(packed_bytes(layout), dtype=torch.uint8)
    targets = [tensor.view(-1) for tensor in unpack(whole, layout).values()]
    shards = len(pieces)
    for piece, slices, part in zip(pieces, _slices(layout, shards), shard_layouts(layout, shards), strict=True):
        for values, s in zip(unpack(piece, part).values(), slices, strict=True):
            targets[s.index][s.start : s.stop] = values.reshape(-1)
    return whole


@lru_cache(maxsize=64)
def float_slices(layout: Layout, shards: int) -> tuple[tuple[int, ...], ...]:
    """For each shard and each of its float blocks: which float block of the whole layout it is a part of."""
    numbers = {index: number for number, index in enumerate(i for i, e in enumerate(layout.entries) if is_float(e))}
    return tuple(tuple(numbers[s.index] for s in slices if s.index in numbers) for slices in _slices(layout, shards))
