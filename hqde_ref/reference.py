"""This package as an ``Implementation``: the real rounds on the local runtime, behind the foreign requests.

Source: HQDE sections 0, 1, 3 and 4. Nothing is decided here: contributions are packed and handed to the stories of
``hqde_ref.rounds``, and what the stories say is translated back. Whoever verifies this verifies them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

import hqde_ref
from hqde_ref.core.judging import check_policy
from hqde_ref.core.packing import unpack
from hqde_ref.core.predicting import predict
from hqde_ref.core.rules import RULES
from hqde_ref.core.sharding import join
from hqde_ref.core.splitting import gpu_share, split_batch
from hqde_ref.core.trees import TreePlan, as_graph, assign_inner_nodes, plan_tree
from hqde_ref.core.weighting import EFFICIENCY_START, next_efficiency
from hqde_ref.errors import ConfigurationError, HqdeError
from hqde_ref.messages import (
    Accepted,
    Aggregate,
    Aggregated,
    Failed,
    MapShuffle,
    Misused,
    Node,
    Observe,
    Observed,
    PlanShare,
    PlanSplit,
    PlanTree,
    Policy,
    Predict,
    Predicted,
    ReplanTree,
    Reply,
    Request,
    RunRound,
    SharePlanned,
    SplitPlanned,
    Trained,
    TrainSteps,
    TreePlanned,
    TreeReplanned,
)
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.nodes.worker import train_steps
from hqde_ref.reference_contributions import first_layout, gather_updates, members_of, updates_by_worker
from hqde_ref.reference_mapreduce import shuffle
from hqde_ref.reference_running import ReferenceRounds
from hqde_ref.reference_store import STORE_REQUESTS, ReferenceStore
from hqde_ref.rounds.asking import Desk
from hqde_ref.rounds.flat import flat_round
from hqde_ref.rounds.mapreduce import mapreduce_round
from hqde_ref.rounds.plans import RoundPlan, Seat
from hqde_ref.rounds.sharded import sharded_round
from hqde_ref.rounds.tree import tree_round
from hqde_ref.runtimes.local import Local

__all__ = ["Reference"]

_AGGREGATOR = "aggregator"
_STORIES = {"flat": flat_round, "tree": tree_round, "mapreduce": mapreduce_round, "sharded": sharded_round}
_BY_ACCURACY = "accuracy_softmax"  # the "hierarchical" mean of clause 2.2, as a rule
_SHARDS = 3
_BRANCHING = 3  # of a tree whose request names none
_PARENTS_UP_TO = 4096  # workers; the parents of a larger tree follow from its levels


class Reference:
    """The reference implementation of HQDE."""

    name = "reference"
    version = hqde_ref.__version__
    supports: frozenset[type] = STORE_REQUESTS | {
        Aggregate,
        MapShuffle,
        Observe,
        PlanShare,
        PlanSplit,
        PlanTree,
        Predict,
        ReplanTree,
        RunRound,
        TrainSteps,
    }

    @property
    def rules(self) -> frozenset[tuple[str, str]]:
        """The (rule, topology) pairs that ``Aggregate`` knows."""
        by_accuracy = {(_BY_ACCURACY, topology) for topology in _STORIES}
        return frozenset({(name, where) for name, rule in RULES.items() for where in rule.topologies} | by_accuracy)

    def start(self) -> Node:
        """A node; it keeps nothing between requests, but for its weight store and its rounds."""
        return _ReferenceNode()

    def stop(self) -> None:
        """Nothing was started."""


class _ReferenceNode:
    """Answers foreign requests; misuse becomes ``Misused`` with the error's own sentence (clause 0.7)."""

    def __init__(self) -> None:
        self._store: ReferenceStore | None = None
        self._rounds: ReferenceRounds | None = None

    def perform(self, request: Request, /) -> Reply:
        try:
            if type(request) in STORE_REQUESTS:
                self._store = self._store or ReferenceStore()
                return self._store.perform(request)
            if isinstance(request, RunRound):
                self._rounds = self._rounds or ReferenceRounds()
                return self._rounds.perform(request)
            return _answer(request)
        except HqdeError as error:
            return Misused(error=type(error).__name__, sentence=str(error))


def _answer(request: Request) -> Reply:
    match request:
        case Aggregate():
            return _aggregate(request)
        case PlanTree(workers=workers, branching=branching):
            plan = plan_tree(workers=workers, branching=branching)
            return TreePlanned(levels=plan.levels, depth=plan.depth, parents=_parents(plan))
        case ReplanTree():
            return _replan(request)
        case Predict():
            return _predict(request)
        case MapShuffle():
            return shuffle(request)
        case PlanSplit(samples=samples, workers=workers):
            return SplitPlanned(slices=split_batch(samples=samples, workers=workers))
        case PlanShare(workers=workers, gpus=gpus):
            return SharePlanned(share=gpu_share(workers=workers, gpus=gpus))
        case Observe(losses=losses):
            return Observed(scores=_scores(losses))
        case TrainSteps():
            return _train(request)
        case _:
            return Failed(reason=f"the reference does not answer {type(request).__name__}", definite=True)


