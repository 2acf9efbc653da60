"""Planted bugs of section 2 that show through the foreign requests of the weight store."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import torch

from hqde_ref.messages import (
    Misused,
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


class OpensAnything(Planted):
    def after(self, request: Request, reply: Reply) -> Reply:
        if isinstance(request, StoreOpen) and isinstance(reply, Misused):
            return StoreOpened(stores=())
        return reply
