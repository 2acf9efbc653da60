"""Planted bugs of sections 0 and 3: what is done to contributions, results and the accounts of a round."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hqde_ref.messages import Aggregate, Aggregated, Failed, Misused, Reply, Request, Update
from tests.planted_base import (
    ALL_MEANS,
    InResults,
    InRounds,
    InRows,
    InUpdates,
    Planted,
    State,
    average,
    column,
    masses,
    means,
)

# ------------------------------------------------------------------------------------------------ contributions


class MutatesInput(InRounds):
    def sent(self, request: Aggregate) -> Aggregate:
        next(iter(request.updates[0].tensors.values())).add_(1)
        return request


class CleansInputInPlace(InRounds):
    def sent(self, request: Aggregate) -> Aggregate:
        for update in request.updates:
            for tensor in update.tensors.values():
                tensor.nan_to_num_()
        return request


class ZeroesNaN(InUpdates):
    def update(self, update: Update, request: Aggregate) -> Update:
        clean = {name: t.nan_to_num(0.0, 0.0, 0.0) for name, t in update.tensors.items()}
        return dataclasses.replace(update, tensors=clean)


class LetsNaNThrough(InRounds):
    """What is not finite takes part."""

    def passes(self, tensor: Tensor) -> bool:
        return not bool(torch.isfinite(tensor).all())

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        spoilt = [
            (name, tensor)
            for update in request.updates
            for name, tensor in update.tensors.items()
            if self.passes(tensor)
        ]
        if reply.result is None or not spoilt:
            return reply
        name, tensor = spoilt[0]
        return dataclasses.replace(reply, result={**reply.result, name: reply.result[name] + tensor.sum()})


class ChecksNaNOnly(LetsNaNThrough):
    def passes(self, tensor: Tensor) -> bool:
        return bool(torch.isinf(tensor).any())


class BroadcastsShapes(InUpdates):
    def update(self, update: Update, request: Aggregate) -> Update:
        assert request.layout is not None
        shapes = {entry.name: entry.shape for entry in request.layout.entries}
        return dataclasses.replace(
            update, tensors={name: _fit(tensor, shapes.get(name)) for name, tensor in update.tensors.items()}
        )


def _fit(tensor: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    if shape is None:
        return tensor
    if tensor.numel() == 1:
        return tensor.reshape(()).expand(shape).clone()
    return tensor.reshape(shape) if tensor.numel() == torch.Size(shape).numel() else tensor


class DropsKeyByKey(InUpdates):
    """Takes the keys that an update has, and fills up the others."""

    def update(self, update: Update, request: Aggregate) -> Update:
        assert request.layout is not None
        found = {
            e.name: update.tensors.get(e.name, torch.zeros(e.shape, dtype=getattr(torch, e.dtype)))
            for e in request.layout.entries
        }
        return dataclasses.replace(update, tensors=found)


class CastsDtypes(InUpdates):
    def update(self, update: Update, request: Aggregate) -> Update:
        assert request.layout is not None
        kinds = {entry.name: getattr(torch, entry.dtype) for entry in request.layout.entries}
        cast = {name: tensor.to(kinds.get(name, tensor.dtype)) for name, tensor in update.tensors.items()}
        return dataclasses.replace(update, tensors=cast)


class DropsLastWorker(InRounds):
    def sent(self, request: Aggregate) -> Aggregate:
        return dataclasses.replace(request, updates=request.updates[: max(1, len(request.updates) - 1)])


class CountsDuplicates(InRounds):
    """A second delivery counts as another worker's."""

    def sent(self, request: Aggregate) -> Aggregate:
        seen: list[str] = []
        for update in request.updates:
            seen.append(update.worker + "'" * seen.count(update.worker) if update.worker in seen else update.worker)
        updates = tuple(dataclasses.replace(u, worker=w) for u, w in zip(request.updates, seen, strict=True))
        members = None if request.members is None else tuple(dict.fromkeys((*request.members, *seen)))
        return dataclasses.replace(request, updates=updates, members=members)

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, used=tuple(name.rstrip("'") for name in reply.used or ()))


