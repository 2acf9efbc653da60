"""The weight store behind the foreign requests: the real stories and nodes, in one process, with faults on demand.

Source: HQDE clauses 2.6 to 2.9. Nothing is decided here: ``hqde_ref.rounds.storing`` reads and writes. Time is virtual,
and moves to the deadline of an ask that a stopped store leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import safetensors.torch
import torch
from torch import Tensor

from hqde_ref.core.packing import digest
from hqde_ref.core.quorums import plan_store
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    Absent,
    Acknowledged,
    Answer,
    Call,
    Failed,
    Joined,
    Payload,
    Reply,
    Request,
    StoreAbsent,
    StoreFault,
    StoreFaulted,
    StoreFound,
    StoreGet,
    StoreOpen,
    StoreOpened,
    StorePlace,
    StorePlaced,
    StorePut,
    StoreUnavailable,
    StoreWritten,
    Unavailable,
    Value,
)
from hqde_ref.nodes.store import Store, StoreSpec
from hqde_ref.rounds.rejoining import rejoin
from hqde_ref.rounds.storing import Writer, get, put
from hqde_ref.runtimes.local import perform_guarded

__all__ = ["STORE_REQUESTS", "ReferenceStore"]

STORE_REQUESTS: frozenset[type] = frozenset({StoreOpen, StorePut, StoreGet, StorePlace, StoreFault})
_WITHIN_S = 1.0
_STEP_S = 0.001


class _Seat:
    """A store and what has become of it."""

    def __init__(self, spec: StoreSpec) -> None:
        self.spec = spec
        self.incarnation = 0
        self.node: Store | None = self.spec.build(0)
        self.stopped = False
        self.queue: list[Call] = []

    def kill(self) -> None:
        self.node, self.stopped = None, False
        self.queue.clear()

    def restart(self) -> None:
        self.kill()
        self.incarnation += 1
        self.node = self.spec.build(self.incarnation)

    def go_on(self) -> None:
        self.stopped = False
        for call in self.queue:
            perform_guarded(self.node, call)
        self.queue.clear()


class _Frail:
    """A runtime of stores in this process that can die and hang. It answers the calls it can, one after the other."""

    def __init__(self, specs: Sequence[StoreSpec]) -> None:
        self.seats = {spec.name: _Seat(spec) for spec in specs}
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def fetch(self, payload: Payload) -> Tensor:
        vector: Tensor = payload.ref.clone()
        return vector

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        replies = [self._reply(call) for call in calls]
        good = sum(not isinstance(reply, Failed) for reply in replies)
        late = any(isinstance(reply, Failed) and not reply.definite for reply in replies)
        self._now = max(self._now, until) if late and good < enough else self._now + _STEP_S
        return tuple(Answer(node=call.node, reply=reply) for call, reply in zip(calls, replies, strict=True))

    def _reply(self, call: Call) -> Reply:
        seat = self.seats[call.node]
        if seat.node is None:
            return Failed(reason="crashed", definite=True)
        if seat.stopped:
            seat.queue.append(call)
            return Failed(reason="late", definite=False)
        return perform_guarded(seat.node, call)


class ReferenceStore:
    """A node that answers the ``Store...`` requests; before ``StoreOpen`` it has five stores and three copies.

    Args:
        spec: makes a store of this name.
    """

    def __init__(self, spec: Callable[..., StoreSpec] = StoreSpec) -> None:
        self._spec = spec
        self._open(StoreOpen(stores=5, copies=3))

    def perform(self, request: Request, /) -> Reply:
        match request:
            case StoreOpen():
                return self._open(request)
            case StorePut():
                return self._put(request)
            case StoreGet(key=key):
                return self._get(key)
            case StorePlace(key=key):
                return StorePlaced(stores=self._plan.stores_of(key))
            case StoreFault():
                return StoreFaulted(fired=self._strike(request))
            case _:
                return Failed(reason=f"the weight store does not answer {type(request).__name__}", definite=True)

    def _open(self, request: StoreOpen) -> StoreOpened:
        if isinstance(request.stores, bool) or not isinstance(request.stores, int) or request.stores < 1:
            raise ConfigurationError(
                setting="stores", wanted="an integer of at least 1", got=request.stores, do="count what there is"
            )
        names = tuple(f"s{index}" for index in range(request.stores))
        self._plan = plan_store(names, copies=request.copies)
        self._runtime, self._writer = _Frail([self._spec(name=name) for name in names]), Writer("reference")
        return StoreOpened(stores=names)

    def _put(self, request: StorePut) -> StoreWritten:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in request.tensors.items()}
        vector = torch.frombuffer(bytearray(safetensors.torch.save(tensors)), dtype=torch.uint8)
        code = digest(vector)
        payload = Payload(key=f"value/{code}", ref=vector, nbytes=vector.numel())
        until = self._runtime.now() + _WITHIN_S
        match put(self._runtime, self._plan, self._writer, request.key, payload, code, until=until):
            case Acknowledged():
                return StoreWritten(acknowledged=True)
            case refused:
                return StoreWritten(acknowledged=False, reason=refused.reason)

    def _get(self, key: str) -> Reply:
        match get(self._runtime, self._plan, key, until=self._runtime.now() + _WITHIN_S):
            case Value(payload=payload):
                return StoreFound(tensors=safetensors.torch.load(bytes(self._runtime.fetch(payload).numpy())))
            case Absent(reason=reason):
                return StoreAbsent(reason=reason)
            case Unavailable(reason=reason):
                return StoreUnavailable(reason=reason)

    def _strike(self, fault: StoreFault) -> bool:
        seat = self._runtime.seats.get(fault.store)
        if seat is None:
            raise ConfigurationError(
                setting="store", wanted=" or ".join(self._plan.stores), got=fault.store, do="name one that there is"
            )
        match fault.kind:
            case "kill":
                seat.kill()
            case "restart":
                seat.restart()
                until = self._runtime.now() + _WITHIN_S
                return isinstance(rejoin(self._runtime, self._plan, fault.store, until=until), Joined)
            case "stop":
                seat.stopped = seat.node is not None
            case "continue":
                seat.go_on()
            case "damage":
                return seat.node is not None and seat.node.damage(fault.key or "")
            case other:
                raise ConfigurationError(
                    setting="kind", wanted="kill, restart, stop, continue or damage", got=other, do="choose one"
                )
        return True
