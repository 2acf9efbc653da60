"""A model's tensors as one flat run of bytes, and back.

Source: HQDE clauses 0.2, 0.6, 0.8. Pure: arguments are never changed, except that ``unpack`` gives views.

Entries stand in layout order, each aligned to eight bytes with zeros between, so equal tensors give equal bytes and one
digest covers everything. Aggregation sees two rows: all floating entries as one float row, all integer and boolean
entries as one int64 row.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Final

import torch
import xxhash
from torch import Tensor

from hqde_ref.core.kernels.exact_sums import round_once
from hqde_ref.errors import LayoutError
from hqde_ref.messages import Entry, Layout

__all__ = [
    "byte_ranges",
    "digest",
    "element_count",
    "exact_dtype",
    "find_misfit",
    "fingerprint",
    "float_blocks",
    "float_tables",
    "is_float",
    "layout_of",
    "merge_rows",
    "pack",
    "packed_bytes",
    "row_dtype",
    "split_rows",
    "unpack",
]

_FLOATS: Final = {t: getattr(torch, t) for t in ("float16", "bfloat16", "float32", "float64")}
_INTEGERS: Final = {t: getattr(torch, t) for t in ("bool", "uint8", "int8", "int16", "int32", "int64")}
_DTYPES: Final = _FLOATS | _INTEGERS
_ALIGN: Final = 8


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """The layout of these tensors, in their order.

    Raises:
        LayoutError: for a dtype that has no aggregation (complex, quantised).
    """
    entries = []
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise LayoutError(what=f"parameter {name!r}", wanted=" or ".join(_DTYPES), got=dtype, do="convert it first")
        entries.append(Entry(name=name, shape=tuple(tensor.shape), dtype=dtype))
    return Layout(entries=tuple(entries))


@lru_cache(maxsize=256)
def fingerprint(layout: Layout) -> str:
    """Sixteen hexadecimal digits that name the layout."""
    text = ";".join(f"{e.name!r}:{e.dtype}{e.shape}" for e in layout.entries)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def element_count(entry: Entry) -> int:
    """How many coordinates an entry has."""
    count = 1
    for size in entry.shape:
        count *= size
    return count


def is_float(entry: Entry) -> bool:
    """Whether an entry is floating; the others are integers or booleans."""
    return entry.dtype in _FLOATS


@lru_cache(maxsize=256)
def _places(layout: Layout) -> tuple[tuple[Entry, int, int], ...]:
    """Each entry with the half-open range of bytes it takes."""
    places, at = [], 0
    for entry in layout.entries:
        stop = at + element_count(entry) * _DTYPES[entry.dtype].itemsize
        places.append((entry, at, stop))
        at = -(-stop // _ALIGN) * _ALIGN
    return tuple(places)


def packed_bytes(layout: Layout) -> int:
    """How many bytes ``pack`` makes of this layout."""
    places = _places(layout)
    return -(-places[-1][2] // _ALIGN) * _ALIGN if places else 0


@lru_cache(maxsize=256)
def float_blocks(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Half-open coordinate ranges of the floating entries within the float row."""
    blocks, at = [], 0
    for entry in layout.entries:
        if entry.dtype in _FLOATS:
            blocks.append((at, at + element_count(entry)))
            at += element_count(entry)
    return tuple(blocks)


@lru_cache(maxsize=256)
def row_dtype(layout: Layout) -> torch.dtype:
    """The dtype of the float row: the widest of its entries; float32 where there is none."""
    kinds: set[torch.dtype] = {_FLOATS[e.dtype] for e in layout.entries if e.dtype in _FLOATS}
    if len(kinds) == 1:
        return next(iter(kinds))
    return torch.float64 if torch.float64 in kinds else torch.float32


@lru_cache(maxsize=256)
def exact_dtype(layout: Layout) -> torch.dtype:
    """What a mean is divided in before each entry is rounded once: the entries' own dtype where they share one."""
    kinds = {entry.dtype for entry in layout.entries if entry.dtype in _FLOATS}
    return row_dtype(layout) if len(kinds) == 1 else torch.float64


