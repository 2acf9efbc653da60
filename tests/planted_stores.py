"""Planted bugs of section 2 that show through the foreign requests of the weight store."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import torch

from hqde_ref.messages import (
    Expect,
    Expected,
    Failed,
    Misused,
    Node,
    Put,
    Reply,
    Request,
    StoreAbsent,
    StoreFault,
    StoreFound,
    StoreGet,
    StoreOpen,
    StoreOpened,
    StorePlaced,
    StorePut,
    StoreUnavailable,
    StoreWritten,
)
from hqde_ref.nodes.store import Store, StoreSpec
from hqde_ref.reference import _ReferenceNode
from hqde_ref.reference_store import ReferenceStore
from tests.planted_base import Planted, State

Ask = Callable[[Request], Reply]


class LosesAWriteWhenAStoreDies(Planted):
    """Only one store really held it."""

    def perform(self, request: Request, ask: Ask, state: State) -> Reply:
        if isinstance(request, StoreFault) and request.kind == "kill":
            state["lost"] = True
        if isinstance(request, StorePut):
            state["lost"] = False
        if isinstance(request, StoreGet) and state.get("lost"):
            return StoreAbsent(reason=f"there is no key {request.key!r}")
        return ask(request)


class ServesDamagedCopies(Planted):
    def perform(self, request: Request, ask: Ask, state: State) -> Reply:
        reply = ask(request)
        if isinstance(request, StoreFault) and request.kind == "damage":
            state["damaged"] = True
        if isinstance(reply, StoreFound) and state.pop("damaged", False):
            return StoreFound(tensors={name: torch.zeros_like(tensor) for name, tensor in reply.tensors.items()})
        return reply


class KeepsTheFirst(Planted):
    """A later write is acknowledged and dropped."""

    def perform(self, request: Request, ask: Ask, state: State) -> Reply:
        if isinstance(request, StorePut):
            if request.key in state:
                return StoreWritten(acknowledged=True)
            state[request.key] = True
        return ask(request)


class InStores(Planted):
    """The reference with stores of its own."""

    spec: type[StoreSpec]

    def start(self) -> Node:
        node = _ReferenceNode()
        node._store = ReferenceStore(self.spec)
        return node


class _Forgetful(Store):
    def _expect(self, request: Expect) -> Reply:
        return Expected(by=self._standing(), missing=())


class _ForgetfulSpec(StoreSpec):
    def build(self, incarnation: int, /) -> Store:
        return _Forgetful(self.name, incarnation, epoch=None if incarnation else 0)


class ComesBackEmpty(InStores):
    """A store that lost its memory serves, and was not brought up to date."""

    spec = _ForgetfulSpec


class _Unmended(Store):
    def _keep(self, request: Put) -> Failed | None:
        held = self._held.get(request.key)
        return None if held is not None and held.version == request.version else super()._keep(request)


class _UnmendedSpec(StoreSpec):
    def build(self, incarnation: int, /) -> Store:
        return _Unmended(self.name, incarnation, epoch=None if incarnation else 0)


class NeverRepairs(InStores):
    """A store takes the version it has for whole, whatever became of the bytes."""

    spec = _UnmendedSpec


class AcknowledgesAnything(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return StoreWritten(acknowledged=True) if isinstance(reply, StoreWritten) else reply


class GuessesWithoutAQuorum(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return StoreAbsent(reason=f"no key {request.key!r}") if isinstance(reply, StoreUnavailable) else reply


class TrimsKeys(Planted):
    def before(self, request: Request) -> Request:
        if isinstance(request, StorePut | StoreGet):
            return dataclasses.replace(request, key=request.key.split("/")[0].strip().lower())
        return request


class UnknownKeyIsEmpty(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        return StoreFound(tensors={}) if isinstance(reply, StoreAbsent) else reply


class PlacesTwiceOnOneStore(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        if isinstance(reply, StorePlaced) and len(reply.stores) > 1:
            return StorePlaced(stores=(reply.stores[0], *reply.stores[:-1]))
        return reply


class InPlaces(Planted):
    def perform(self, request: Request, ask: Ask, state: State) -> Reply:
        reply = ask(request)
        if isinstance(request, StoreOpen) and isinstance(reply, StoreOpened):
            state["stores"], state["copies"] = reply.stores, request.copies
        if isinstance(reply, StorePlaced):
            return StorePlaced(stores=self.place(request.key, state["stores"], state["copies"]))
        return reply

    def place(self, key: str, stores: tuple[str, ...], copies: int) -> tuple[str, ...]:
        raise NotImplementedError


class PlacesByCounting(InPlaces):
    """Key number modulo the number of stores: nearly everything moves when one is added."""

    def place(self, key: str, stores: tuple[str, ...], copies: int) -> tuple[str, ...]:
        first = sum(key.encode()) + 7
        return tuple(stores[(first + index) % len(stores)] for index in range(copies))


class PlacesAtRandom(InPlaces):
    def place(self, key: str, stores: tuple[str, ...], copies: int) -> tuple[str, ...]:
        return tuple(random.Random().sample(stores, copies))


class PlacesOnTheFirst(InPlaces):
    """Distinct, the same in every run, and nothing moves; the other stores are idle."""

    def place(self, key: str, stores: tuple[str, ...], copies: int) -> tuple[str, ...]:
        return stores[:copies]


class OpensAnything(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        if isinstance(request, StoreOpen) and isinstance(reply, Misused):
            return StoreOpened(stores=())
        return reply
