"""The harness's own nodes: an attacker that forges, and an observer that knows who was honest and measures.

They read vectors through the reference's packing and compute on their own, in float64: a judge borrows no arithmetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from hqde_ref.core.combining import resolve_rows
from hqde_ref.core.packing import merge_rows, row_dtype, split_rows
from hqde_ref.core.rules import get_rule
from hqde_ref.core.sharding import cut, join, name_pieces
from hqde_ref.messages import (
    Contribution,
    Failed,
    Forge,
    Layout,
    Measure,
    Measured,
    Payload,
    Policy,
    Reply,
    Request,
    message,
)
from simulator.attack_knowledge import Aggregation
from simulator.attacks import Knowledge, forge

__all__ = ["BIT_FLIP", "Attacker", "AttackerSpec", "Observer", "ObserverSpec"]

BIT_FLIP = "bit_flip"  # damage on the way, not a lie: the digest stays the sender's


def _floats(pieces: Sequence[Payload], layout: Layout) -> Tensor:
    """All floating values of a vector as one float64 row."""
    row, _ = split_rows(join([piece.ref for piece in pieces], layout), layout)
    return row.double()


@message
class AttackerSpec:
    """An attacker as data."""

    name: str

    def build(self, incarnation: int, /) -> Attacker:
        return Attacker()


class Attacker:
    """Forges contributions; knows what the adversary tells it. All colluders of a round send one row, made once."""

    def __init__(self) -> None:
        self._made: tuple[Forge, Tensor] | None = None

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Forge(attack=attack) if attack == BIT_FLIP:
                return self._damage(request)
            case Forge():
                return self._forge(request)
            case _:
                return Failed(reason=f"an attacker does not answer {type(request).__name__}", definite=True)

    def _damage(self, request: Forge) -> Contribution:
        """Flip one bit in one shard."""
        assert request.template is not None, "the adversary damages what somebody sent"
        sent = request.template.payloads
        shard = request.seed % len(sent)
        packed = sent[shard].ref.clone()
        at = torch.randint(packed.numel(), (1,), generator=torch.Generator().manual_seed(request.seed))
        packed[at] ^= 1 << (request.seed % 8)
        pieces = [packed if index == shard else piece.ref for index, piece in enumerate(sent)]
        payloads, _ = name_pieces(_source(request), pieces)  # the digests stay those of what was sent
        return dataclasses.replace(request.template, payloads=payloads)

    def _forge(self, request: Forge) -> Contribution:
        assert request.template is not None, "a liar has a contribution to replace"
        if self._made is None or not _is_same_lie(self._made[0], request):
            self._made = request, _forge_row(request)
        row = self._made[1]
        _, integers = split_rows(join([piece.ref for piece in request.base], request.layout), request.layout)
        packed = merge_rows(row.to(row_dtype(request.layout)), integers, request.layout)
        payloads, digests = name_pieces(_source(request), cut(packed, request.layout, len(request.base)))
        return dataclasses.replace(request.template, payloads=payloads, digests=digests)


def _is_same_lie(one: Forge, other: Forge) -> bool:
    """Payloads are equal by key, which another run on the same hosts uses again: the state has to be the same too."""
    alike = dataclasses.replace(one, worker=other.worker, template=other.template) == other
    return alike and all(torch.equal(a.ref, b.ref) for a, b in zip(one.base, other.base, strict=True))


def _forge_row(request: Forge) -> Tensor:
    return forge(
        request.attack,
        request.options,
        Knowledge(
            honest=[_floats(pieces, request.layout) for pieces in request.known],
            base=_floats(request.base, request.layout),
            generator=torch.Generator().manual_seed(request.seed),
            colluders=request.colluders,
            rule=None if request.policy is None else _aggregation(request.policy),
        ),
    )


def _aggregation(policy: Policy) -> Aggregation:
    """What a flat round of all contributions makes of them: what a searching liar aims at."""
    if get_rule(policy.rule).family == "mean":
        return lambda rows: torch.stack(list(rows)).mean(dim=0)
    return lambda rows: (
        resolve_rows(
            rows,
            rule=policy.rule,
            faulty_max=policy.faulty_max,
            rejections_max=policy.faulty_max,
            outlier_factor=policy.outlier_factor,
        ).row
    )


def _source(request: Forge) -> str:
    return f"forged/{request.round}/{request.worker}"


@message
class ObserverSpec:
    """An observer as data."""

    name: str

    def build(self, incarnation: int, /) -> Observer:
        return Observer()


class Observer:
    """Measures results against the honest, in float64."""

    def perform(self, request: Request, /) -> Reply:
        if not isinstance(request, Measure):
            return Failed(reason=f"an observer does not answer {type(request).__name__}", definite=True)
        honest = torch.stack([_floats(pieces, request.layout) for pieces in request.honest])
        result = _floats(request.result, request.layout)
        mean = honest.mean(dim=0)
        away = (honest - mean).norm(dim=1)
        return Measured(
            error=float((result - mean).norm()),
            deviation=float(away.square().mean().sqrt()),
            farthest=float(away.max()),
            result_norm=float(result.norm()),
        )
