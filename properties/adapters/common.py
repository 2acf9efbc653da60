"""What adapters share: telling a refusal from a fall, stand-ins for missing packages, and aggregation functions.

Source: HQDE clause 0.7. Runs in the child, under a peer's interpreter: torch and the standard library only.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import linecache
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from hqde_ref.messages import Aggregate, Aggregated, Misused, Reply, Request, Update

INEXPRESSIBLE = "Inexpressible"
STAND_INS = Path(__file__).parent / "stand_ins"

Rule: TypeAlias = Callable[[Aggregate], Mapping[str, Tensor]]


class Inexpressible(Exception):
    """A request that the package has no way to be asked: nothing is learnt about it."""


def answer(package: str, ask: Callable[[Request], Reply], request: Request) -> Reply:
    """The reply; ``Misused`` when the package refuses on purpose; what it merely fell over is raised on."""
    try:
        return ask(request)
    except Inexpressible as error:
        return Misused(error=INEXPRESSIBLE, sentence=str(error))
    except Exception as error:
        if is_refusal(error, package):
            return Misused(error=type(error).__name__, sentence=str(error))
        raise


def is_refusal(error: BaseException, package: str) -> bool:
    """Whether a ``raise`` in the package's own code made this error, and not something that it called."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return False
    last = frames[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    return package in Path(last.filename).parts and line.startswith("raise")


def stand_in_for(module: str) -> None:
    """Where a module does not import, put a stand-in on the path of this process and of those it starts."""
    try:
        importlib.import_module(module)
    except Exception:
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            del sys.modules[name]
        sys.path.insert(0, str(STAND_INS))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(STAND_INS), *filter(None, [os.environ.get("PYTHONPATH")])])


def in_order(updates: Sequence[Update], package: str) -> list[list[Tensor]]:
    """The tensors of every update, in the order of the first one's names, for functions that know no names."""
    names = list(updates[0].tensors) if updates else []
    for update in updates:
        if set(update.tensors) != set(names):
            raise Inexpressible(f"{package} takes tensors by place; {update.worker} has other names than the first")
    return [[update.tensors[name] for name in names] for update in updates]


def as_vectors(updates: Sequence[Update], package: str) -> list[Tensor]:
    """Every update as one vector, for functions that take nothing else."""
    rows = in_order(updates, package)
    for tensor in (tensor for row in rows for tensor in row):
        if not tensor.is_floating_point():
            raise Inexpressible(f"{package} takes vectors of floats, got {tensor.dtype}")
    return [torch.cat([tensor.reshape(-1) for tensor in row]) if row else torch.zeros(0) for row in rows]


def from_vector(vector: Tensor, like: Update) -> dict[str, Tensor]:
    """A vector cut into named tensors again; dtype and length are the function's own."""
    pieces, at = {}, 0
    for name, tensor in like.tensors.items():
        pieces[name] = vector[at : at + tensor.numel()].reshape(tensor.shape)
        at += tensor.numel()
    return pieces


def equal_masses(request: Aggregate, package: str) -> None:
    """Refuse unequal masses for a mean that knows none."""
    if len({update.mass for update in request.updates}) > 1:
        raise Inexpressible(f"{package} has no way to give masses to this mean")


class Functions:
    """An implementation made of aggregation functions; a function says nothing of who was used or rejected."""

    supports: frozenset[type] = frozenset({Aggregate})

    def __init__(self, package: str, make: Callable[[], Mapping[str, Rule]], *, distribution: str) -> None:
        self.name = distribution
        self.version = importlib.metadata.version(distribution)
        self.rules = frozenset((rule, "flat") for rule in make())
        self._package, self._make = package, make

    def start(self) -> FunctionNode:
        return FunctionNode(self._package, self._make())

    def stop(self) -> None:
        """Nothing was started."""


class FunctionNode:
    """Applies the rule that a request names."""

    def __init__(self, package: str, rules: Mapping[str, Rule]) -> None:
        self._package, self._rules = package, rules

    def perform(self, request: Aggregate, /) -> Reply:
        return answer(self._package, self._ask, request)

    def _ask(self, request: Aggregate) -> Reply:
        if request.rule not in self._rules or request.topology != "flat":
            raise Inexpressible(f"{self._package} has no {request.rule} ({request.topology})")
        return Aggregated(result=self._rules[request.rule](request))
