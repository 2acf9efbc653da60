"""Workers that do not train: each contributes a row that its name, the round and a seed give.

So anybody can compute the result, and a contribution to another round shows in it.

For benchmarks and for faults at sizes where training would be all one sees. They keep the laws of a worker: the state
must have been adopted, digests are made of what is sent, the same request gives the same contribution.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hqde_ref.core.packing import digest, fingerprint, merge_rows
from hqde_ref.core.sharding import cut, name_pieces
from hqde_ref.messages import (
    UNKNOWN,
    Adopt,
    Adopted,
    Contribution,
    Entry,
    Failed,
    Layout,
    Payload,
    Reply,
    Request,
    Train,
    message,
)
from simulator.streams import seed_of, stream

__all__ = ["Synthetic", "SyntheticSpec", "first_state", "synthetic_layout", "synthetic_row"]

SPREAD = 0.1  # of honest rows around their common centre


def synthetic_layout(floats: int) -> Layout:
    """Two floating parameters of unlike size, and one counter as batch normalisation has it."""
    bias = max(floats // 100, 1)
    return Layout(
        entries=(
            Entry(name="weight", shape=(floats - bias,), dtype="float32"),
            Entry(name="bias", shape=(bias,), dtype="float32"),
            Entry(name="seen", shape=(1,), dtype="int64"),
        )
    )


def synthetic_row(name: str, *, seed: int, floats: int, round_number: int, lie: str | None = None) -> Tensor:
    """The packed row of a worker in a round. A ``lie`` is "far" or "nan"."""
    row = _lasting_row(name, seed=seed, floats=floats, lie=lie)
    return _in_round(row, name, seed=seed, round_number=round_number)


def _lasting_row(name: str, *, seed: int, floats: int, lie: str | None) -> Tensor:
    """What is the same in all rounds: the common centre and the worker's own noise."""
    centre = torch.randn(floats, generator=torch.Generator().manual_seed(seed_of(seed, "centre")))
    noise = torch.randn(floats, generator=torch.Generator().manual_seed(seed_of(seed, "noise", name)))
    row = centre + SPREAD * noise
    if lie == "far":
        row = -10.0 * row
    if lie == "nan":
        row[floats // 2] = math.nan
    return row


def _in_round(row: Tensor, name: str, *, seed: int, round_number: int) -> Tensor:
    """All coordinates moved by a step that only this worker makes and only in this round: one pass, no new noise."""
    step = SPREAD * stream(seed, "step", name, round_number).uniform(-1.0, 1.0)
    return merge_rows(row + step, torch.tensor([len(name)]), synthetic_layout(row.numel()))


def first_state(floats: int, shards: int) -> tuple[tuple[Payload, ...], tuple[str, ...]]:
    """Zeros, as the state that a first round starts from: only for runtimes in this process."""
    layout = synthetic_layout(floats)
    pieces = cut(merge_rows(torch.zeros(floats), torch.zeros(1, dtype=torch.int64), layout), layout, shards)
    payloads = tuple(Payload(key=f"zeros/{i}", ref=piece, nbytes=piece.numel()) for i, piece in enumerate(pieces))
    return payloads, tuple(map(digest, pieces))


@message
class SyntheticSpec:
    """A synthetic worker as data; one that is ``lasting`` gives the row of round 0 in all rounds, made beforehand."""

    name: str
    seed: int = 0
    floats: int = 1000
    lie: str | None = None
    lasting: bool = False

    def build(self, incarnation: int, /) -> Synthetic:
        return Synthetic(self, incarnation)


class Synthetic:
    """Holds what lasts of its row, and the digests of the state it adopted."""

    def __init__(self, spec: SyntheticSpec, incarnation: int) -> None:
        self._name = spec.name
        self._seed = spec.seed
        self._incarnation = incarnation
        self._layout = synthetic_layout(spec.floats)
        self._row = _lasting_row(spec.name, seed=spec.seed, floats=spec.floats, lie=spec.lie)
        self._packed = self._packed_in(0) if spec.lasting else None
        self._base: tuple[str, ...] | None = None
        self._done: tuple[Train, Contribution] | None = None

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Adopt():
                return self._adopt(request)
            case Train() if self._done is not None and self._done[0] == request:
                return self._done[1]
            case Train(base=base) if base != self._base:
                return Failed(reason=UNKNOWN, definite=True)
            case Train():
                self._done = request, self._contribute(request)
                return self._done[1]
            case _:
                return Failed(reason=f"a worker does not answer {type(request).__name__}", definite=True)

    def _adopt(self, request: Adopt) -> Reply:
        found = tuple(digest(piece.ref) for piece in request.state)
        if found != request.digests:
            return Failed(reason="corrupted: the state has other digests", definite=True)
        self._base = found
        return Adopted(worker=self._name, round=request.round, incarnation=self._incarnation)

    def _packed_in(self, round_number: int) -> Tensor:
        return _in_round(self._row, self._name, seed=self._seed, round_number=round_number)

    def _contribute(self, request: Train) -> Contribution:
        source = f"{self._name}.{self._incarnation}/{request.round}"
        packed = self._packed_in(request.round) if self._packed is None else self._packed
        payloads, digests = name_pieces(source, cut(packed, self._layout, request.shards))
        return Contribution(
            round=request.round,
            worker=self._name,
            incarnation=self._incarnation,
            payloads=payloads,
            layout=fingerprint(self._layout),
            digests=digests,
            mass=1.0,
            samples=request.stop - request.start,
            loss=None,
            efficiency=1.0,
            accuracy=0.5,
        )
