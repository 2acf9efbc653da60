"""Implementations for tests of the guarded child: some answer, some do what no implementation should.

Loaded in the child as ``foreign_samples:NAME``; the rule of an ``Aggregate`` says what to do.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch

from hqde_ref.messages import Aggregate, Aggregated, Misused, Observe, Observed, Reply, Request


class Behaving:
    """Averages; with another rule it does what the rule says."""

    name, version = "behaving", "1.0"
    supports = frozenset({Aggregate})
    rules = frozenset({("weighted_mean", "flat"), ("median", "tree")})

    def start(self) -> Node:
        return Node()

    def stop(self) -> None:
        print("stopped")


class Node:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def perform(self, request: Aggregate, /) -> Reply:
        self.calls += 1
        return getattr(self, request.rule)(request)

    def weighted_mean(self, request: Aggregate) -> Reply:
        rows = [update.tensors for update in request.updates]
        return Aggregated(result={key: torch.stack([row[key] for row in rows]).mean(0) for key in rows[0]})

    def count(self, request: Aggregate) -> Reply:
        return Misused(error="Count", sentence=str(self.calls))

    def fall_over(self, request: Aggregate) -> Reply:
        raise RuntimeError("stack expects\neach tensor to be equal")

    def exit_politely(self, request: Aggregate) -> Reply:
        sys.exit("I give up")

    def chatter(self, request: Aggregate) -> Reply:
        """Spoil standard output and read standard input, if that were possible."""
        print("not a line of the protocol")
        os.write(1, b"neither is this\n" * 20_000)
        sys.stdin.read()
        return Misused(error="Chatter", sentence="done")

    def nonsense(self, request: Aggregate) -> Reply:
        return {"a": "mapping"}


def factory() -> Behaving:
    return Behaving()


def broken_factory() -> Behaving:
    raise ValueError("no licence found")


class Incomplete:
    name = "incomplete"


class Unknown(Behaving):
    supports = frozenset({int})


class Hosts:
    """What a host of ``InChild`` serves: nodes that know their name and incarnation."""

    name, version = "hosts", "1"
    supports: frozenset[type] = frozenset()

    def start(self) -> Any:
        raise AssertionError("hosts build nodes by name")

    def node(self, name: str, incarnation: int) -> HostNode | None:
        return None if name.endswith("?") else HostNode(name, incarnation)

    def stop(self) -> None: ...


class HostNode:
    """Counts what it performed, and takes its time."""

    def __init__(self, name: str, incarnation: int) -> None:
        self.name, self.incarnation, self.performed = name, incarnation, 0

    def perform(self, request: Request, /) -> Reply:
        self.performed += 1
        match request:
            case Observe(losses=(seconds,)):
                time.sleep(seconds)
                return Observed(scores=(float(self.performed), float(self.incarnation)))
            case _:
                os._exit(9)
