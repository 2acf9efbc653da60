"""What planted bugs are made of: the reference with one thing wrong, and small helpers to get things wrong with.

Source: docs/design.md: every property catches a planted bug, and every planted bug is caught.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hqde_ref.messages import Aggregate, Aggregated, Node, Reply, Request, Update
from hqde_ref.reference import Reference

State = dict[str, Any]


class Planted(Reference):
    """The reference with a bug. ``ways``: where it shows (rule, topology); None: wherever it is looked for.

    A child overrides ``before`` (the request is answered as another one), ``after`` (the answer is spoilt), or
    ``perform``, which calls both. ``state`` belongs to one node.
    """

    ways: frozenset[tuple[str, str]] | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"planted.{type(self).__name__}"

    def start(self) -> Node:
        return _PlantedNode(self, Reference().start())

    def before(self, request: Request) -> Request:
        return request

    def after(self, request: Request, reply: Reply) -> Reply:
        return reply

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        return self.after(request, ask(self.before(request)))


class _PlantedNode:
    def __init__(self, bug: Planted, inner: Node) -> None:
        self._bug, self._inner, self._state = bug, inner, dict[str, Any]()

    def perform(self, request: Request, /) -> Reply:
        return self._bug.perform(request, self._inner.perform, self._state)


class InRounds(Planted):
    """Shows in aggregations only."""

    def before(self, request: Request) -> Request:
        return self.sent(request) if self._shows_in(request) else request

    def after(self, request: Request, reply: Reply) -> Reply:
        if self._shows_in(request) and isinstance(reply, Aggregated):
            return self.got(request, reply)
        return reply

    def _shows_in(self, request: Request) -> bool:
        here = isinstance(request, Aggregate)
        return here and (self.ways is None or (request.rule, request.topology) in self.ways)

    def sent(self, request: Aggregate) -> Aggregate:
        return request

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        return reply


class InUpdates(InRounds):
    """Treats each contribution wrongly before it is aggregated."""

    def sent(self, request: Aggregate) -> Aggregate:
        return dataclasses.replace(request, updates=tuple(self.update(u, request) for u in request.updates))

    def update(self, update: Update, request: Aggregate) -> Update:
        return update


class InResults(InRounds):
    """Spoils the result where there is one: ``tensor`` gets one entry of it."""

    floats, integers = True, False

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if reply.result is None:
            return reply
        spoilt = {name: self._spoil(name, tensor, request) for name, tensor in reply.result.items()}
        return dataclasses.replace(reply, result=spoilt)

    def _spoil(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        wanted = self.floats if tensor.is_floating_point() else self.integers
        return self.tensor(name, tensor, request) if wanted else tensor

    def tensor(self, name: str, tensor: Tensor, request: Aggregate) -> Tensor:
        return tensor


def means(*topologies: str) -> frozenset[tuple[str, str]]:
    return frozenset(("weighted_mean", topology) for topology in topologies)


ALL_MEANS = means("flat", "tree", "mapreduce", "sharded")
MEDIAN = frozenset({("geometric_median", "flat")})


def column(updates: Sequence[Update], name: str) -> Tensor:
    """(n, ...) float64: one entry of all updates."""
    return torch.stack([update.tensors[name].double() for update in updates])


def masses(updates: Sequence[Update]) -> Tensor:
    return torch.tensor([update.mass for update in updates], dtype=torch.float64)


def average(values: Tensor, weights: Tensor) -> Tensor:
    """Plain weighted mean over the first axis."""
    shape = (-1,) + (1,) * (values.dim() - 1)
    return (values * weights.reshape(shape)).sum(dim=0) / weights.sum()


def table(updates: Sequence[Update]) -> Tensor:
    """(n, d) float64: all float values."""
    return torch.stack([_flat(update.tensors) for update in updates])


def _flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().reshape(-1) for tensor in tensors.values() if tensor.is_floating_point()])


def cut_like(row: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A row (d,) as the float entries of a result; other entries as they are."""
    pieces, at = {}, 0
    for name, tensor in like.items():
        if not tensor.is_floating_point():
            pieces[name] = tensor
            continue
        pieces[name] = row[at : at + tensor.numel()].to(tensor.dtype).reshape(tensor.shape)
        at += tensor.numel()
    return pieces


class InRows(InRounds):
    """Computes something else than the rule: ``row`` makes (d,) from (n, d) of those who were used."""

    def got(self, request: Aggregate, reply: Aggregated) -> Aggregated:
        if reply.result is None:
            return reply
        used = sorted((u for u in request.updates if u.worker in (reply.used or ())), key=lambda u: u.worker)
        like = reply.result
        return dataclasses.replace(reply, result=cut_like(self.row(table(used), _flat(like), request), like))

    def row(self, rows: Tensor, right: Tensor, request: Aggregate) -> Tensor:
        return right
