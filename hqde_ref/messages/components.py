"""What is asked of an implementation that is verified: a rule, a plan, a store; whole systems are in ``systems``.

Source: HQDE sections 0 to 4.
Data only: nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from hqde_ref.messages.calls import Node
from hqde_ref.messages.vectors import Layout, message
from hqde_ref.messages.verdicts import Evidence

__all__ = [
    "Aggregate",
    "Aggregated",
    "Implementation",
    "Misused",
    "Observe",
    "Observed",
    "PlanShare",
    "PlanSplit",
    "PlanTree",
    "SharePlanned",
    "SplitPlanned",
    "StoreAbsent",
    "StoreFault",
    "StoreFaulted",
    "StoreFound",
    "StoreGet",
    "StoreOpen",
    "StoreOpened",
    "StorePlace",
    "StorePlaced",
    "StorePut",
    "StoreUnavailable",
    "StoreWritten",
    "TrainSteps",
    "Trained",
    "TreePlanned",
    "Update",
]


@message
class Update:
    """One contribution as a dictionary of tensors, with what its sender says of itself."""

    worker: str
    tensors: Mapping[str, Tensor]
    mass: float = 1.0
    accuracy: float | None = None


@message
class Aggregate:
    """Aggregate these updates by a named rule (what a function, a tree or a whole aggregator supports).

    Attributes:
        layout: what the round declares; None takes the first update's.
        branching: of the aggregation tree when the topology is ``"tree"``.
        members: all members of the round; those without an update are missing. None: the updates' workers.
    """

    rule: str
    topology: str
    updates: tuple[Update, ...]
    faulty_max: int
    branching: int | None = None
    layout: Layout | None = None
    members: tuple[str, ...] | None = None


@message
class Aggregated:
    """A foreign result. What an implementation cannot say is None, and clauses that need it CANNOT_TELL."""

    result: Mapping[str, Tensor] | None
    used: tuple[str, ...] | None = None
    rejected: Mapping[str, str] | None = None
    missing: tuple[str, ...] | None = None
    scores: Mapping[str, float] | None = None
    evidence: Evidence | None = None
    refused: str | None = None


@message
class PlanTree:
    """Plan the aggregation tree of ``workers`` leaves."""

    workers: int
    branching: int


@message
class TreePlanned:
    """Sizes of the levels, root first; parent of every node by name (None for the root) when it can be told."""

    levels: tuple[int, ...]
    depth: int
    parents: Mapping[str, str | None] | None = None


@message
class PlanSplit:
    """Split a batch of ``samples`` over ``workers``."""

    samples: int
    workers: int


@message
class SplitPlanned:
    """Half-open slices of the batch, one a worker."""

    slices: tuple[tuple[int, int], ...]


@message
class PlanShare:
    """How much of a GPU does each of ``workers`` get from ``gpus``?"""

    workers: int
    gpus: int


@message
class SharePlanned:
    """The share of one worker."""

    share: float


@message
class Observe:
    """Feed training losses to one worker's efficiency score (clause 1.5)."""

    losses: tuple[float, ...]


@message
class Observed:
    """The score after each loss."""

    scores: tuple[float, ...]


@message
class TrainSteps:
    """Train a one-layer softmax model for some steps and say the weights (clause 1.4).

    Attributes:
        inputs: (samples, features), float32; targets: (samples,), int64.
        weight, bias: where to start.
        rate: of plain stochastic gradient descent.
    """

    inputs: Tensor
    targets: Tensor
    weight: Tensor
    bias: Tensor
    steps: int
    rate: float


@message
class Trained:
    """The weights after training, and the loss of each step (None: no step was taken)."""

    weight: Tensor
    bias: Tensor
    losses: tuple[float | None, ...]


@message
class StoreOpen:
    """Start a weight store of so many stores, all empty, that keeps ``copies`` of each key. One a node."""

    stores: int
    copies: int


@message
class StoreOpened:
    """The stores' names, for faults."""

    stores: tuple[str, ...]


@message
class StorePut:
    """Write these tensors under this key."""

    key: str
    tensors: Mapping[str, Tensor]


@message
class StoreWritten:
    """What became of a write. Not acknowledged: it may or may not survive."""

    acknowledged: bool
    reason: str | None = None


@message
class StoreGet:
    """Read a key: ``StoreFound``, ``StoreAbsent`` (an error that names the key), or ``StoreUnavailable``."""

    key: str


@message
class StoreFound:
    """The newest acknowledged value."""

    tensors: Mapping[str, Tensor]


@message
class StoreAbsent:
    """There is no such key."""

    reason: str


@message
class StoreUnavailable:
    """Too few stores answer to tell."""

    reason: str


@message
class StorePlace:
    """Which stores keep this key?"""

    key: str


@message
class StorePlaced:
    """The stores of a key."""

    stores: tuple[str, ...]


@message
class StoreFault:
    """Do this to a store.

    Attributes:
        kind: ``kill`` (its memory is lost), ``restart`` (a killed one comes back and is brought up to date), ``stop``,
            ``continue``, or ``damage`` (flip bits of its copy of ``key``).
    """

    kind: str
    store: str
    key: str | None = None


@message
class StoreFaulted:
    """The fault took effect, or not: there was nothing to damage, or nobody to bring a store up to date from."""

    fired: bool


@message
class Misused:
    """The implementation refused a request as nonsensical; the sentence is its own (clause 0.7)."""

    error: str
    sentence: str


class Implementation(Protocol):
    """Something to be verified: a function, a component or a whole system.

    ``start`` gives a node in a fresh state that answers foreign requests. Its reply ``Misused`` says that it refused a
    nonsensical request; an exception says that it fell over. A request of a type that is not in ``supports`` is never
    sent: the clauses that need it are UNSUPPORTED.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def supports(self) -> frozenset[type]: ...

    def start(self) -> Node: ...

    def stop(self) -> None:
        """Release what was started."""
        ...
