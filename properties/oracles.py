"""What the right answer is: slow, obvious, exact where it can be, and written without a look at the core.

Source: HQDE clauses 0.8, 0.9, 1.1, 1.3 to 1.5, 2.2, 3.1, 3.3 and 4.5 to 4.7; the bounds of section 4 hold for every
input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hqde_ref.messages import Update
from simulator import proven_bounds

__all__ = [
    "efficiency_scores",
    "exact_mean",
    "level_sizes",
    "lower_middle",
    "mean_of_rows",
    "median_pull",
    "minsker_factor",
    "round_half",
    "share_of_gpu",
    "softmax_of",
    "train_plainly",
    "tree_owners",
    "tree_radius",
    "tree_tolerance",
]

Rows = npt.NDArray[np.float64]


# ------------------------------------------------------------------------------------------------ means and medians


def exact_mean(updates: Sequence[Update], name: str) -> list[Fraction]:
    """The weighted mean of each value of an entry, without any rounding."""
    columns = zip(*(update.tensors[name].double().reshape(-1).tolist() for update in updates), strict=True)
    weights = [Fraction(update.mass) for update in updates]
    total = sum(weights)
    return [
        sum((w * Fraction(x) for w, x in zip(weights, column, strict=True)), Fraction(0)) / total for column in columns
    ]


def mean_of_rows(rows: Sequence[Tensor], weights: Sequence[float]) -> list[Fraction]:
    """The weighted mean of each value, without any rounding."""
    total = sum(map(Fraction, weights), Fraction(0))
    columns = zip(*(row.double().reshape(-1).tolist() for row in rows), strict=True)
    return [
        sum((Fraction(w) * Fraction(x) for w, x in zip(weights, column, strict=True)), Fraction(0)) / total
        for column in columns
    ]


def softmax_of(values: Sequence[float]) -> list[float]:
    """exp of each over the sum of all."""
    powers = [math.exp(value) for value in values]
    return [power / math.fsum(powers) for power in powers]


def lower_middle(values: Sequence[int], weights: Sequence[float]) -> int:
    """The least value at which half of the weight is reached."""
    half, reached = sum(map(Fraction, weights)) / 2, Fraction(0)
    for value, weight in sorted(zip(values, weights, strict=True)):
        reached += Fraction(weight)
        if reached >= half:
            return value
    raise AssertionError("some value reaches half of the weight")


def round_half(value: Fraction, dtype: str) -> float:
    """The nearest float16 or bfloat16, ties to even, in one step; for values well inside the range."""
    if value == 0:
        return 0.0
    digits, least = {"float16": (11, -24), "bfloat16": (8, -133)}[dtype]
    exponent = math.frexp(float(abs(value)))[1]
    unit = Fraction(2) ** max(exponent - digits, least)
    return float(round(value / unit) * unit)  # round() of a Fraction goes to even


# ------------------------------------------------------------------------------------------------ robust rules


def minsker_factor(n: int, f: int) -> float:
    """|geometric median - z| is at most this times the farthest honest distance from z, for every z."""
    share = f / n
    return (1 - share) / math.sqrt(1 - 2 * share)


def median_pull(rows: Rows, point: Rows, *, near: float) -> tuple[float, float]:
    """How far a point is from being a geometric median, in pulls of one contribution; and the part rounding explains.

    The sum of the unit vectors from the point to the rows, less one for each row at the point: 0 at a median. Rows
    nearer than ``near`` count as at the point; each other pull may be turned by 2 * near / distance by rounding.
    """
    scale = float(np.abs(rows - point).max()) or 1.0
    differences = (rows - point) / scale
    far = np.linalg.norm(differences, axis=1)
    away = far * scale > near
    if not away.any():
        return 0.0, 0.0
    pull = float(np.linalg.norm((differences[away] / far[away, None]).sum(axis=0)))
    explained = float((2.0 * near / (far[away] * scale)).sum())
    return max(0.0, pull - float((~away).sum())), explained


# ------------------------------------------------------------------------------------------------ trees


def level_sizes(workers: int, branching: int) -> list[int]:
    """Root first: 1, ..., ceil(n/b), n."""
    sizes = [workers]
    while sizes[0] > 1:
        whole, rest = divmod(sizes[0], branching)
        sizes.insert(0, whole + (1 if rest else 0))
    return sizes


def tree_tolerance(workers: int, branching: int) -> int:
    """How many liars a tree of robust rules (fewer than half of the children each) survives wherever they sit."""
    return proven_bounds.tree_tolerance([True] * workers, branching)


def tree_owners(workers: int, branching: int) -> list[int]:
    """The fewest leaves whose lies own the root of such a tree."""
    owners = [[leaf] for leaf in range(workers)]
    while len(owners) > 1:
        groups = [sorted(owners[at : at + branching], key=len) for at in range(0, len(owners), branching)]
        owners = [[leaf for below in group[: (len(group) + 1) // 2] for leaf in below] for group in groups]
    return owners[0]


def tree_radius(workers: int, branching: int) -> float:
    """How much farther than the farthest honest one a tree of geometric medians may land: the factors multiply."""
    factors = [1.0] * workers
    while len(factors) > 1:
        groups = [factors[at : at + branching] for at in range(0, len(factors), branching)]
        factors = [max(group) * minsker_factor(len(group), (len(group) + 1) // 2 - 1) for group in groups]
    return factors[0]


# ------------------------------------------------------------------------------------------------ workers


def share_of_gpu(workers: int, gpus: int) -> float:
    """The largest share with which all fit, in whole GPUs or, below one, in Ray's units of 1e-4."""
    if gpus == 0:
        return 0.0
    if workers <= gpus:
        return float(max(whole for whole in range(1, gpus + 1) if whole * workers <= gpus))
    crowd = math.ceil(Fraction(workers, gpus))
    return max(units for units in range(1, 10_001) if units * crowd <= 10_000) / 10_000


def efficiency_scores(losses: Sequence[float]) -> list[float]:
    """Clause 1.5, word by word."""
    scores, score = [], 1.0
    for loss in losses:
        if not math.isfinite(loss):
            gain = 0.0
        elif loss < 0:
            gain = 1.0
        else:
            gain = 1 / (1 + loss)
        score = max(0.1, 0.99 * score + 0.01 * gain)
        scores.append(score)
    return scores


def train_plainly(
    inputs: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, *, steps: int, rate: float
) -> tuple[Tensor, Tensor]:
    """The training loop that every PyTorch tutorial has."""
    w, b = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    optimizer = torch.optim.SGD([w, b], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(nn.functional.linear(inputs, w, b), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return w.detach(), b.detach()
