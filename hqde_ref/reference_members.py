"""Members that send what they are told to: recordings of workers, and what may be wrong with a contribution.

Source: HQDE clauses 1.6, 6.3, 6.6 and 6.8. Like a worker, a member that was started again lacks the published state,
says so, and contributes once it has adopted it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from hqde_ref.core.packing import digest, find_misfit, fingerprint, layout_of, pack
from hqde_ref.core.sharding import cut, name_pieces
from hqde_ref.core.weighting import EFFICIENCY_START
from hqde_ref.messages import (
    UNKNOWN,
    Adopt,
    Adopted,
    Contribution,
    Failed,
    Layout,
    Payload,
    Reply,
    Request,
    RoundFault,
    Train,
    Update,
    message,
)

__all__ = ["DAMAGES", "RecordedSpec", "Recording"]

DAMAGES: Final = ("is stale", "equivocates", "flips a bit", "truncates")


@message
class Recording:
    """What a member does in this round.

    Attributes:
        layout: what the round declares.
        updates: what it contributes; several, if it equivocates. Empty: it is silent.
        damages: faults of its contribution, by their numbers, which are noted in ``fired`` when they take effect.
    """

    layout: Layout
    updates: tuple[Update, ...]
    damages: tuple[tuple[int, RoundFault], ...]
    fired: list[bool]


@message
class RecordedSpec:
    """A member as data; ``recordings`` changes from round to round."""

    name: str
    recordings: Mapping[str, Recording]

    def build(self, incarnation: int, /) -> _Recorded:
        return _Recorded(self.name, self.recordings, incarnation)


class _Recorded:
    """Holds which state it has adopted, how often it was asked for a contribution, and what it has told by now."""

    def __init__(self, name: str, recordings: Mapping[str, Recording], incarnation: int) -> None:
        self._name, self._recordings, self._incarnation = name, recordings, incarnation
        self._base: tuple[str, ...] | None = None
        self._asked = 0
        self._told: set[tuple[int, int]] = set()

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Adopt():
                return self._adopt(request)
            case Train() if self._base != request.base:
                return Failed(reason=UNKNOWN, definite=True)
            case Train():
                return self._contribute(request, self._recordings[self._name])
            case _:
                return Failed(reason=f"a member does not answer {type(request).__name__}", definite=True)

    def _adopt(self, request: Adopt) -> Reply:
        found = tuple(digest(piece.ref) for piece in request.state)
        if found != request.digests:
            return Failed(reason="corrupted: the state has other digests than were published", definite=True)
        self._base = found
        return Adopted(worker=self._name, round=request.round, incarnation=self._incarnation)

    def _contribute(self, request: Train, recording: Recording) -> Reply:
        if not recording.updates:
            return Failed(reason="nothing arrived", definite=True)
        tales = [_cut(update, recording.layout, request.shards) for update in recording.updates]
        twists = any(fault.kind == "equivocates" for _, fault in recording.damages)
        told = [(self._asked + shard) % len(tales) if twists else 0 for shard in range(request.shards)]
        self._asked += 1
        self._told |= {(request.round, tale) for tale in told}
        pieces = [tales[tale][1][shard] for shard, tale in enumerate(told)]
        sent = _as_contribution(self._name, request, recording.updates[told[0]], tales[told[0]][0], pieces)
        sent = dataclasses.replace(sent, incarnation=self._incarnation)
        for number, fault in recording.damages:
            if fault.kind == "equivocates":
                recording.fired[number] = len([tale for of, tale in self._told if of == request.round]) > 1
            else:
                recording.fired[number] = True
                sent = _damage(sent, fault)
        return _with_keys(sent)


def _cut(update: Update, layout: Layout, shards: int) -> tuple[str, tuple[Tensor, ...]]:
    """The layout's fingerprint and the pieces; what does not fit is sent in a layout of its own."""
    if find_misfit(update.tensors, layout) is not None:
        layout = layout_of(update.tensors)
    return fingerprint(layout), tuple(cut(pack(update.tensors, layout), layout, shards))


def _as_contribution(name: str, request: Train, update: Update, layout: str, pieces: list[Tensor]) -> Contribution:
    return Contribution(
        round=request.round,
        worker=name,
        incarnation=0,
        payloads=tuple(Payload(key="", ref=piece, nbytes=piece.numel()) for piece in pieces),
        layout=layout,
        digests=tuple(map(digest, pieces)),
        mass=1.0,
        samples=request.stop - request.start,
        loss=None,
        efficiency=EFFICIENCY_START,
        accuracy=update.accuracy,
    )


def _damage(sent: Contribution, fault: RoundFault) -> Contribution:
    """The contribution as it arrives; its digests are from before."""
    if fault.kind == "is stale":
        return dataclasses.replace(sent, round=sent.round - 1)
    place = max(range(len(sent.payloads)), key=lambda index: sent.payloads[index].nbytes)
    vector: Tensor = sent.payloads[place].ref
    if fault.kind == "truncates":
        arrives = vector[: vector.numel() // 2].clone()
    else:
        byte, bit = divmod(fault.bit % (8 * vector.numel()), 8)
        arrives = vector.clone()
        arrives[byte] ^= torch.tensor(1 << bit, dtype=torch.uint8)
    changed = Payload(key="", ref=arrives, nbytes=arrives.numel())
    payloads = (*sent.payloads[:place], changed, *sent.payloads[place + 1 :])
    return dataclasses.replace(sent, payloads=payloads)


def _with_keys(sent: Contribution) -> Contribution:
    """Keys that name the content as it arrives."""
    source = f"{sent.worker}.{sent.incarnation}/{sent.round}"
    payloads, _ = name_pieces(source, [payload.ref for payload in sent.payloads])
    return dataclasses.replace(sent, payloads=payloads)
