"""A trusted evaluator: makes the first state and measures later ones on held-out data.

Source: HQDE clauses 1.4 and 1.8. No clock, no randomness beyond the seed it is given, no calls outward.
"""

from __future__ import annotations

import torch
from torch import nn

from hqde_ref.core.packing import digest, layout_of, pack, unpack
from hqde_ref.core.sharding import cut, join
from hqde_ref.messages import Begin, Begun, Evaluate, Evaluated, Failed, Payload, Reply, Request, message
from hqde_ref.workloads import Workload, load_workload

__all__ = ["Evaluator", "EvaluatorSpec"]


@message
class EvaluatorSpec:
    """An evaluator as data."""

    name: str
    workload: str

    def build(self, incarnation: int, /) -> Evaluator:
        return Evaluator(load_workload(self.workload))


class Evaluator:
    """Holds the workload's held-out data."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._model = workload.initial_model(seed=0)

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Begin():
                state = self._workload.initial_model(request.seed).state_dict()
                layout = layout_of(state)
                packed = pack(state, layout)
                pieces = cut(packed, layout, request.shards)
                payloads = tuple(
                    Payload(key=f"state/{request.seed}/{shard}", ref=piece, nbytes=piece.numel())
                    for shard, piece in enumerate(pieces)
                )
                return Begun(state=payloads, digests=tuple(map(digest, pieces)), layout=layout)
            case Evaluate():
                return self._evaluate(request)
            case _:
                return Failed(reason=f"an evaluator does not answer {type(request).__name__}", definite=True)

    def _evaluate(self, request: Evaluate) -> Evaluated:
        layout = layout_of(self._model.state_dict())
        self._model.load_state_dict(unpack(join([piece.ref for piece in request.state], layout), layout))
        self._model.eval()
        with torch.no_grad():
            outputs = self._model(self._workload.test_inputs)
        targets = self._workload.test_targets
        loss = float(nn.functional.cross_entropy(outputs, targets))
        return Evaluated(accuracy=float((outputs.argmax(dim=1) == targets).double().mean()), loss=loss)
