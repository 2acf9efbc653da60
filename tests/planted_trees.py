"""Planted bugs in trees of robust rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hqde_ref.messages import Aggregate, Aggregated, Reply, Request
from tests.planted_base import Planted, State
from tests.planted_rounds import InTrees

_RULES = ("coordinate_median", "lower_coordinate_median", "trimmed_mean", "geometric_median")
_WAYS = frozenset((rule, "tree") for rule in _RULES)


class MeansAtTheNodes(InTrees):
    ways = _WAYS


class OneNodeTakesNoMedian(InTrees):
    """Medians everywhere but at the lowest nodes, which take one child's word for all."""

    ways = _WAYS

    def node(
        self, values: Sequence[Tensor], weights: Sequence[float], like: Tensor, leaf: bool, request: Aggregate
    ) -> tuple[Tensor, float]:
        return (values[0] if leaf else torch.stack(list(values)).median(dim=0).values), 1.0


class ForgetsWhoLeftTheTree(Planted):
    """What is left is judged as if whoever is missing had never been a member, and no liar were."""

    ways = _WAYS

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        reply = ask(request)
        refused = isinstance(reply, Aggregated) and reply.result is None
        if isinstance(request, Aggregate) and refused and (request.rule, request.topology) in _WAYS:
            return ask(dataclasses.replace(request, faulty_max=0))
        return reply