def find_misfit(tensors: Mapping[str, Tensor], layout: Layout) -> str | None:
    """Say how these tensors differ from the layout, or None if they do not (clause 0.6)."""
    wanted = {entry.name: entry for entry in layout.entries}
    for name in wanted:
        if name not in tensors:
            near = difflib.get_close_matches(name, list(tensors), n=1)
            return f"parameter {name!r} is missing" + (f" (there is {near[0]!r})" if near else "")
    for name, tensor in tensors.items():
        if name not in wanted:
            return f"parameter {name!r} is not in the layout"
        entry = wanted[name]
        if tuple(tensor.shape) != entry.shape:
            return f"parameter {name!r} has shape {tuple(tensor.shape)}, wanted {entry.shape}"
        if str(tensor.dtype) != f"torch.{entry.dtype}":
            return f"parameter {name!r} has dtype {str(tensor.dtype).removeprefix('torch.')}, wanted {entry.dtype}"
    return None


def pack(tensors: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Copy tensors into one 1-D ``uint8`` tensor of ``packed_bytes(layout)`` bytes, on the CPU.

    Raises:
        LayoutError: when they do not fit the layout.
    """
    misfit = find_misfit(tensors, layout)
    if misfit is not None:
        raise LayoutError(
            what="packing", wanted="tensors of the declared layout", got=misfit, do="declare their layout"
        )
    packed = torch.zeros(packed_bytes(layout), dtype=torch.uint8)
    for entry, start, stop in _places(layout):
        packed[start:stop].view(_DTYPES[entry.dtype]).copy_(tensors[entry.name].detach().reshape(-1))
    return packed


def unpack(packed: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The tensors in a packed vector, as views of it.

    Raises:
        LayoutError: when it has another size than the layout.
    """
    if packed.numel() != packed_bytes(layout):
        raise LayoutError(
            what="unpacking",
            wanted=f"{packed_bytes(layout)} bytes",
            got=f"{packed.numel()} bytes",
            do="use the layout it was packed with",
        )
    return {
        entry.name: packed[start:stop].view(_DTYPES[entry.dtype]).view(entry.shape)
        for entry, start, stop in _places(layout)
    }


def split_rows(packed: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """The float row (d,) and the int64 row (k,) of a packed vector; the former is a view where it can be one."""
    kind, span = row_dtype(layout), _float_span(layout)
    pieces = [(entry, packed[start:stop].view(_DTYPES[entry.dtype])) for entry, start, stop in _places(layout)]
    integers = [piece.to(torch.int64) for entry, piece in pieces if entry.dtype not in _FLOATS]
    if span is not None:
        row = packed[span[0] : span[1]].view(kind)
    else:
        row = torch.cat([piece.to(kind) for entry, piece in pieces if entry.dtype in _FLOATS])
    return row, torch.cat(integers) if integers else torch.empty(0, dtype=torch.int64)


@lru_cache(maxsize=256)
def _float_span(layout: Layout) -> tuple[int, int] | None:
    """The bytes of all floating entries, if they are of one dtype and follow each other without a gap."""
    places = [(entry, start, stop) for entry, start, stop in _places(layout) if entry.dtype in _FLOATS]
    if not places:
        return 0, 0
    one_kind = len({entry.dtype for entry, _, _ in places}) == 1
    if not one_kind or any(stop != start for (_, _, stop), (_, start, _) in pairwise(places)):
        return None
    return places[0][1], places[-1][2]


def byte_ranges(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Where each entry lies in a packed vector."""
    return tuple((start, stop) for _, start, stop in _places(layout))


def float_tables(arena: Tensor, layout: Layout, *, rows: int) -> list[Tensor]:
    """Each floating entry of all packed rows of an arena, (rows, count) as a view."""
    table = arena.view(rows, -1)
    return [
        table[:, start:stop].view(_DTYPES[entry.dtype])
        for entry, start, stop in _places(layout)
        if entry.dtype in _FLOATS
    ]


def merge_rows(floats: Tensor, integers: Tensor, layout: Layout) -> Tensor:
    """Pack a float row and an int64 row; each float entry is rounded once to its own dtype (clause 0.9)."""
    packed = torch.zeros(packed_bytes(layout), dtype=torch.uint8)
    float_at = integer_at = 0
    for entry, start, stop in _places(layout):
        count, target = element_count(entry), packed[start:stop].view(_DTYPES[entry.dtype])
        if entry.dtype in _FLOATS:
            piece = floats[float_at : float_at + count]
            target.copy_(round_once(piece, target.dtype) if piece.dtype == torch.float64 else piece)
            float_at += count
        else:
            target.copy_(integers[integer_at : integer_at + count])
            integer_at += count
    return packed


def digest(packed: Tensor) -> str:
    """xxh3-128 of the bytes: detects corruption (clause 6.8), not malice."""
    return xxhash.xxh3_128_hexdigest(packed.contiguous().view(torch.uint8).numpy().data)
