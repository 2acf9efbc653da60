"""What properties draw: layouts, contributions, rounds with liars and crashes. Built with structure, nothing filtered.

Written without a look at the core. Small tensors shrink to small numbers ("steps": the i-th worker holds i + 1), larger
ones are made from a drawn seed; a few special cells are drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from hqde_ref.messages import Entry, Layout, Update, message

__all__ = [
    "FLOATS",
    "INTEGERS",
    "Faulted",
    "Round",
    "broken_rounds",
    "layouts",
    "masses",
    "name_workers",
    "rounds",
]

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "uint8", "bool")
_NAMES = ("weight", "bias", "layer.0.weight", "0", "running mean", "ünïcode")
_SHAPES = ((2,), (1,), (), (3,), (2, 2), (1, 3), (0,), (2, 1, 2))
_STYLES = ("steps", "drawn", "random")


@message
class Round:
    """Contributions of one round, in the order of their listing; all of them whole."""

    layout: Layout
    updates: tuple[Update, ...]
    faulty_max: int

    @property
    def workers(self) -> tuple[str, ...]:
        return tuple(update.worker for update in self.updates)


@message
class Faulted:
    """A round in which some contributions must be rejected, some members are silent, and some updates come twice.

    Attributes:
        updates: everything that arrives, in the order of its listing.
        members: who is expected; whole: who sent a proper contribution, bad: who did not (and why it is bad).
        doubled: copies of whole contributions that stand in ``updates`` once more.
    """

    layout: Layout
    updates: tuple[Update, ...]
    members: tuple[str, ...]
    whole: tuple[Update, ...]
    bad: dict[str, str]
    doubled: int
    faulty_max: int


def name_workers(count: int) -> tuple[str, ...]:
    """w0, w1, ...: as strings w10 comes before w2, which a sort by number would not notice."""
    return tuple(f"w{index}" for index in range(count))


@st.composite
def layouts(draw: st.DrawFn, dtypes: Sequence[str] = FLOATS, most: int = 3) -> Layout:
    """One to ``most`` entries of small shapes, empty and zero-dimensional ones among them."""
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=most, unique=True))
    return Layout(
        entries=tuple(
            Entry(name=name, shape=draw(st.sampled_from(_SHAPES)), dtype=draw(st.sampled_from(dtypes)))
            for name in names
        )
    )


def masses(count: int) -> st.SearchStrategy[list[float]]:
    """Masses from equal to very unequal; dyadic, so that oracles and masses agree exactly."""
    one = st.integers(1, 64).map(lambda quarters: quarters / 4)
    return st.one_of(st.just([1.0] * count), st.lists(one, min_size=count, max_size=count))


def _cells(draw: st.DrawFn, entry: Entry, worker: int, style: str, noise: np.random.Generator) -> Tensor:
    kind: torch.dtype = getattr(torch, entry.dtype)
    size = int(np.prod(entry.shape, dtype=int))
    if entry.dtype in INTEGERS:
        top = {"bool": 2, "uint8": 256}.get(entry.dtype, 1000)
        values = torch.from_numpy(noise.integers(0, top, size=size))
        if style == "steps":
            values = torch.full((size,), worker % top)
    elif style == "steps":
        values = torch.full((size,), worker + 1.0, dtype=torch.float64)
    elif style == "drawn":
        eighths = draw(st.lists(st.integers(-64, 64), min_size=size, max_size=size))
        values = torch.tensor(eighths, dtype=torch.float64) / 8
    else:
        values = torch.from_numpy(noise.standard_normal(size) * 2.0 ** noise.integers(-8, 9))
    return values.to(kind).reshape(entry.shape)


def _update(draw: st.DrawFn, layout: Layout, worker: str, index: int, style: str, noise: np.random.Generator) -> Update:
    tensors = {entry.name: _cells(draw, entry, index, style, noise) for entry in layout.entries}
    return Update(worker=worker, tensors=tensors)


@st.composite
def rounds(
    draw: st.DrawFn,
    *,
    least: int = 1,
    most: int = 9,
    dtypes: Sequence[str] = FLOATS,
    faulty_max: int = 0,
    weighted: bool = True,
    shuffled: bool = False,
    styles: Sequence[str] = _STYLES,
) -> Round:
    """Whole contributions of ``least`` to ``most`` workers, with masses when ``weighted``."""
    layout = draw(layouts(dtypes))
    count = draw(st.integers(least, max(least, most)))
    style = draw(st.sampled_from(styles))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    weights = draw(masses(count)) if weighted else [1.0] * count
    updates = [
        dataclasses.replace(_update(draw, layout, worker, index, style, noise), mass=weight)
        for index, (worker, weight) in enumerate(zip(name_workers(count), weights, strict=True))
    ]
    if shuffled:
        updates = draw(st.permutations(updates))
    return Round(layout=layout, updates=tuple(updates), faulty_max=faulty_max)


_POISON = (float("nan"), float("inf"), float("-inf"))


def _poisoned(draw: st.DrawFn, update: Update, layout: Layout) -> Update:
    """The same contribution with one cell that is no number."""
    name = draw(st.sampled_from([entry.name for entry in layout.entries if 0 not in entry.shape]))
    tensor = update.tensors[name].clone()
    tensor.view(-1)[draw(st.integers(0, tensor.numel() - 1))] = draw(st.sampled_from(_POISON))
    return dataclasses.replace(update, tensors={**update.tensors, name: tensor})


def _bend(draw: st.DrawFn, update: Update, layout: Layout) -> tuple[str, Update]:
    """A contribution that does not fit the layout, and how it does not; most would broadcast or cast in silence."""
    entry = draw(st.sampled_from(layout.entries))
    tensor, tensors = update.tensors[entry.name], dict(update.tensors)
    way = draw(st.sampled_from(("one value", "extra axis", "dtype", "missing", "extra", "longer")))
    match way:
        case "one value":
            tensors[entry.name] = torch.ones((1,) * (tensor.dim() + 1), dtype=tensor.dtype)
        case "extra axis":
            tensors[entry.name] = tensor.unsqueeze(0)
        case "dtype":
            tensors[entry.name] = tensor.to(torch.float32 if tensor.dtype == torch.float64 else torch.float64)
        case "missing":
            del tensors[entry.name]
        case "extra":
            tensors["not in the layout"] = torch.ones(2)
        case _:
            tensors[entry.name] = torch.cat([tensor.reshape(-1), torch.ones(1, dtype=tensor.dtype)])
    return way, dataclasses.replace(update, tensors=tensors)


@st.composite
def broken_rounds(
    draw: st.DrawFn,
    *,
    least: int,
    faulty_max: int,
    kinds: Sequence[str] = ("not finite", "misshapen"),
    silent: int = 2,
    doubles: bool = True,
    bad_at_least: int = 1,
) -> Faulted:
    """At least ``least`` whole contributions among bad, silent and repeated ones, in any order of listing."""
    filled = tuple(shape for shape in _SHAPES if 0 not in shape)
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3, unique=True))
    layout = Layout(
        entries=tuple(
            Entry(name=name, shape=draw(st.sampled_from(filled)), dtype=draw(st.sampled_from(FLOATS[:2])))
            for name in names
        )
    )
    whole_count, bad_count = draw(st.integers(least, least + 4)), draw(st.integers(bad_at_least, 2))
    quiet = draw(st.integers(0, silent))
    names_of_all = draw(st.permutations(name_workers(whole_count + bad_count + quiet)))
    style, noise = draw(st.sampled_from(_STYLES)), np.random.default_rng(draw(st.integers(0, 2**16)))
    sent = [
        _update(draw, layout, worker, index, style, noise)
        for index, worker in enumerate(names_of_all[: whole_count + bad_count])
    ]
    whole, bad = sent[:whole_count], {}
    arriving = list(whole)
    for update in sent[whole_count:]:
        if draw(st.sampled_from(kinds)) == "not finite":
            bad[update.worker], spoilt = "not finite", _poisoned(draw, update, layout)
        else:
            bad[update.worker], spoilt = _bend(draw, update, layout)
        arriving.append(spoilt)
    doubled = draw(st.integers(0, 2)) if doubles else 0
    arriving += [_copied(update) for update in whole[:doubled]]
    return Faulted(
        layout=layout,
        updates=tuple(draw(st.permutations(arriving))),
        members=tuple(sorted(names_of_all)),
        whole=tuple(sorted(whole, key=lambda update: update.worker)),
        bad=bad,
        doubled=min(doubled, whole_count),
        faulty_max=faulty_max,
    )


def _copied(update: Update) -> Update:
    return dataclasses.replace(update, tensors={name: tensor.clone() for name, tensor in update.tensors.items()})
