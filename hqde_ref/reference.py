"""This package as an ``Implementation``: the real rounds on the local runtime, behind the foreign requests.

Source: HQDE sections 0, 1, 3 and 4. Nothing is decided here: contributions are packed and handed to the stories of
``hqde_ref.rounds``, and what the stories say is translated back. Whoever verifies this verifies them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

import hqde_ref
from hqde_ref.core.judging import Gathered, check_policy, gather
from hqde_ref.core.packing import digest, find_misfit, fingerprint, layout_of, pack, unpack
from hqde_ref.core.rules import RULES
from hqde_ref.core.screening import MISSHAPEN
from hqde_ref.core.sharding import cut, join
from hqde_ref.core.splitting import gpu_share, split_batch
from hqde_ref.core.trees import TreePlan, as_graph, plan_tree
from hqde_ref.core.weighting import EFFICIENCY_START, next_efficiency
from hqde_ref.errors import ConfigurationError, HqdeError, LayoutError
from hqde_ref.messages import (
    Accepted,
    Aggregate,
    Aggregated,
    Contribution,
    Failed,
    Layout,
    Misused,
    Node,
    Observe,
    Observed,
    Payload,
    PlanShare,
    PlanSplit,
    PlanTree,
    Policy,
    Reply,
    Request,
    SharePlanned,
    SplitPlanned,
    Trained,
    TrainSteps,
    TreePlanned,
    Update,
)
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.nodes.worker import train_steps
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
_OF_MEANS = ("tree", "mapreduce")
_SHARDS = 3
_BRANCHING = 3  # of a tree whose request names none
_PARENTS_UP_TO = 4096  # workers; the parents of a larger tree follow from its levels


class Reference:
    """The reference implementation of HQDE."""

    name = "reference"
    version = hqde_ref.__version__
    supports: frozenset[type] = (
        frozenset({Aggregate, PlanTree, PlanSplit, PlanShare, Observe, TrainSteps}) | STORE_REQUESTS
    )

    @property
    def rules(self) -> frozenset[tuple[str, str]]:
        """The (rule, topology) pairs that ``Aggregate`` knows."""
        means = {(name, topology) for name, rule in RULES.items() if rule.family == "mean" for topology in _OF_MEANS}
        return frozenset({(name, topology) for name in RULES for topology in ("flat", "sharded")} | means)

    def start(self) -> Node:
        """A node; it keeps nothing between requests, but for its weight store."""
        return _ReferenceNode()

    def stop(self) -> None:
        """Nothing was started."""


class _ReferenceNode:
    """Answers foreign requests; misuse becomes ``Misused`` with the error's own sentence (clause 0.7)."""

    def __init__(self) -> None:
        self._store: ReferenceStore | None = None

    def perform(self, request: Request, /) -> Reply:
        try:
            if type(request) in STORE_REQUESTS:
                self._store = self._store or ReferenceStore()
                return self._store.perform(request)
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
    members = _members(request)
    policy = Policy(
        rule=request.rule,
        topology=request.topology,
        faulty_max=request.faulty_max,
        branching=_BRANCHING if request.branching is None else request.branching,
        shards=_SHARDS if request.topology == "sharded" else 1,
    )
    check_policy(policy, members=len(members))
    by_worker = _by_worker(request.updates)
    layout = request.layout or _first_layout(by_worker)
    gathered = _gather(by_worker, members=members, layout=layout, shards=policy.shards)
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


def _members(request: Aggregate) -> tuple[str, ...]:
    """Everyone who is expected, by id."""
    if request.members is None:
        return tuple(sorted({update.worker for update in request.updates}))
    if len(set(request.members)) != len(request.members):
        raise ConfigurationError(
            setting="members", wanted="distinct ids", got=request.members, do="name every member once"
        )
    return tuple(sorted(request.members))


def _by_worker(updates: Sequence[Update]) -> dict[str, list[Update]]:
    """Each worker's updates without exact repetitions, by worker id: the order of listing leaves no trace."""
    found: dict[str, list[Update]] = {}
    for update in sorted(updates, key=lambda update: update.worker):
        mine = found.setdefault(update.worker, [])
        if not any(_is_same(update, other) for other in mine):
            mine.append(update)
    return found


def _is_same(one: Update, other: Update) -> bool:
    if one.mass != other.mass or one.tensors.keys() != other.tensors.keys():
        return False
    return all(
        tensor.dtype == other.tensors[name].dtype
        and tensor.shape == other.tensors[name].shape
        and torch.equal(_bits(tensor), _bits(other.tensors[name]))
        for name, tensor in one.tensors.items()
    )


def _bits(tensor: Tensor) -> Tensor:
    if tensor.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)  # an empty tensor may have strides that cannot be viewed
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _first_layout(by_worker: Mapping[str, Sequence[Update]]) -> Layout:
    """The layout of the first worker, by id, that sent one thing only, of dtypes that can be aggregated."""
    for mine in by_worker.values():
        if len(mine) == 1:
            try:
                return layout_of(mine[0].tensors)
            except LayoutError:
                continue
    return Layout(entries=())


def _gather(
    by_worker: Mapping[str, Sequence[Update]], *, members: Sequence[str], layout: Layout, shards: int
) -> Gathered:
    """Contributions as the stories take them; what cannot be one is rejected here."""
    replies: dict[str, Reply] = {}
    rejected: dict[str, str] = {}
    for member in members:
        mine = by_worker.get(member, ())
        misfits = [misfit for update in mine if (misfit := find_misfit(update.tensors, layout)) is not None]
        if not mine:
            replies[member] = Failed(reason="nothing arrived", definite=True)
        elif misfits:
            rejected[member] = f"{MISSHAPEN}: {misfits[0]}"
        elif len(mine) > 1:
            rejected[member] = f"equivocation: it sent {len(mine)} different contributions"
        else:
            replies[member] = _contribution(mine[0], layout, shards)
    asked = [member for member in members if member not in rejected]
    gathered = gather(replies, members=asked, round_number=0, shards=shards)
    return Gathered(
        contributions=gathered.contributions,
        rejected={**gathered.rejected, **rejected},
        missing=gathered.missing,
    )


def _contribution(update: Update, layout: Layout, shards: int) -> Contribution:
    pieces = cut(pack(update.tensors, layout), layout, shards)
    return Contribution(
        round=0,
        worker=update.worker,
        incarnation=0,
        payloads=tuple(
            Payload(key=f"{update.worker}/{shard}", ref=piece, nbytes=piece.numel())
            for shard, piece in enumerate(pieces)
        ),
        layout=fingerprint(layout),
        digests=tuple(map(digest, pieces)),
        mass=update.mass,
        samples=0,
        loss=None,
        efficiency=EFFICIENCY_START,
    )


# ------------------------------------------------------------------------------------------------ plans and training


def _parents(plan: TreePlan) -> dict[str, str | None] | None:
    if plan.levels[-1] > _PARENTS_UP_TO:
        return None
    parents: dict[str, str | None] = {"0.0": None}
    for (level, index), (low, child) in as_graph(plan).edges:
        parents[f"{low}.{child}"] = f"{level}.{index}"
    return parents


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
