"""Planted bugs of section 2's MapReduce and of plans made again: pairs, weights, and who carries inner nodes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from hqde_ref.messages import (
    Aggregate,
    Aggregated,
    MapShuffle,
    Pair,
    ReplanTree,
    Reply,
    Request,
    Shuffled,
    TreeReplanned,
    Update,
)
from tests.planted_base import InRounds, InUpdates, Planted, average, cut_like, table

HIERARCHICAL = frozenset({("accuracy_softmax", "mapreduce")})
FLAT = frozenset({("weighted_mean", "mapreduce")})

# ------------------------------------------------------------------------------------------------ pairs


class InShuffles(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return self.shuffled(request, reply) if isinstance(reply, Shuffled) else reply

    def shuffled(self, request: MapShuffle, reply: Shuffled) -> Shuffled:
        return reply


class LosesAPair(InShuffles):
    def shuffled(self, request: MapShuffle, reply: Shuffled) -> Shuffled:
        name = list(reply.groups)[-1]
        return dataclasses.replace(reply, groups={**reply.groups, name: reply.groups[name][:-1]})


class DoublesAPair(InShuffles):
    def shuffled(self, request: MapShuffle, reply: Shuffled) -> Shuffled:
        name = next(iter(reply.groups))
        return dataclasses.replace(reply, groups={**reply.groups, name: reply.groups[name] + reply.groups[name][:1]})


class MixesSources(InShuffles):
    """The sources of a group are sorted, its tensors are not."""

    def shuffled(self, request: MapShuffle, reply: Shuffled) -> Shuffled:
        mixed = {
            name: tuple(
                Pair(source=pair.source, tensor=other.tensor)
                for pair, other in zip(pairs, reversed(pairs), strict=True)
            )
            for name, pairs in reply.groups.items()
        }
        return dataclasses.replace(reply, groups=mixed)


class SkipsInSilence(InShuffles):
    def shuffled(self, request: MapShuffle, reply: Shuffled) -> Shuffled:
        return dataclasses.replace(reply, unmapped={})


class MapsHalfAnItem(InShuffles):
    """What an item has under a parameter's name is emitted before the rest of it is found wanting."""

    def shuffled(self, request: MapShuffle, reply: Shuffled) -> Shuffled:
        bad = [item for item in request.items if item.worker in reply.unmapped]
        groups = {
            name: pairs + tuple(Pair(source=b.worker, tensor=b.tensors[name]) for b in bad if name in b.tensors)
            for name, pairs in reply.groups.items()
        }
        return dataclasses.replace(reply, groups=groups)


# ------------------------------------------------------------------------------------------------ weights


class InWeights(InRounds):
    """Weighs those used by something else."""

    ways = HIERARCHICAL

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if reply.result is None:
            return reply
        used = [update for update in request.updates if update.worker in (reply.used or ())]
        row = average(table(used), torch.tensor(self.weights(used), dtype=torch.float64))
        return dataclasses.replace(reply, result=cut_like(row, reply.result))

    def weights(self, updates: Sequence[Update]) -> list[float]:
        return [1.0] * len(updates)


class WeighsByAccuracyItself(InWeights):
    def weights(self, updates: Sequence[Update]) -> list[float]:
        return [float(update.accuracy or 0.0) + 1e-12 for update in updates]


class SharpensSoftmax(InWeights):
    """The document's example, [0.28, 0.25, 0.22, 0.25], is near a softmax of three times the accuracies."""

    def weights(self, updates: Sequence[Update]) -> list[float]:
        return [math.exp(3.0 * float(update.accuracy or 0.0)) for update in updates]


class FlatWeighsByAccuracy(WeighsByAccuracyItself):
    ways = FLAT


class InAccuracies(InUpdates):
    ways = HIERARCHICAL

    def update(self, update: Update, request: Aggregate) -> Update:
        return dataclasses.replace(update, accuracy=self.accuracy(update.accuracy))

    def accuracy(self, given: float | None) -> float | None:
        return given


class RefusesWholeAccuracies(InAccuracies):
    def accuracy(self, given: float | None) -> float | None:
        return given if isinstance(given, float) else None


class MissingAccuracyIsOne(InAccuracies):
    def accuracy(self, given: float | None) -> float | None:
        return 1.0 if given is None else given


class ClampsAccuracy(InAccuracies):
    def accuracy(self, given: float | None) -> float | None:
        return given if given is None or given != given else min(1.0, max(0.0, given))


class RejectsWithoutSayingAccuracy(InRounds):
    ways = HIERARCHICAL

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return dataclasses.replace(reply, rejected=dict.fromkeys(reply.rejected or {}, "it cannot be used"))


# ------------------------------------------------------------------------------------------------ plans made again


class InReplans(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return self.replanned(request, reply) if isinstance(reply, TreeReplanned) else reply

    def replanned(self, request: ReplanTree, planned: TreeReplanned) -> TreeReplanned:
        return planned


class LeavesItOnTheSlow(InReplans):
    """Inner nodes are dealt in turn, whatever was measured."""

    def replanned(self, request: ReplanTree, planned: TreeReplanned) -> TreeReplanned:
        hosts = sorted(request.seconds)
        dealt = {node: hosts[index % len(hosts)] for index, node in enumerate(planned.hosts)}
        return dataclasses.replace(planned, hosts=dealt)


class ForgetsANodeWhenReplanning(InReplans):
    def replanned(self, request: ReplanTree, planned: TreeReplanned) -> TreeReplanned:
        return dataclasses.replace(planned, hosts=dict(list(planned.hosts.items())[:-1]))


class ReplansAnotherTree(InReplans):
    """All workers hang on the root, since it is the fastest."""

    def replanned(self, request: ReplanTree, planned: TreeReplanned) -> TreeReplanned:
        leaves = [node for node in planned.parents if node.startswith(f"{planned.depth}.")]
        star: dict[str, str | None] = {"0.0": None, **{leaf: "0.0" for leaf in leaves if leaf != "0.0"}}
        return dataclasses.replace(planned, parents=star)
