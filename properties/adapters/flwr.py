"""``flwr``: the functions of ``flwr.server.strategy.aggregate``, on NumPy arrays as its strategies call them.

Variants: the median of an even count is the midpoint; Krum sums squared distances to n - f - 2 neighbours; Multi-Krum
keeps n - f; the trimmed mean cuts a share of the rows, here the share that makes f of them; masses are whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.server.strategy import aggregate as flower
from torch import Tensor

from hqde_ref.messages import Aggregate
from properties.adapters.common import Functions, Inexpressible, Rule, in_order


def _examples(mass: float) -> int:
    if mass != int(mass):
        raise Inexpressible(f"flwr weighs by whole numbers of examples, got {mass}")
    return int(mass)


def _arrays(row: list[Tensor]) -> list[Any]:
    if any(tensor.dtype == torch.bfloat16 for tensor in row):
        raise Inexpressible("flwr takes NumPy arrays, which have no bfloat16")
    return [tensor.numpy() for tensor in row]


def _share_that_cuts(faulty_max: int, rows: int) -> float:
    """Half a row more than f, so that truncation gives f whatever the rounding; always below a half."""
    return min((faulty_max + 0.5) / max(rows, 1), float(np.nextafter(0.5, 0)))


FUNCTIONS: Mapping[str, Callable[[list[Any], int], list[Any]]] = {
    "weighted_mean": lambda results, _f: flower.aggregate(results),
    "coordinate_median": lambda results, _f: flower.aggregate_median(results),
    "trimmed_mean": lambda results, f: flower.aggregate_trimmed_avg(results, _share_that_cuts(f, len(results))),
    "krum": lambda results, f: flower.aggregate_krum(results, f, 0),
    "multi_krum": lambda results, f: flower.aggregate_krum(results, f, len(results) - f),
    "bulyan": lambda results, f: flower.aggregate_bulyan(results, f, flower.aggregate_krum, to_keep=0),
}


def _rules() -> dict[str, Rule]:
    def rule(name: str) -> Rule:
        def apply(request: Aggregate) -> Mapping[str, Tensor]:
            weighted = name == "weighted_mean"
            results = [
                (_arrays(row), _examples(update.mass) if weighted else 1)
                for update, row in zip(request.updates, in_order(request.updates, "flwr"), strict=True)
            ]
            arrays = FUNCTIONS[name](results, request.faulty_max)
            tensors = [torch.from_numpy(np.array(array)) for array in arrays]
            return dict(zip(request.updates[0].tensors, tensors, strict=True))

        return apply

    return {name: rule(name) for name in FUNCTIONS}


def implementation() -> Functions:
    """For ``module:attribute``."""
    return Functions("flwr", _rules, distribution="flwr")
