"""Implementations that misbehave towards the harness itself, for tests of ``hqde-verify``."""

from __future__ import annotations

import time
from collections.abc import Callable

from hqde_ref.messages import Aggregated, Failed, Misused, PlanTree, Reply, Request, TreePlanned
from hqde_ref.reference import Reference
from tests.planted_base import Planted, State


class Speechless(Planted):
    """Gives results and says nothing else."""

    def after(self, request: Request, reply: Reply) -> Reply:
        return Aggregated(result=reply.result) if isinstance(reply, Aggregated) else reply


class PlansOnly(Reference):
    """Knows one request only."""

    name = "plans only"
    supports: frozenset[type] = frozenset({PlanTree})


class FlatMeansOnly(Reference):
    """Knows one rule in one topology."""

    @property
    def rules(self) -> frozenset[tuple[str, str]]:
        return frozenset({("weighted_mean", "flat")})


class Slow(Planted):
    """Every plan takes as long as a guard allows, and ends in a failure."""

    calls = 0

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        type(self).calls += 1
        return Failed(reason="ended by the guard: took longer than 60 s", definite=True)


class Moody(Planted):
    """The first plan is wrong, and no other."""

    calls = 0

    def after(self, request: Request, reply: Reply) -> Reply:
        type(self).calls += 1
        if isinstance(reply, TreePlanned) and self.calls == 1:
            return TreePlanned(levels=reply.levels, depth=reply.depth + 1)
        return reply


class Unaskable(Planted):
    """An adapter's answer where its package has no words for the question."""

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        return Misused(error="Inexpressible", sentence="it cannot be asked for a plan")


class BadAdapter(Planted):
    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        return Failed(reason="AdapterError: the stand-in has no such function", definite=True)


class Interrupting(Planted):
    """Presses Ctrl-C at the third request."""

    calls = 0

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        type(self).calls += 1
        if self.calls == 3:
            raise KeyboardInterrupt
        return ask(request)


class Sleepy(Planted):
    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        time.sleep(0.05)
        return ask(request)


class Picky(Reference):
    """Cannot be started without arguments."""

    def __init__(self, needed: str) -> None:
        self.needed = needed


class SupportsAName(Reference):
    """Says what it supports by name."""

    supports = frozenset({"Aggregate"})  # type: ignore[assignment]


class SupportsNoSet(Reference):
    """Says what it supports with a number."""

    supports = 5  # type: ignore[assignment]


class RulesWithoutTopology(Reference):
    """Lists rules only."""

    rules = ("krum",)  # type: ignore[assignment]


class NumberedVersion(Reference):
    """Its version is a number."""

    version = 3  # type: ignore[assignment]
