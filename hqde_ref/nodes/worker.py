"""A worker: an ensemble member that trains on its slice and contributes its weights.

Source: HQDE clauses 1.3 to 1.6, 6.2. No clock, no randomness, no calls outward.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from hqde_ref.core.packing import digest, fingerprint, layout_of, pack, unpack
from hqde_ref.core.sharding import cut, join, name_pieces
from hqde_ref.core.weighting import EFFICIENCY_START, next_efficiency
from hqde_ref.messages import (
    UNKNOWN,
    Adopt,
    Adopted,
    Contribution,
    Failed,
    Layout,
    Reply,
    Request,
    Train,
    message,
)
from hqde_ref.workloads import Workload, load_workload

__all__ = ["Worker", "WorkerSpec", "flip_labels", "train_steps"]


@message
class WorkerSpec:
    """A worker as data.

    Attributes:
        name, workload: who it is, and what it trains on.
        flips_labels: whether it is poisoned: it trains, honestly, on targets that are all wrong.
    """

    name: str
    workload: str
    flips_labels: bool = False

    def build(self, incarnation: int, /) -> Worker:
        workload = load_workload(self.workload)
        return Worker(self.name, flip_labels(workload) if self.flips_labels else workload, incarnation)


def flip_labels(workload: Workload) -> Workload:
    """The workload with every training target moved on by one class, the last to the first; tests stay right."""
    classes = int(workload.targets.max()) + 1
    return dataclasses.replace(workload, targets=(workload.targets + 1) % classes)


def train_steps(model: nn.Module, inputs: Tensor, targets: Tensor, *, steps: int, rate: float) -> list[float]:
    """Plain gradient steps on these rows; the losses, in order (clause 1.4).

    A loss that is not finite takes no step and ends training (E3); no rows, no steps (E2).
    """
    losses: list[float] = []
    if len(inputs) == 0:
        return losses
    model.train()
    for _ in range(steps):
        model.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), targets)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():  # as torch.optim.SGD, bit for bit, whose first step loads seconds' worth of a compiler
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-rate)
    return losses


class Worker:
    """Holds the adopted state, the efficiency score, and the last contribution (a retry trains no second time)."""

    def __init__(self, name: str, workload: Workload, incarnation: int) -> None:
        self._name = name
        self._workload = workload
        self._incarnation = incarnation
        self._model = workload.initial_model(seed=0)  # only its shapes matter: the state comes with Adopt
        # The first step in a process is slower than all others: a host is ready when that is behind it.
        train_steps(self._model, workload.inputs[:1], workload.targets[:1], steps=1, rate=workload.rate)
        self._layout: Layout = layout_of(self._model.state_dict())
        self._base: tuple[str, ...] | None = None
        self._state: Tensor | None = None
        self._efficiency = EFFICIENCY_START
        self._done: tuple[Train, Contribution] | None = None

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Adopt():
                return self._adopt(request)
            case Train():
                return self._train(request)
            case _:
                return Failed(reason=f"a worker does not answer {type(request).__name__}", definite=True)

    def _adopt(self, request: Adopt) -> Reply:
        found = tuple(digest(piece.ref) for piece in request.state)
        if found != request.digests:
            return Failed(reason=f"corrupted: the state has digests {', '.join(d[:12] for d in found)}", definite=True)
        self._state = join([piece.ref for piece in request.state], self._layout).clone()
        self._base = found
        return Adopted(worker=self._name, round=request.round, incarnation=self._incarnation)

    def _train(self, request: Train) -> Reply:
        if self._done is not None and self._done[0] == request:
            return self._done[1]
        if self._state is None or self._base != request.base:
            return Failed(reason=UNKNOWN, definite=True)
        self._model.load_state_dict(unpack(self._state, self._layout))
        rows = torch.arange(request.start, request.stop) % len(self._workload.inputs)
        losses = train_steps(
            self._model,
            self._workload.inputs[rows],
            self._workload.targets[rows],
            steps=request.steps,
            rate=self._workload.rate,
        )
        for loss in losses:
            self._efficiency = next_efficiency(self._efficiency, loss)
        contribution = self._contribute(request, losses, self._accuracy(rows) if losses else None)
        self._done = (request, contribution)
        return contribution

    def _accuracy(self, rows: Tensor) -> float:
        """The share of the slice that the model gets right."""
        self._model.eval()
        with torch.no_grad():
            guesses = self._model(self._workload.inputs[rows]).argmax(dim=1)
        return float((guesses == self._workload.targets[rows]).double().mean())

    def _contribute(self, request: Train, losses: list[float], accuracy: float | None) -> Contribution:
        packed = pack(self._model.state_dict(), self._layout)
        source = f"{self._name}.{self._incarnation}/{request.round}"
        payloads, digests = name_pieces(source, cut(packed, self._layout, request.shards))
        samples = request.stop - request.start if losses else 0
        return Contribution(
            round=request.round,
            worker=self._name,
            incarnation=self._incarnation,
            payloads=payloads,
            layout=fingerprint(self._layout),
            digests=digests,
            mass=1.0,
            samples=samples,
            loss=losses[-1] if losses and math.isfinite(losses[-1]) else None,
            efficiency=self._efficiency,
            accuracy=accuracy,
        )
