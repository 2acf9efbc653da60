"""A node that shows how a runtime treats it: it counts, waits, refuses and hands out vectors.

It speaks with messages that exist anyway: ``Observe((number, seconds))`` waits so many seconds and answers
``Observed((times this node performed, number))``; a number below zero is refused; ``Begin(seed)`` hands out a payload.
"""

from __future__ import annotations

import time

import torch

from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    Begin,
    Begun,
    Call,
    Evaluate,
    Evaluated,
    Layout,
    Observe,
    Observed,
    Payload,
    Reply,
    Request,
    message,
)

VECTOR_BYTES = 400_000  # more than Ray sends inline


def probe(node: str, number: float, seconds: float = 0.0, *, attempt: int = 0) -> Call:
    """A call that waits ``seconds`` at its node and gives ``number`` back."""
    return Call(node=node, request=Observe(losses=(number, seconds)), attempt=attempt)


def seconds_of(request: Request) -> float:
    """How long a request takes."""
    return request.losses[1] if isinstance(request, Observe) else 0.0


@message
class ProbeSpec:
    """A probe as data; ``sleeps`` where the runtime's time is real."""

    name: str
    sleeps: bool = True

    def build(self, incarnation: int, /) -> Probe:
        return Probe(self.sleeps, incarnation)


class Probe:
    """Counts what it performed."""

    def __init__(self, sleeps: bool, incarnation: int = 0) -> None:
        self._sleeps = sleeps
        self._incarnation = incarnation
        self._performed = 0

    def perform(self, request: Request, /) -> Reply:
        self._performed += 1
        if self._sleeps:
            time.sleep(seconds_of(request))
        match request:
            case Observe(losses=(number, _)) if number < 0:
                raise ConfigurationError(setting="number", wanted="at least 0", got=number, do="ask for more")
            case Observe(losses=(number, _)):
                return Observed(scores=(float(self._performed), number))
            case Begin(seed=seed):
                vector = torch.full((VECTOR_BYTES,), seed, dtype=torch.uint8)
                payload = Payload(key=f"vector/{seed}/{self._incarnation}", ref=vector, nbytes=VECTOR_BYTES)
                return Begun(state=(payload,), digests=("",), layout=Layout(entries=()))
            case Evaluate(state=state):
                return Evaluated(accuracy=float(state[0].ref[0]), loss=float(state[0].ref.double().mean()))
        raise AssertionError(f"a probe was asked {request!r}")


class ProbeImplementation:
    """A probe behind the face of an implementation, for child processes."""

    name = "probe"
    version = "1"
    supports = frozenset({Observe, Begin, Evaluate})

    def start(self) -> Probe:
        return Probe(sleeps=True)

    def stop(self) -> None:
        """Nothing to release."""
