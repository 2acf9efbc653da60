"""The document's own way to aggregate up a tree (its section 3), as it stands there: every vector through the driver.

Workers give dictionaries of tensors to the driver; the driver hands them to the tree's nodes, gets every partial result
back and hands it on; in the end it gives the result to every worker. Partial results carry their mass, which the
document forgets (E7): otherwise it would compute something else. Workers and nodes share as many processes as ours do.
It looks at nothing: no digest, no test for NaN, no account of who was used.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import ray
import torch
from torch import Tensor

from hqde_ref.core.packing import unpack
from hqde_ref.core.trees import plan_tree
from simulator.synthetic import synthetic_layout, synthetic_row

__all__ = ["DocumentWay"]

Weights = dict[str, Tensor]


class _Process:
    """Some of the workers, and some of the tree's nodes."""

    def __init__(self, members: Sequence[str], seed: int, floats: int) -> None:
        torch.set_num_threads(1)
        layout = synthetic_layout(floats)
        packed = {member: synthetic_row(member, seed=seed, floats=floats, round_number=0) for member in members}
        self._weights = {
            member: {name: tensor.clone() for name, tensor in unpack(row, layout).items()}
            for member, row in packed.items()
        }
        self._received: dict[str, list[tuple[Weights, float]]] = {}

    def get_weights(self, member: str) -> Weights:
        return self._weights[member]

    def set_weights(self, member: str, weights: Weights) -> None:
        self._result = {name: tensor.clone() for name, tensor in weights.items()}

    def receive_weights(self, node: str, weights: Weights, mass: float) -> None:
        self._received.setdefault(node, []).append((weights, mass))

    def aggregate_local_weights(self, node: str) -> tuple[Weights, float]:
        received = self._received.pop(node)
        total = sum(mass for _, mass in received)
        result = {}
        for name, first in received[0][0].items():
            weighted = torch.zeros_like(first, dtype=torch.float32)
            for weights, mass in received:
                weighted += (mass / total) * weights[name]
            result[name] = weighted
        return result, total


class DocumentWay:
    """Actors of a running Ray session; ``close`` ends them."""

    def __init__(self, members: Sequence[str], *, processes: int, branching: int, seed: int, floats: int) -> None:
        self._members = tuple(members)
        self._tree = plan_tree(workers=len(members), branching=branching)
        remote: Any = ray.remote(num_cpus=0)(_Process)
        cuts = [index * len(members) // processes for index in range(processes + 1)]
        shares = [self._members[low:high] for low, high in pairwise(cuts)]
        self._actors = [remote.remote(share, seed, floats) for share in shares]
        self._home = {member: actor for share, actor in zip(shares, self._actors, strict=True) for member in share}
        ray.get([actor.__ray_ready__.remote() for actor in self._actors])

    def run(self) -> Weights:
        """One aggregation, from the workers to the workers."""
        level = [(weights, 1.0) for weights in ray.get([self._home[m].get_weights.remote(m) for m in self._members])]
        for depth in range(self._tree.depth - 1, -1, -1):
            names = [f"agg_node_{depth}_{index}" for index in range(self._tree.levels[depth])]
            for index, name in enumerate(names):
                for child in self._tree.children(depth, index):
                    self._node(index).receive_weights.remote(name, *level[child])
            futures = [self._node(index).aggregate_local_weights.remote(name) for index, name in enumerate(names)]
            level = [ray.get(future) for future in futures]
        result: Weights = level[0][0]
        ray.get([self._home[member].set_weights.remote(member, result) for member in self._members])
        return result

    def _node(self, index: int) -> Any:
        return self._actors[index % len(self._actors)]

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