# ------------------------------------------------------------------------------------------------ results


class WidensHalves(InResults):
    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class FlattensScalars(InResults):
    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return tensor.reshape(-1)


class SortsNames(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return reply if reply.result is None else dataclasses.replace(reply, result=dict(sorted(reply.result.items())))


class SumsAsListed(InResults):
    ways = ALL_MEANS

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        total = torch.zeros_like(tensor)
        for update in request.updates:
            total = total + update.mass * update.tensors[name]
        return total / sum(update.mass for update in request.updates)


class FirstListedWinsTies(InResults):
    """Of the two middle ones it takes the one that was listed first."""

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return tensor if len(request.updates) % 2 else request.updates[0].tensors[name].clone()


class DividesByMembersPlusOne(InResults):
    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        count = len(request.updates)
        return tensor * (count / (count + 1))


class StartsFromZero(InResults):
    """An iteration that is stopped before it arrives."""

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return tensor * 0.999 if tensor.dtype in (torch.float32, torch.float64) else tensor


class AveragesIntegers(InResults):
    floats, integers = False, True

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return column(request.updates, name).mean(dim=0).to(tensor.dtype)


class UpperMedian(InResults):
    floats, integers = False, True

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return column(request.updates, name).sort(dim=0).values[len(request.updates) // 2].to(tensor.dtype)


class MedianForgetsMass(InResults):
    ways = ALL_MEANS
    floats, integers = False, True

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return column(request.updates, name).sort(dim=0).values[(len(request.updates) - 1) // 2].to(tensor.dtype)


class AccumulatesInHalf(SumsAsListed):
    """Sums in the type of the entry."""


class TruncatesHalves(InResults):
    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        if tensor.dtype not in (torch.float16, torch.bfloat16):
            return tensor
        exact = average(column(request.updates, name), masses(request.updates))
        too_far = tensor.double().abs() > exact.abs()
        return (tensor.view(torch.int16) - too_far.to(torch.int16)).view(tensor.dtype)


# ------------------------------------------------------------------------------------------------ nodes


class KeepsState(Planted):
    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        reply = ask(request)
        state["rounds"] = state.get("rounds", 0) + 1
        if state["rounds"] == 1 or not isinstance(reply, Aggregated) or reply.result is None:
            return reply
        warm = {n: t + 1 if t.is_floating_point() else t for n, t in reply.result.items()}
        return dataclasses.replace(reply, result=warm)


class RemembersLayout(Planted):
    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        assert isinstance(request, Aggregate)
        return ask(dataclasses.replace(request, layout=state.setdefault("layout", request.layout)))


class SeedsTorch(InRounds):
    def sent(self, request: Aggregate) -> Aggregate:
        torch.manual_seed(len(request.updates))
        return request


class ChangesDefaults(InRounds):
    def sent(self, request: Aggregate) -> Aggregate:
        torch.set_default_dtype(torch.float64)
        return request


class LoopsOnBranchingOne(Planted):
    """What its guard says of it."""

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        if _never_ends(request):
            return Failed(reason="took longer than 60 s", definite=True)
        return ask(request)


class RaisesNakedError(Planted):
    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        if _never_ends(request):
            raise ZeroDivisionError("division by zero")
        return ask(request)


def _never_ends(request: Request) -> bool:
    branching = getattr(request, "branching", None)
    return branching is not None and not (type(branching) is int and branching >= 2)


class AcceptsAThird(InRounds):
    def sent(self, request: Aggregate) -> Aggregate:
        most = (len(request.updates) - 1) // 3
        return dataclasses.replace(request, faulty_max=max(0, min(request.faulty_max, most)))


class RefusesInSilence(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return Misused(error="ValueError", sentence=" ") if isinstance(reply, Misused) else reply


class UnknownRuleMeansMean(InRounds):
    def sent(self, request: Aggregate) -> Aggregate:
        known = any(request.rule == rule for rule, _ in self.rules)
        return request if known else dataclasses.replace(request, rule="weighted_mean")


class EmptyRoundIsZero(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        empty = isinstance(request, Aggregate) and not request.updates
        return Aggregated(result={}, used=(), rejected={}, missing=()) if empty else reply


# ------------------------------------------------------------------------------------------------ means up a tree


class InTrees(InResults):
    ways = means("tree")

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        updates = sorted(request.updates, key=lambda update: update.worker)
        values, weights = list(column(updates, name)), masses(updates).tolist()
        level = True
        while len(values) > 1:
            groups = [range(i, min(i + self.b(request), len(values))) for i in range(0, len(values), self.b(request))]
            pairs = [self.node([values[i] for i in g], [weights[i] for i in g], tensor, level, request) for g in groups]
            values, weights, level = [v for v, _ in pairs], [w for _, w in pairs], False
        return values[0].to(tensor.dtype)

    def b(self, request: Aggregate) -> int:
        return request.branching or 3

    def node(
        self, values: Sequence[Tensor], weights: Sequence[float], like: Tensor, leaf: bool, request: Aggregate
    ) -> tuple[Tensor, float]:
        """A node's vector and mass."""
        return average(torch.stack(list(values)), torch.tensor(weights, dtype=torch.float64)), sum(weights)


class MeanOfMeans(InTrees):
    def node(
        self, values: Sequence[Tensor], weights: Sequence[float], like: Tensor, leaf: bool, request: Aggregate
    ) -> tuple[Tensor, float]:
        return torch.stack(list(values)).mean(dim=0), 1.0


class MassOnlyAtLeaves(InTrees):
    def node(
        self, values: Sequence[Tensor], weights: Sequence[float], like: Tensor, leaf: bool, request: Aggregate
    ) -> tuple[Tensor, float]:
        return average(torch.stack(list(values)), torch.tensor(weights, dtype=torch.float64)), 1.0


class PadsWithZeros(InTrees):
    def node(
        self, values: Sequence[Tensor], weights: Sequence[float], like: Tensor, leaf: bool, request: Aggregate
    ) -> tuple[Tensor, float]:
        return torch.stack(list(values)).sum(dim=0) / self.b(request), 1.0


class RoundsAtEveryNode(InTrees):
    def node(
        self, values: Sequence[Tensor], weights: Sequence[float], like: Tensor, leaf: bool, request: Aggregate
    ) -> tuple[Tensor, float]:
        whole, mass = super().node(values, weights, like, leaf, request)
        return whole.to(like.dtype).double(), mass


class AddsInFloat32(InResults):
    ways = means("tree", "mapreduce", "sharded")

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        total = torch.zeros_like(tensor, dtype=torch.float32)
        for update in request.updates:
            total += update.mass * update.tensors[name].float()
        return (total / float(masses(request.updates).sum())).to(tensor.dtype)


class ForgetsMass(InUpdates):
    def update(self, update: Update, request: Aggregate) -> Update:
        return dataclasses.replace(update, mass=1.0)


class SoftmaxOfMasses(InResults):
    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        weights = torch.softmax(masses(request.updates), dim=0)
        return average(column(request.updates, name), weights).to(tensor.dtype)


class SwapsEntries(InRounds):
    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if reply.result is None or len(reply.result) < 2:
            return reply
        names = list(reply.result)
        one, two = reply.result[names[0]], reply.result[names[1]]
        if one.shape != two.shape or one.dtype != two.dtype:
            return reply
        return dataclasses.replace(reply, result={**reply.result, names[0]: two, names[1]: one})


class JudgesEachShard(InRows):
    """Every coordinate is judged by itself, and the pieces are put together."""

    ways = frozenset({("geometric_median", "sharded")})

    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return rows.median(dim=0).values if request.topology == "sharded" else right


class RobustTreePromisesAll(Planted):
    def before(self, request: Request) -> Request:
        return dataclasses.replace(request, topology="flat") if isinstance(request, Aggregate) else request
