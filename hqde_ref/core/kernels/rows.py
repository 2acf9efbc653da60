"""The one gate that every kernel and rule lets its input through, and the order that content gives to rows.

Updates are a sequence of 1-D tensors, or one (n, d) tensor (an "arena"), of one dtype, device and length.

Source: HQDE clauses 0.1, 0.3, 0.5, 0.6, 0.7 and 4.9.
Pure: no clock, no randomness, no input or output; arguments are never changed. Nothing here copies a row, pads,
broadcasts or drops one: what does not fit is refused with a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from typing import NamedTuple, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor

from hqde_ref.errors import ConfigurationError, LayoutError, NotFinite, TooFewContributions, require_integer

__all__ = [
    "FLOATS",
    "Joined",
    "Updates",
    "as_rows",
    "check_arena",
    "check_count",
    "check_weights",
    "choose_block_length",
    "choose_sum_length",
    "content_classes",
    "content_order",
    "cut_blocks",
    "is_finite_row",
    "new_row",
    "rejoin",
    "require_data",
    "require_finite",
    "require_finite_part",
    "wide_dtype",
]

Updates: TypeAlias = Tensor | Sequence[Tensor]

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_KEYS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_ROWS = "an (n, d) tensor or a sequence of 1-D tensors"
_LINE = 64  # bytes of a cache line
_FEW = 8
# Shorter blocks cost more in calls than they save in cache: measured where a core has 1 MB of it, and all share 32 MB.
_CPU_BLOCK = 1 << 16
_CACHE = 16 << 20
_GPU_BLOCK = 1 << 22
_SUM_BYTES = 1 << 20
_CLASS_VALUES = 1 << 20  # so many are compared at once


def as_rows(updates: Updates, *, rule: str) -> tuple[Tensor, ...]:
    """Return the rows of ``updates`` as detached views, after checking that they fit together.

    Args:
        updates: n one-dimensional tensors of length d in an order, or one (n, d) tensor.
        rule: who asks; the errors name it.
    Raises:
        TooFewContributions: there is no row.
        LayoutError: the rows are a mapping or a set; a row is not a 1-D floating tensor, or its dtype, device or length
            is not the first row's.
    """
    if isinstance(updates, Tensor):
        check_arena(updates, rule=rule)
        return updates.detach().unbind(0)
    if not isinstance(updates, Iterable):
        _misfit(rule, _ROWS, type(updates).__name__)
    if isinstance(updates, Mapping | Set):  # iterating gives keys, or an order of its own: not what weights refer to
        do = "pass list(rows.values())" if isinstance(updates, Mapping) else "put them in a list"
        _misfit(rule, "a sequence of rows in an order", type(updates).__name__, do)
    rows = tuple(updates)
    if not rows:
        raise TooFewContributions(rule=rule, faulty_max=None, needed=1, got=0)
    for index, row in enumerate(rows):
        if not isinstance(row, Tensor):
            _misfit(rule, "torch tensors", f"{type(row).__name__} in row {index}")
        if row.is_nested:
            _misfit(rule, "1-D rows", f"a nested tensor in row {index}", "flatten each contribution first")
        if row.layout != torch.strided:
            _misfit(rule, "dense rows", f"{row.layout} in row {index}", "call to_dense() first")
        if row.dim() != 1:
            _misfit(rule, "1-D rows", f"shape {tuple(row.shape)} in row {index}", "flatten each contribution first")
    _require_floats(rule, rows[0])
    _compare(rule, "dtype", [row.dtype for row in rows])
    _compare(rule, "device", [row.device for row in rows])
    _compare(rule, "length", [row.numel() for row in rows])
    return tuple(row.detach() for row in rows)


def check_arena(arena: Tensor, *, rule: str) -> None:
    """Refuse, as ``as_rows`` does, a tensor that is no (n, d) arena; nothing is done row by row."""
    if arena.is_nested:
        _misfit(rule, _ROWS, "a nested tensor", "pass its parts, tensor.unbind(), of one length")
    if arena.dim() != 2:
        _misfit(rule, _ROWS, f"a tensor of shape {tuple(arena.shape)}")
    if len(arena) == 0:
        raise TooFewContributions(rule=rule, faulty_max=None, needed=1, got=0)
    if arena.layout != torch.strided:
        _misfit(rule, "dense rows", f"{arena.layout} in row 0", "call to_dense() first")
    _require_floats(rule, arena)


def _require_floats(rule: str, first: Tensor) -> None:
    if first.dtype not in FLOATS:
        lower = "hqde_ref.core.combining.lower_median"
        do = f"aggregate integer and boolean entries by their lower median, {lower} (clause 0.8)"
        if first.is_complex():
            do = "pass torch.view_as_real(row).flatten(), real and imaginary parts side by side, or row.real"
        elif first.is_floating_point():
            do = "convert every row with row.to(torch.float32)"
        _misfit(rule, "float16, bfloat16, float32 or float64 rows", f"{first.dtype} in row 0", do)


def _compare(rule: str, what: str, found: Sequence[object]) -> None:
    odd = [index for index, value in enumerate(found) if value != found[0]]
    if odd:
        listed = ", ".join(map(str, odd[:_FEW])) + (", ..." if len(odd) > _FEW else "")
        _misfit(
            rule,
            f"one {what} in all rows ({found[0]}, as in row 0)",
            f"{found[odd[0]]} in row(s) {listed}",
            "reject misshapen contributions before aggregating (clause 0.6)",
        )


def _misfit(rule: str, wanted: str, got: str, do: str = "pass one row per contribution") -> NoReturn:
    raise LayoutError(what=f"updates of {rule}", wanted=wanted, got=got, do=do)


def check_count(rule: str, *, count: int, faulty_max: int, per_faulty: int = 2, beyond: int = 1) -> None:
    """Refuse a nonsensical ``faulty_max``, and fewer rows than ``per_faulty * faulty_max + beyond``.

    Raises:
        ConfigurationError: ``faulty_max`` is not an integer of at least 0.
        TooFewContributions: there are fewer.
    """
    do = "say how many contributions may hold anything at all"
    require_integer(f"faulty_max of {rule}", faulty_max, least=0, do=do)
    least = per_faulty * faulty_max + beyond
    if count < least:
        raise TooFewContributions(rule=rule, faulty_max=faulty_max, needed=least, got=count)


def check_weights(rule: str, weights: Sequence[float] | Tensor | None, *, count: int) -> tuple[float, ...]:
    """Return ``count`` positive finite weights as floats; ``None`` means 1.0 each.

    Raises:
        LayoutError: the number of weights is not the number of rows, or they have no order or no data.
        ConfigurationError: a weight is not a finite number above 0.
    """
    if weights is None:
        return (1.0,) * count
    given = _weight_list(rule, weights, count) if isinstance(weights, Tensor) else weights
    if isinstance(given, Mapping | Set):  # iterating would take the keys for weights
        raise LayoutError(
            what=f"weights of {rule}",
            wanted="a sequence, one weight per row in their order",
            got=type(given).__name__,
            do="list them: [weights[name] for name in the order of the rows]",
        )
    is_listed = isinstance(given, Sized) and not isinstance(given, str | bytes)
    if not is_listed or len(given) != count:
        raise LayoutError(
            what=f"weights of {rule}",
            wanted=f"{count} (one per row)",
            got=str(len(given)) if is_listed else type(given).__name__,
            do="give every contribution exactly one weight",
        )
    values = tuple(_number(rule, index, value) for index, value in enumerate(given))
    for index, value in enumerate(values):
        if not (math.isfinite(value) and value > 0.0):
            raise ConfigurationError(
                setting=f"weight {index} of {rule}",
                wanted="finite and above 0",
                got=value,
                do="leave out a contribution that should not count",
            )
    try:
        math.fsum(values)
    except OverflowError:
        raise ConfigurationError(
            setting=f"sum of the weights of {rule}",
            wanted="at most the greatest float64",
            got=math.inf,
            do="divide all weights by their largest: only their ratios count",
        ) from None
    return values


def _weight_list(rule: str, weights: Tensor, count: int) -> list[object]:
    wanted, do = f"{count} (one per row)", "give every contribution exactly one weight"
    if weights.is_nested:
        got = "a nested tensor"
    elif weights.layout != torch.strided:
        got, do = f"a {weights.layout} tensor", "call to_dense() first"
    elif weights.dim() != 1:
        got = f"a tensor of shape {tuple(weights.shape)}"
    elif weights.is_meta:
        got, do = "a tensor on the meta device", "use real weights"
    else:
        listed: list[object] = weights.tolist()
        return listed
    raise LayoutError(what=f"weights of {rule}", wanted=wanted, got=got, do=do)


def _number(rule: str, index: int, value: object) -> float:
    try:
        if not isinstance(value, str | bytes):
            return float(value)  # type: ignore[arg-type]  # whatever says it is a number, be it a tensor of no dimension
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass  # said below; torch's own of a tensor without data is a RuntimeError
    raise ConfigurationError(
        setting=f"weight {index} of {rule}", wanted="a float64 number", got=value, do="give plain numbers, one per row"
    )


class Joined(NamedTuple):
    """Rows that lie evenly spaced in one storage: ``rows[i]`` is ``arena[places[i]]``, places a permutation."""

    arena: Tensor
    places: tuple[int, ...]


def rejoin(rows: Sequence[Tensor]) -> Joined | None:
    """Return the rows as one (n, d) view, without copying, where they are the rows of an arena in any order."""
    first = rows[0]
    offsets = sorted((row.storage_offset(), index) for index, row in enumerate(rows))
    step = offsets[1][0] - offsets[0][0] if len(rows) > 1 else max(1, first.numel())
    storage = first.untyped_storage().data_ptr()
    even = all(offset == offsets[0][0] + place * step for place, (offset, _) in enumerate(offsets))
    if (
        not even
        or step < first.numel()
        or any(row.untyped_storage().data_ptr() != storage or row.stride() != first.stride() for row in rows)
    ):
        return None
    places = [0] * len(rows)
    for place, (_, index) in enumerate(offsets):
        places[index] = place
    base = rows[offsets[0][1]]
    shape, strides = (len(rows), first.numel()), (step, first.stride(0))
    return Joined(arena=base.as_strided(shape, strides), places=tuple(places))


def require_data(rule: str, rows: Sequence[Tensor]) -> None:
    """Refuse rows on the meta device, which have a shape and no values: for rules that look at values first.

    Raises:
        LayoutError: there is no data.
    """
    if rows[0].is_meta:
        _misfit(rule, "rows with data", "rows on the meta device", "use real rows")


def require_finite(rule: str, rows: Sequence[Tensor]) -> None:
    """Refuse rows that hold NaN or an infinity; costs one read of the rows.

    A row's sum is finite unless the row is not, or its sum overflows; only then is the row looked at closely.

    Raises:
        NotFinite: it names the rows.
    """
    if rows[0].is_meta:
        return  # Tensors without data: shapes are all that can be checked.
    total = torch.stack([torch.sum(row, dtype=wide_dtype(row.dtype)) for row in rows])
    suspects = (~torch.isfinite(total)).nonzero().flatten().tolist()
    bad = tuple(index for index in suspects if not bool(torch.isfinite(rows[index]).all()))
    if bad:
        raise NotFinite(rule=rule, rows=bad)


def is_finite_row(row: Tensor) -> bool:
    """Ask whether a row, say a result, holds neither NaN nor an infinity; one without data counts as finite."""
    if row.is_meta:
        return True
    # A sum is fast, and finite unless the row is not or the sum overflows; only then is the row looked at closely.
    return math.isfinite(float(row.sum(dtype=wide_dtype(row.dtype)))) or bool(torch.isfinite(row).all())


def require_finite_part(rule: str, what: str, part: Tensor, *, do: str) -> None:
    """Refuse a tensor given beside the rows, ``what``, that holds NaN or an infinity.

    Raises:
        NotFinite: it says what it is, and ``do``.
    """
    if not part.is_meta and not bool(torch.isfinite(part).all()):
        raise NotFinite(rule=rule, what=what, do=do)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that values of ``dtype`` are accumulated in: float32 at least (clause 0.9)."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def choose_block_length(
    row: Tensor, *, rows_held: int, cache_bytes: int = _CACHE, least: int = 8192, most: int = _CPU_BLOCK
) -> int:
    """Return how many coordinates to handle at once so that ``rows_held`` buffers of that length stay in cache."""
    if row.device.type != "cpu":
        return _GPU_BLOCK
    length = most
    while length > least and rows_held * length * row.element_size() > cache_bytes:
        length //= 2
    return length


def choose_sum_length(sums: Tensor) -> int:
    """Return how many coordinates to add up at once, into memory like ``sums``.

    Few operations on long pieces: unlike a network, a running sum needs no more of the cache than itself.
    """
    return _SUM_BYTES // sums.element_size() if sums.device.type == "cpu" else _GPU_BLOCK


def new_row(like: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised row of the length and device of ``like``, and of its dtype unless another is given.

    On the CPU the memory is NumPy's, which asks the system for huge pages where a row is large: touching 40 MB for
    the first time in pages of 4 kB takes longer than reading eight rows of that size.
    """
    kind = like.dtype if dtype is None else dtype
    if like.device.type != "cpu":
        return torch.empty(like.numel(), dtype=kind, device=like.device)
    size = like.numel() * kind.itemsize
    memory = np.empty(size + _LINE, dtype=np.uint8)
    start = -memory.ctypes.data % _LINE
    return torch.from_numpy(memory[start : start + size]).view(kind)


