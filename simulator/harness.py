"""The harness's own nodes: an attacker that forges, and an observer that knows who was honest and measures.

They judge the reference and so borrow nothing from its core's arithmetic; packing is only how a vector is read.
"""

from __future__ import annotations

import dataclasses

import torch
import xxhash
from torch import Tensor

from hqde_ref.messages import (
    Contribution,
    Failed,
    Forge,
    Layout,
    Measure,
    Measured,
    Payload,
    Reply,
    Request,
    message,
)
from simulator.attacks import Knowledge, forge

__all__ = ["Attacker", "AttackerSpec", "Observer", "ObserverSpec", "bytes_to_floats"]

BIT_FLIP = "bit_flip"  # damage on the way, not a lie: the digest stays the sender's
_SIZES = {
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
}


def _float_ranges(layout: Layout) -> list[tuple[int, int, torch.dtype]]:
    """Byte ranges of the floating entries: each entry starts at a multiple of eight."""
    ranges, at = [], 0
    for entry in layout.entries:
        count = 1
        for size in entry.shape:
            count *= size
        stop = at + count * _SIZES.get(entry.dtype, 8)
        if "float" in entry.dtype:
            ranges.append((at, stop, getattr(torch, entry.dtype)))
        at = -(-stop // 8) * 8
    return ranges


def bytes_to_floats(packed: Tensor, layout: Layout) -> Tensor:
    """All floating values of a packed vector as one float64 row."""
    pieces = [packed[start:stop].view(kind).double() for start, stop, kind in _float_ranges(layout)]
    return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.float64)


def _floats_to_bytes(row: Tensor, like: Tensor, layout: Layout) -> Tensor:
    packed, at = like.clone(), 0
    for start, stop, kind in _float_ranges(layout):
        target = packed[start:stop].view(kind)
        target.copy_(row[at : at + target.numel()])
        at += target.numel()
    return packed


@message
class AttackerSpec:
    """An attacker as data."""

    name: str

    def build(self, incarnation: int, /) -> Attacker:
        return Attacker()


class Attacker:
    """Forges contributions; knows what the adversary tells it and keeps nothing."""

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Forge(attack=attack) if attack == BIT_FLIP:
                return self._damage(request)
            case Forge():
                return self._forge(request)
            case _:
                return Failed(reason=f"an attacker does not answer {type(request).__name__}", definite=True)

    def _damage(self, request: Forge) -> Contribution:
        assert request.template is not None, "the adversary damages what somebody sent"
        packed = request.template.payload.ref.clone()
        at = torch.randint(packed.numel(), (1,), generator=torch.Generator().manual_seed(request.seed))
        packed[at] ^= 1 << (request.seed % 8)
        return dataclasses.replace(request.template, payload=self._payload(request, packed))

    def _forge(self, request: Forge) -> Contribution:
        base = request.base.ref
        row = forge(
            request.attack,
            request.options,
            Knowledge(
                honest=[bytes_to_floats(payload.ref, request.layout) for payload in request.known],
                base=bytes_to_floats(base, request.layout),
                generator=torch.Generator().manual_seed(request.seed),
            ),
        )
        packed = _floats_to_bytes(row, base, request.layout)
        assert request.template is not None, "a liar has a contribution to replace"
        return dataclasses.replace(
            request.template,
            payload=self._payload(request, packed),
            digest=xxhash.xxh3_128_hexdigest(packed.numpy().data),
        )

    def _payload(self, request: Forge, packed: Tensor) -> Payload:
        return Payload(key=f"forged/{request.round}/{request.worker}", ref=packed, nbytes=packed.numel())


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
        honest = torch.stack([bytes_to_floats(payload.ref, request.layout) for payload in request.honest])
        result = bytes_to_floats(request.result.ref, request.layout)
        mean = honest.mean(dim=0)
        away = (honest - mean).norm(dim=1)
        return Measured(
            error=float((result - mean).norm()),
            deviation=float(away.square().mean().sqrt()),
            farthest=float(away.max()),
            result_norm=float(result.norm()),
        )
