"""The PyPI package ``hqde``, component by component: its tree and its MapReduce run on real Ray actors.

Source: the package's own code, 0.1.12. An actor costs a second and more than 100 MiB, one for every node of a tree. So
the actors of the trees are pooled: a node of a new tree is an old actor on which the package's constructor runs again.
At most ``MOST_ACTORS`` are kept; the trees that were used longest ago give theirs back.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import ray

from hqde_ref.messages import Aggregate, Aggregated, Reply, Request
from hqde_ref.runtimes.protocol import FOLDER
from properties.adapters.common import Inexpressible, answer, equal_masses
from properties.adapters.hqde_local import PLANNERS, Byzantine

from hqde.distributed import hierarchical_aggregator  # isort: skip
from hqde.distributed.mapreduce_ensemble import MapReduceEnsembleManager  # isort: skip

MOST_ACTORS = 20
LONGEST_FOLDER = 28  # Ray makes sockets deep inside, and a socket's path has 107 bytes at most
DEFAULT_BRANCHING = 4  # of its constructor

RULES = frozenset(
    {
        ("weighted_mean", "tree"),
        ("weighted_mean", "mapreduce"),
        ("accuracy_softmax", "mapreduce"),
        ("geometric_median", "flat"),
    }
)


def _start_ray() -> None:
    """A small Ray of our own, before the package starts one that might join somebody else's."""
    if not ray.is_initialized():
        folder = os.environ.get(FOLDER, "")
        private = f"{folder}/ray" if 0 < len(folder) <= LONGEST_FOLDER else None
        ray.init(
            _temp_dir=private,
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=256 << 20,
        )


class Trees:
    """Its aggregation trees, by owner, number of members and branching factor, on pooled actors."""

    def __init__(self) -> None:
        self._trees: OrderedDict[tuple[int, int, int], Any] = OrderedDict()
        self._free: list[Any] = []
        self._actor_class = hierarchical_aggregator.AggregationNode

    def get(self, owner: int, members: int, branching: int) -> Any:
        """The owner's tree of this shape: a new one, or the one that it used before."""
        key = (owner, members, branching)
        if key not in self._trees:
            self._make_room(members)
            pooled = SimpleNamespace(remote=self._actor)
            with mock.patch.object(hierarchical_aggregator, "AggregationNode", pooled):
                self._trees[key] = hierarchical_aggregator.HierarchicalAggregator(members, branching)
        self._trees.move_to_end(key)
        return self._trees[key]

    def release(self, owner: int) -> None:
        """Give back the actors of a node that is not used any more."""
        for key in [key for key in self._trees if key[0] == owner]:
            self._give_back(key)

    def _make_room(self, members: int) -> None:
        busy = sum(len(tree.nodes) for tree in self._trees.values())
        while self._trees and busy + 2 * members > MOST_ACTORS:
            busy -= self._give_back(next(iter(self._trees)))

    def _give_back(self, key: tuple[int, int, int]) -> int:
        actors = list(self._trees.pop(key).nodes.values())
        self._free += actors
        for actor in self._free[MOST_ACTORS:]:
            ray.kill(actor)
        del self._free[MOST_ACTORS:]
        return len(actors)

    def _actor(self, *arguments: Any) -> Any:
        if not self._free:
            return self._actor_class.remote(*arguments)

        def renew(instance: Any, *arguments: Any) -> None:
            instance.__dict__.clear()
            type(instance).__init__(instance, *arguments)

        actor = self._free.pop()
        ray.get(actor.__ray_call__.remote(renew, *arguments))
        return actor


class Shared:
    """What all nodes of this process use: Ray, the pool of trees, one MapReduce manager (which keeps nothing)."""

    def __init__(self) -> None:
        self._trees: Trees | None = None
        self._mapreduce: Any = None

    def trees(self) -> Trees:
        if self._trees is None:
            _start_ray()
            self._trees = Trees()
        return self._trees

    def mapreduce(self) -> Any:
        if self._mapreduce is None:
            _start_ray()
            self._mapreduce = MapReduceEnsembleManager(num_stores=1)  # aggregation touches no store
        return self._mapreduce

    def release(self, owner: int) -> None:
        if self._trees is not None:
            self._trees.release(owner)


class Node:
    """Every component of the package in a fresh state."""

    def __init__(self, number: int, shared: Shared) -> None:
        self._number, self._shared = number, shared
        self._byzantine = Byzantine()

    def perform(self, request: Request, /) -> Reply:
        try:
            return answer("hqde", PLANNERS.get(type(request), self._aggregate), request)
        except ray.exceptions.RayTaskError as error:
            raise _in_actor(error) from None

    def close(self) -> None:
        self._shared.release(self._number)

    def _aggregate(self, request: Aggregate) -> Reply:
        match request.rule, request.topology:
            case "weighted_mean", "tree":
                return self._up_the_tree(request)
            case "weighted_mean", "mapreduce":
                equal_masses(request, "hqde's MapReduce")
                return self._map_and_reduce(request, "flat")
            case "accuracy_softmax", "mapreduce":
                return self._map_and_reduce(request, "hierarchical")
            case "geometric_median", "flat":
                return self._byzantine.aggregate(request)
            case rule, topology:
                raise Inexpressible(f"hqde has no {rule} ({topology})")

    def _up_the_tree(self, request: Aggregate) -> Reply:
        members = len(request.updates if request.members is None else request.members)
        branching = DEFAULT_BRANCHING if request.branching is None else request.branching
        tree = self._shared.trees().get(self._number, members, branching)
        weights = [dict(update.tensors) for update in request.updates]
        importance = [{"importance_score": update.mass} for update in request.updates]
        return Aggregated(result=tree.aggregate_ensemble_weights(weights, importance))

    def _map_and_reduce(self, request: Aggregate, strategy: str) -> Reply:
        items = [
            {
                "weights": dict(update.tensors),
                "source_id": update.worker,
                **({} if update.accuracy is None else {"accuracy": update.accuracy}),
            }
            for update in request.updates
        ]
        return Aggregated(result=self._shared.mapreduce().mapreduce_ensemble_aggregation(items, strategy))


def _in_actor(error: Any) -> BaseException:
    """What an actor fell over, with the place in the package's own code that Ray tells only as text."""
    places = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', str(error))
    cause: BaseException = error.cause
    if places:
        file, line, function = places[-1]
        cause.__dict__["place"] = f"{'/'.join(Path(file).parts[-2:])}:{line} in {function}"
    return cause


class Hqde:
    """The implementation, for ``module:attribute``."""

    name = "hqde"
    supports: frozenset[type] = frozenset({Aggregate, *PLANNERS})
    rules = RULES

    def __init__(self) -> None:
        self.version = importlib.metadata.version("hqde")
        self._shared = Shared()
        self._numbers: Callable[[], int] = itertools.count().__next__

    def start(self) -> Node:
        return Node(self._numbers(), self._shared)

    def stop(self) -> None:
        """Stop the Ray that was started here."""
        ray.shutdown()
