"""The parts of ``hqde`` that need no Ray: its planner, its splitter, its worker, and its Byzantine aggregator.

Source: the package's own code, 0.1.12. Where that code asks Ray for something that does not change the answer (a place
for a node of the plan, a GPU for a worker), it gets an object in this process instead, and its own lines run unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from hqde_ref.messages import (
    Aggregate,
    Aggregated,
    Observe,
    Observed,
    PlanShare,
    PlanSplit,
    PlanTree,
    Reply,
    SharePlanned,
    SplitPlanned,
    Trained,
    TrainSteps,
    TreePlanned,
)
from properties.adapters.common import Inexpressible, stand_in_for

stand_in_for("torchvision")

from hqde.core import hqde_system  # noqa: E402
from hqde.distributed import hierarchical_aggregator  # noqa: E402
from hqde.distributed.fault_tolerance import ByzantineFaultTolerantAggregator  # noqa: E402

NEVER_PREDICTED = 7


# ------------------------------------------------------------------------------------------------ the tree's plan


class _Local:
    """A Ray actor's methods, carried out at once in this process."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._instance, name))


def plan_tree(request: PlanTree) -> Reply:
    """Its ``_build_aggregation_tree``, with nodes that live in this process."""
    node_class = hierarchical_aggregator.AggregationNode.__ray_metadata__.modified_class
    actors = SimpleNamespace(remote=lambda *arguments: _Local(node_class(*arguments)))
    ray = SimpleNamespace(get=lambda value: value)
    with mock.patch.multiple(hierarchical_aggregator, AggregationNode=actors, ray=ray):
        tree = hierarchical_aggregator.HierarchicalAggregator(request.workers, request.branching)
    return TreePlanned(
        levels=tuple(len(tree.tree_structure[level]) for level in sorted(tree.tree_structure)),
        depth=tree.aggregation_metrics["tree_depth"],
        parents={name: node.get_node_info.remote()["parent"] for name, node in tree.nodes.items()},
    )


# ------------------------------------------------------------------------------------------------ workers


def _manager(workers: int, **config: Any) -> Any:
    """Its manager in the mode that it calls local, where workers are objects of this process."""
    with mock.patch.object(hqde_system, "RAY_AVAILABLE", False):
        return hqde_system.DistributedEnsembleManager(workers, training_config=config)


def plan_split(request: PlanSplit) -> Reply:
    """The chunks that its ``_build_worker_batches`` makes of a batch, in the mode that splits."""
    rows = torch.arange(request.samples)
    batches = _manager(request.workers, batch_assignment="split")._build_worker_batches(rows, rows)
    return SplitPlanned(slices=tuple((int(part[0]), int(part[-1]) + 1) for part, _targets in batches))


def plan_share(request: PlanShare) -> Reply:
    """What its ``create_ensemble_workers`` asks Ray for, when torch says that there are so many GPUs."""
    asked: list[float] = []

    def options(*, num_gpus: float) -> Any:
        asked.append(num_gpus)
        return SimpleNamespace(remote=lambda **_keywords: None)

    manager = _manager(request.workers)
    manager.use_ray = True
    with (
        mock.patch.object(torch.cuda, "is_available", return_value=request.gpus > 0),
        mock.patch.object(torch.cuda, "device_count", return_value=request.gpus),
        mock.patch.object(hqde_system, "RayEnsembleWorker", SimpleNamespace(options=options)),
    ):
        manager.create_ensemble_workers(torch.nn.Linear, {})
    if not asked:
        raise Inexpressible(f"hqde made none of {request.workers} workers, and so named no share")
    return SharePlanned(share=float(asked[0]))


def _worker(rate: float, features: int, classes: int) -> Any:
    """One of its workers with a linear model, ready to train: no clipping, no decay."""
    manager = _manager(1, optimizer="sgd", learning_rate=rate, weight_decay=0.0, gradient_clip_norm=0.0)
    manager.create_ensemble_workers(torch.nn.Linear, {"in_features": features, "out_features": classes})
    manager.setup_workers_training(rate)
    return manager.workers[0]


def observe(request: Observe) -> Reply:
    """Its ``train_step`` on a batch whose loss is the given one and whose predictions are all wrong."""
    worker = _worker(0.1, 1, 2)
    scores = []
    for loss in request.losses:
        worker.criterion = lambda _outputs, _targets, loss=loss: torch.tensor(loss, requires_grad=True)
        worker.train_step(torch.zeros(1, 1), torch.tensor([NEVER_PREDICTED]))
        scores.append(float(worker.get_efficiency_score()))
    return Observed(scores=tuple(scores))


def train_steps(request: TrainSteps) -> Reply:
    """Its ``train_step``, with plain gradient descent in the worker's ``optimizer``.

    The package has no setting for that: its ``"sgd"`` is Nesterov's with a momentum of 0.9.
    """
    classes, features = request.weight.shape
    worker = _worker(request.rate, features, classes)
    worker.optimizer = torch.optim.SGD(worker.model.parameters(), lr=request.rate)
    worker.set_weights({"weight": request.weight, "bias": request.bias})
    steps = [worker.train_step(request.inputs, request.targets) for _ in range(request.steps)]
    weights = worker.get_weights()
    losses = tuple(None if step is None else step["loss"] for step in steps)
    return Trained(weight=weights["weight"], bias=weights["bias"], losses=losses)


# ------------------------------------------------------------------------------------------------ the robust aggregator


class Byzantine:
    """One of its aggregators, kept for all rounds of a node: it remembers who was reliable."""

    def __init__(self) -> None:
        self._aggregator = ByzantineFaultTolerantAggregator()
        self._default = self._aggregator.byzantine_threshold

    def aggregate(self, request: Aggregate) -> Reply:
        """Its ``robust_aggregation``; what a sender says of itself goes in as confidence."""
        count = len(request.updates)
        workers = [update.worker for update in request.updates]
        self._aggregator.byzantine_threshold = self._threshold(request.faulty_max, count)
        result, told = self._aggregator.robust_aggregation(
            [dict(update.tensors) for update in request.updates], workers, [update.mass for update in request.updates]
        )
        scores = {worker: float(score) for worker, score in told["outlier_scores"].items()}
        rejected = {
            worker: f"listed in byzantine_sources with outlier score {scores[worker]:.6g}"
            for worker in told["byzantine_sources"]
        }
        # Its fallback is the median of all updates, those that it lists as Byzantine included.
        used = workers if told["fallback_used"] else [worker for worker in workers if worker not in rejected]
        return Aggregated(result=result, used=tuple(used), rejected=rejected, scores=scores)

    def _threshold(self, faulty_max: int, count: int) -> float:
        """Its default promises to withstand every f below a third; for less, the share that gives f."""
        return self._default if faulty_max == (count - 1) // 3 else (faulty_max + 0.5) / max(count, 1)


PLANNERS: dict[type, Callable[[Any], Reply]] = {
    PlanTree: plan_tree,
    PlanSplit: plan_split,
    PlanShare: plan_share,
    Observe: observe,
    TrainSteps: train_steps,
}
