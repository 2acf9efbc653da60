"""Label flipping, an attack on data: a member that trains, honestly, on targets that are all wrong.

Source: Tolpegin et al. 2020 (arXiv:2007.08432). Such a member is two workers of one name: which of them trains is said
by each request, so that one live host serves a run with the fault and one without.
"""

from __future__ import annotations

import dataclasses

from hqde_ref.messages import Adopt, Reply, Request, Train, message
from hqde_ref.nodes.worker import Worker, WorkerSpec

__all__ = ["LABEL_FLIP", "Poisonable", "PoisonableSpec", "PoisonedTrain", "poison"]

LABEL_FLIP = "label_flip"


@message
class PoisonedTrain(Train):
    """Train on flipped labels."""


def poison(request: Train) -> PoisonedTrain:
    """The same request, for flipped labels."""
    fields = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    return PoisonedTrain(**fields)


@message
class PoisonableSpec:
    """A member that a fault may poison, as data."""

    name: str
    workload: str

    def build(self, incarnation: int, /) -> Poisonable:
        honest, flipped = (
            WorkerSpec(name=self.name, workload=self.workload, flips_labels=flips).build(incarnation)
            for flips in (False, True)
        )
        return Poisonable(honest, flipped)


class Poisonable:
    """Both workers hold the published state; one of them trains."""

    def __init__(self, honest: Worker, flipped: Worker) -> None:
        self._honest, self._flipped = honest, flipped

    def perform(self, request: Request, /) -> Reply:
        match request:
            case PoisonedTrain():
                return self._flipped.perform(request)
            case Adopt():
                self._flipped.perform(request)
                return self._honest.perform(request)
            case _:
                return self._honest.perform(request)