def cut_blocks(rows: Sequence[Tensor], step: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield the rows' pieces of ``step`` coordinates, block by block: views, not to be written to."""
    if rows[0].numel() <= step:
        yield tuple(rows)
        return
    # torch.split takes twice the time, which shows where there are a thousand rows.
    yield from zip(*(torch.unsafe_split(row, step) for row in rows), strict=True)


def content_classes(rows: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Return the indices of equal rows together, the classes ordered lexicographically by the rows' bits.

    0.0 and -0.0 count as equal. Rules add rows and break ties in this order, so that the order of arrival leaves
    no trace (clause 0.3). Rows that differ early, as all but colluding ones do, cost next to nothing.
    """
    length, start, step = rows[0].numel(), 0, 64
    classes = [list(range(len(rows)))]
    while start < length and any(len(members) > 1 for members in classes):
        stop = min(length, start + step)
        classes = [part for members in classes for part in _split_class(rows, members, start, stop)]
        start, step = stop, max(64, min(step * 16, _CPU_BLOCK, _CLASS_VALUES // len(rows)))
    return tuple(map(tuple, classes))


def content_order(rows: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the indices of ``rows`` ordered by content, then by index; see ``content_classes``."""
    return tuple(index for members in content_classes(rows) for index in members)


def _split_class(rows: Sequence[Tensor], members: list[int], start: int, stop: int) -> list[list[int]]:
    if len(members) == 1:
        return [members]
    # Adding 0.0 turns -0.0 into 0.0.
    pieces = torch.stack([rows[index][start:stop] for index in members]).add_(0.0).view(_KEYS[rows[0].element_size()])
    if bool((pieces == pieces[:1]).all()):
        return [members]
    distinct, places = torch.unique(pieces, dim=0, return_inverse=True)
    parts: list[list[int]] = [[] for _ in range(len(distinct))]
    for index, place in zip(members, places.tolist(), strict=True):
        parts[place].append(index)
    return parts
