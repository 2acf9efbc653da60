"""Rounds in which a minority lies: honest rows with structure, attackers who aim at the rule.

Written without a look at the core. Attackers know all honest rows. ``hypothesis.target`` climbs towards a rule's bound
from here, so the families hold the known worst cases: liars who stand on an honest outlier, liars far away, liars who
split honest clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st

from hqde_ref.messages import Entry, Layout, Update, message
from properties.strategies import name_workers

__all__ = ["ATTACKS", "Lied", "as_updates", "lied_rounds"]

Rows = npt.NDArray[np.float64]

HONEST = ("steps", "random", "two clusters", "one apart")
ATTACKS = ("far", "huge", "on an honest outlier", "mirror", "copy", "one coordinate", "scattered")


@message
class Lied:
    """A round with liars.

    Attributes:
        updates: what arrives, in the order of its listing; claimed masses are part of the attack.
        members: everyone; honest, liars, silent: their ids.
        rows: by worker, the float64 values of what it sent, as the dtype holds them.
        faulty_max: f; at most that many lie.
    """

    layout: Layout
    updates: tuple[Update, ...]
    members: tuple[str, ...]
    honest: tuple[str, ...]
    liars: tuple[str, ...]
    silent: tuple[str, ...]
    rows: dict[str, Rows]
    faulty_max: int

    def honest_rows(self) -> Rows:
        """(h, d), the rows of the honest that arrived."""
        return np.stack([self.rows[worker] for worker in self.honest])


def honest_rows(style: str, count: int, size: int, noise: np.random.Generator) -> Rows:
    """(count, size) rows of order 1."""
    match style:
        case "steps":
            return np.repeat(np.arange(count, dtype=float)[:, None], size, axis=1)
        case "two clusters":
            # The worst case of a median: just enough honest rows at the place where the liars want it.
            at = int(noise.integers(1, count)) if count > 1 else 0
            clusters: Rows = np.where(np.arange(count)[:, None] < at, 0.0, 1.0) * np.ones((count, size))
            return clusters
        case "one apart":
            apart: Rows = noise.standard_normal((count, size)) * 1e-3
            apart[0] += 1.0
            return apart
        case _:
            return noise.standard_normal((count, size))


def lies(attack: str, honest: Rows, count: int, noise: np.random.Generator) -> Rows:
    """(count, size) rows of ``count`` liars who know the honest ones."""
    size = honest.shape[1]
    mean: Rows = honest.mean(axis=0)
    away: Rows = noise.standard_normal((size,))
    farthest = honest[np.linalg.norm(honest - mean, axis=1).argmax()]
    match attack:
        case "far":
            return np.repeat((mean + 1e4 * away)[None], count, axis=0)
        case "huge":
            return np.repeat((1e15 * away)[None], count, axis=0)
        case "on an honest outlier":
            return np.repeat(farthest[None], count, axis=0)
        case "mirror":
            return np.repeat((mean - 2.0 * (farthest - mean))[None], count, axis=0)
        case "copy":
            return np.repeat(honest[:1], count, axis=0)
        case "one coordinate":
            rows: Rows = np.repeat(mean[None], count, axis=0)
            rows[:, noise.integers(size)] += 1e6
            return rows
        case _:
            scattered: Rows = mean + 1e3 * noise.standard_normal((count, size))
            return scattered


def as_updates(layout: Layout, workers: Sequence[str], rows: Rows) -> tuple[tuple[Update, ...], dict[str, Rows]]:
    """Rows as updates of the layout (float entries only), and by worker the values that the dtype holds."""
    updates, held = [], {}
    for worker, row in zip(workers, rows, strict=True):
        tensors, at = {}, 0
        for entry in layout.entries:
            size = int(np.prod(entry.shape, dtype=int))
            values = torch.from_numpy(row[at : at + size].copy()).to(getattr(torch, entry.dtype))
            tensors[entry.name] = values.reshape(entry.shape)
            at += size
        updates.append(Update(worker=worker, tensors=tensors))
        held[worker] = np.concatenate([tensor.reshape(-1).double().numpy() for tensor in tensors.values()])
    return tuple(updates), held


def flat_layout(size: int, dtype: str, *, blocks: int = 1) -> Layout:
    """``size`` coordinates in one or two entries."""
    cut = size // 2 if blocks == 2 and size > 1 else size
    entries = [Entry(name="weight", shape=(cut,), dtype=dtype)]
    if cut < size:
        entries.append(Entry(name="bias", shape=(size - cut,), dtype=dtype))
    return Layout(entries=tuple(entries))


def _majority(faulty_max: int) -> int:
    return 2 * faulty_max + 1


@st.composite
def lied_rounds(
    draw: st.DrawFn,
    *,
    least: Callable[[int], int] = _majority,
    most_faulty: int = 3,
    lying: bool | None = None,
    silent: bool = False,
    equal_honest: bool = False,
    attacks: Sequence[str] = ATTACKS,
    dtypes: Sequence[str] = ("float32", "float64"),
) -> Lied:
    """f up to ``most_faulty``, n > 3f members, up to f liars, and with ``silent`` some who send nothing (2f + c < n).

    Args:
        least: f to how many contributions arrive at least.
        lying: exactly f >= 1 lie when True; anything up to f when None.
        equal_honest: all honest send the same.
    """
    faulty_max = draw(st.integers(1 if lying else 0, most_faulty))
    fewest = max(3, 3 * faulty_max + 1, least(faulty_max))
    members = draw(st.integers(fewest, fewest + 5))
    liar_count = faulty_max if lying else draw(st.integers(0, faulty_max))
    room = members - max(2 * faulty_max + 1, least(faulty_max))
    silent_count = draw(st.integers(0, min(room, faulty_max))) if silent else 0
    size, dtype = draw(st.sampled_from((1, 2, 3, 8, 40))), draw(st.sampled_from(dtypes))
    layout = flat_layout(size, dtype, blocks=draw(st.integers(1, 2)))
    noise = np.random.default_rng(draw(st.integers(0, 2**16)))
    honest_count = members - liar_count - silent_count
    honest = honest_rows(draw(st.sampled_from(HONEST)), honest_count, size, noise)
    if equal_honest:
        honest = np.repeat(honest[-1:], honest_count, axis=0)
    honest = honest + draw(st.sampled_from((0.0, 100.0)))
    false = lies(draw(st.sampled_from(tuple(attacks))), honest, liar_count, noise) if liar_count else honest[:0]
    order = draw(st.permutations(name_workers(members)))
    sending = order[: honest_count + liar_count]
    updates, held = as_updates(layout, sending, np.concatenate([honest, false]))
    return Lied(
        layout=layout,
        updates=tuple(sorted(updates, key=lambda update: update.worker)),
        members=tuple(sorted(order)),
        honest=tuple(sending[:honest_count]),
        liars=tuple(sending[honest_count:]),
        silent=tuple(sorted(order[honest_count + liar_count :])),
        rows=held,
        faulty_max=faulty_max,
    )