# ------------------------------------------------------------------------------------------------ one round


def _aggregate(request: Aggregate) -> Reply:
    members = members_of(request.members, request.updates)
    by_accuracy = request.rule == _BY_ACCURACY
    policy = Policy(
        rule="weighted_mean" if by_accuracy else request.rule,
        weighting="accuracy_softmax" if by_accuracy else "mass",
        topology=request.topology,
        faulty_max=request.faulty_max,
        branching=_BRANCHING if request.branching is None else request.branching,
        shards=_SHARDS if request.topology == "sharded" else 1,
    )
    check_policy(policy, members=len(members))
    by_worker = updates_by_worker(request.updates)
    layout = request.layout or first_layout(by_worker)
    gathered = gather_updates(by_worker, members=members, layout=layout, policy=policy)
    plan = RoundPlan(
        round=0,
        members=members,
        seats=(Seat(aggregator=_AGGREGATOR, beside=()),),
        layout=layout,
        state=(),
        state_digests=(),
        policy=policy,
        batch_start=0,
        batch=0,
        steps=0,
    )
    runtime = Local([AggregatorSpec(name=_AGGREGATOR)])
    desk = Desk(runtime=runtime, plan=plan, seats=[_AGGREGATOR], until=math.inf)
    verdict = _STORIES[policy.topology](desk, gathered)
    strangers = {worker: "not a member of this round" for worker in by_worker if worker not in members}
    rejected = {**verdict.rejected, **strangers}
    if not isinstance(verdict, Accepted):
        missing = tuple(sorted(verdict.missing))
        return Aggregated(result=None, used=(), rejected=rejected, missing=missing, refused=verdict.reason)
    tensors = unpack(join([runtime.fetch(payload) for payload in verdict.payloads], layout), layout)
    return Aggregated(
        result={name: tensor.clone() for name, tensor in tensors.items()},
        used=verdict.used,
        rejected=rejected,
        missing=tuple(sorted(verdict.missing)),
        scores=verdict.scores or None,
        evidence=verdict.evidence,
    )


# ------------------------------------------------------------------------------------------------ plans and training


def _parents(plan: TreePlan) -> dict[str, str | None] | None:
    return _all_parents(plan) if plan.levels[-1] <= _PARENTS_UP_TO else None


def _all_parents(plan: TreePlan) -> dict[str, str | None]:
    parents: dict[str, str | None] = {"0.0": None}
    for (level, index), (low, child) in as_graph(plan).edges:
        parents[f"{low}.{child}"] = f"{level}.{index}"
    return parents


def _replan(request: ReplanTree) -> TreeReplanned:
    plan = plan_tree(workers=request.workers, branching=request.branching)
    assigned = assign_inner_nodes(plan, seconds=request.seconds)
    return TreeReplanned(
        levels=plan.levels,
        depth=plan.depth,
        parents=_all_parents(plan),
        hosts={f"{level}.{index}": host for (level, index), host in assigned.items()},
    )


def _predict(request: Predict) -> Predicted:
    outputs = {voice.worker: voice.outputs for voice in request.voices}
    if len(outputs) != len(request.voices):
        names = tuple(voice.worker for voice in request.voices)
        raise ConfigurationError(setting="voices", wanted="distinct members", got=names, do="name every member once")
    efficiencies = {voice.worker: voice.efficiency for voice in request.voices} if request.weighted else None
    found = predict(outputs, efficiencies=efficiencies)
    refused = "no member is left to predict" if found.outputs is None else None
    return Predicted(outputs=found.outputs, used=found.used, left_out=found.left_out, refused=refused)


def _scores(losses: Sequence[float]) -> tuple[float, ...]:
    scores, now = [], EFFICIENCY_START
    for loss in losses:
        now = next_efficiency(now, loss)
        scores.append(now)
    return tuple(scores)


def _train(request: TrainSteps) -> Trained:
    if request.steps < 0:
        raise ConfigurationError(setting="steps", wanted="at least 0", got=request.steps, do="take no step with 0")
    outputs, features = request.weight.shape
    # Not nn.Linear(...): that would draw weights from the caller's random state (clause 0.12).
    model: nn.Linear = nn.utils.skip_init(nn.Linear, features, outputs)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        model.weight.copy_(request.weight)
        model.bias.copy_(request.bias)
    losses = train_steps(model, request.inputs, request.targets, steps=request.steps, rate=request.rate)
    return Trained(
        weight=model.weight.detach().clone(),
        bias=model.bias.detach().clone(),
        losses=tuple(loss if math.isfinite(loss) else None for loss in losses),
    )
