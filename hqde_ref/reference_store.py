"""The weight store behind the foreign requests: the real stories and nodes, in one process, with faults on demand.

Source: HQDE clauses 2.6 to 2.9. Nothing is decided here: ``hqde_ref.rounds.storing`` reads and writes, each store on a
host of its own, in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable

import safetensors.torch
import torch

from hqde_ref.core.packing import digest
from hqde_ref.core.quorums import plan_store
from hqde_ref.errors import ConfigurationError, require_integer
from hqde_ref.messages import (
    Absent,
    Acknowledged,
    Failed,
    Joined,
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
from hqde_ref.nodes.store import StoreSpec
from hqde_ref.rounds.rejoining import rejoin
from hqde_ref.rounds.storing import Writer, ask_stores, get, put
from hqde_ref.runtimes.frail import Frail

__all__ = ["STORE_REQUESTS", "ReferenceStore"]

STORE_REQUESTS: frozenset[type] = frozenset({StoreOpen, StorePut, StoreGet, StorePlace, StoreFault})
_WITHIN_S = 1.0


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
        require_integer("stores", request.stores, least=1, do="count what there is")
        names = tuple(f"s{index}" for index in range(request.stores))
        self._plan = plan_store(names, copies=request.copies)
        self._runtime, self._writer = Frail({name: (self._spec(name=name),) for name in names}), Writer("reference")
        return StoreOpened(stores=names)

    def _put(self, request: StorePut) -> StoreWritten:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in request.tensors.items()}
        vector = torch.frombuffer(bytearray(safetensors.torch.save(tensors)), dtype=torch.uint8)
        code = digest(vector)
        payload = self._runtime.lend(f"value/{code}", vector)
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
        store, until = fault.store, self._runtime.now() + _WITHIN_S
        if store not in self._plan.stores:
            raise ConfigurationError(
                setting="store", wanted=" or ".join(self._plan.stores), got=store, do="name one that there is"
            )
        was_up = self._runtime.is_up(store)
        match fault.kind:
            case "kill":
                self._runtime.crash(store)
            case "restart":
                self._runtime.crash(store)
                self._runtime.restart(store)
                return isinstance(rejoin(self._runtime, self._plan, store, until=until), Joined)
            case "stop":
                if was_up:
                    self._runtime.hang(store)
                return was_up
            case "continue":
                self._runtime.resume(store)
            case "damage":
                reply = ask_stores(self._runtime, [store], fault, enough=1, until=until)[store] if was_up else None
                return isinstance(reply, StoreFaulted) and reply.fired
            case other:
                raise ConfigurationError(
                    setting="kind", wanted="kill, restart, stop, continue or damage", got=other, do="choose one"
                )
        return True
