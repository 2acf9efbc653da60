"""Planted bugs of sections 1 and 3 that show in plans, training and scores."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from hqde_ref.messages import (
    Misused,
    Observe,
    Observed,
    PlanShare,
    PlanSplit,
    PlanTree,
    Reply,
    Request,
    SharePlanned,
    SplitPlanned,
    Trained,
    TrainSteps,
    TreePlanned,
)
from tests.planted_base import Planted

# ------------------------------------------------------------------------------------------------ the tree


class PlansWithAnything(Planted):
    def before(self, request: Request) -> Request:
        if isinstance(request, PlanTree):
            return dataclasses.replace(request, branching=max(2, int(request.branching)))
        return request


class PlansForNobody(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        match request, reply:
            case PlanTree(), Misused():
                return TreePlanned(levels=(), depth=0)
            case PlanSplit(), Misused():
                return SplitPlanned(slices=())
            case PlanShare(), Misused():
                return SharePlanned(share=0.0)
            case _:
                return reply


class InTreePlans(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return self.plan(request, reply) if isinstance(reply, TreePlanned) else reply

    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        return planned


class OffByOneDepth(InTreePlans):
    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        return dataclasses.replace(planned, depth=planned.depth + 1)


class DepthByLogarithm(InTreePlans):
    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        return dataclasses.replace(planned, depth=math.ceil(math.log(request.workers) / math.log(request.branching)))


class FloorsLevels(InTreePlans):
    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        levels = [request.workers]
        while levels[0] > 1:
            levels.insert(0, max(1, levels[0] // request.branching))
        return dataclasses.replace(planned, levels=tuple(levels), depth=len(levels) - 1)


class LevelsUpsideDown(InTreePlans):
    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        return dataclasses.replace(planned, levels=planned.levels[::-1])


class OrphanLeaf(InTreePlans):
    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        last = list(planned.parents or {})[-1]
        return dataclasses.replace(planned, parents={**(planned.parents or {}), last: None})


class OverfullNode(InTreePlans):
    """One leaf goes to the first node of the level above, where there is another."""

    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        parents = dict(planned.parents or {})
        if planned.depth and planned.levels[-2] > 1:
            parents[f"{planned.depth}.{planned.levels[-1] - 1}"] = f"{planned.depth - 1}.0"
        return dataclasses.replace(planned, parents=parents)


class CyclicPlan(InTreePlans):
    def plan(self, request: PlanTree, planned: TreePlanned) -> TreePlanned:
        parents = dict(planned.parents or {})
        if planned.depth > 1:
            parents["1.0"] = "2.0"
        return dataclasses.replace(planned, parents=parents)


# ------------------------------------------------------------------------------------------------ shares and slices


class GpuShareGW(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        if isinstance(request, PlanShare) and isinstance(reply, SharePlanned):
            return SharePlanned(share=request.gpus / request.workers)
        return reply


class GpuShareRoundsUp(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        if isinstance(request, PlanShare) and isinstance(reply, SharePlanned) and 0 < request.gpus < request.workers:
            return SharePlanned(share=round(1 / math.ceil(request.workers / request.gpus), 4))
        return reply


class GpuShareTimid(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return SharePlanned(share=min(1.0, reply.share / 2)) if isinstance(reply, SharePlanned) else reply


class InSplits(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return SplitPlanned(slices=self.cut(reply.slices, request)) if isinstance(reply, SplitPlanned) else reply

    def cut(self, slices: tuple[tuple[int, int], ...], request: PlanSplit) -> tuple[tuple[int, int], ...]:
        return slices


class DropsRemainder(InSplits):
    def cut(self, slices: tuple[tuple[int, int], ...], request: PlanSplit) -> tuple[tuple[int, int], ...]:
        each = request.samples // request.workers
        return tuple((start, start + each) for start, _ in slices)


class OverlapsSlices(InSplits):
    def cut(self, slices: tuple[tuple[int, int], ...], request: PlanSplit) -> tuple[tuple[int, int], ...]:
        return tuple((start, min(stop + 1, request.samples)) for start, stop in slices)


class SkipsEmptySlices(InSplits):
    def cut(self, slices: tuple[tuple[int, int], ...], request: PlanSplit) -> tuple[tuple[int, int], ...]:
        return tuple((start, stop) for start, stop in slices if stop > start)


# ------------------------------------------------------------------------------------------------ training


class InTraining(Planted):
    momentum, zero_grad = 0.0, True

    def after(self, request: Request, reply: Reply) -> Reply:
        return self.trained(request, reply) if isinstance(reply, Trained) else reply

    def trained(self, request: TrainSteps, right: Trained) -> Trained:
        weight, bias = nn.Parameter(request.weight.clone()), nn.Parameter(request.bias.clone())
        optimizer = torch.optim.SGD([weight, bias], lr=request.rate, momentum=self.momentum)
        for _ in range(request.steps):
            if self.zero_grad:
                optimizer.zero_grad()
            outputs = nn.functional.linear(request.inputs, weight, bias)
            nn.functional.cross_entropy(outputs, request.targets).backward()
            optimizer.step()
        return dataclasses.replace(right, weight=weight.detach(), bias=bias.detach())


class ForgetsZeroGrad(InTraining):
    zero_grad = False


class UsesMomentum(InTraining):
    momentum = 0.9


class StepsOnNaN(InTraining):
    """The plain loop, which does not look at its loss."""


class StepsOnceMore(Planted):
    def before(self, request: Request) -> Request:
        return dataclasses.replace(request, steps=request.steps + 1) if isinstance(request, TrainSteps) else request


class ResetsOnNaN(InTraining):
    def trained(self, request: TrainSteps, right: Trained) -> Trained:
        if None in right.losses:
            return dataclasses.replace(right, weight=torch.zeros_like(right.weight))
        return right


class EmptySliceNaN(InTraining):
    def trained(self, request: TrainSteps, right: Trained) -> Trained:
        empty = len(request.inputs) == 0
        return dataclasses.replace(right, losses=(math.nan,) * request.steps) if empty else right


class EmptySliceIsZeroLoss(InTraining):
    def trained(self, request: TrainSteps, right: Trained) -> Trained:
        return right if right.losses else dataclasses.replace(right, losses=(0.0,) * request.steps)


# ------------------------------------------------------------------------------------------------ efficiency


class InEfficiency(Planted):
    start_at, floor = 1.0, 0.1

    def gain(self, loss: float) -> float:
        return 1 / (1 + max(loss, 0.0)) if math.isfinite(loss) else 0.0

    def after(self, request: Request, reply: Reply) -> Reply:
        if not isinstance(request, Observe):
            return reply
        scores, score = [], self.start_at
        for loss in request.losses:
            score = max(self.floor, 0.99 * score + 0.01 * self.gain(loss))
            scores.append(score)
        return Observed(scores=tuple(scores))


class EfficiencyStartsAtZero(InEfficiency):
    start_at = 0.0


class NoFloor(InEfficiency):
    floor = 0.0


class TrustsNegativeLoss(InEfficiency):
    def gain(self, loss: float) -> float:
        return 1 / (1 + loss) if math.isfinite(loss) and loss != -1.0 else 0.0


class NaNEfficiency(InEfficiency):
    def gain(self, loss: float) -> float:
        return super().gain(loss) if loss == loss else loss


class EfficiencyRises(InEfficiency):
    def gain(self, loss: float) -> float:
        return 1.0 - super().gain(loss)
