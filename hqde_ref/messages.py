"""Every dataclass that flows between nodes, and the three protocols: ``Node``, ``Runtime``, ``Implementation``.

Source: HQDE sections 1, 3, 4 and 6; ``docs/design.md`` has the laws of ``ask``.
Data only: nothing here computes, imports a tensor library's functions, or knows where it runs.

A vector never stands inside a message. It travels beside it as a ``Payload``: the tensor itself in one process, an
object reference on Ray. Two payloads are equal when their keys are, so equal calls can be recognised anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, dataclass_transform

from torch import Tensor

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(cls: type[T]) -> type[T]:
    """Make a class a message: frozen, keyword-only, with slots."""
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


# ------------------------------------------------------------------------------------------------ vectors and layouts


@message
class Entry:
    """One named tensor of a model: its name, its shape and its dtype (``"float32"``, ``"int64"``, ...)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@message
class Layout:
    """What a round declares that every contribution holds, in order (clause 0.2)."""

    entries: tuple[Entry, ...]


@message
class Payload:
    """A packed vector that travels beside its message.

    Attributes:
        key: names the content: who made it, in which round and incarnation. Equality is equality of keys.
        ref: the 1-D ``uint8`` tensor or float64 sum itself, or a runtime's reference to it.
        nbytes: its size.
    """

    key: str
    ref: Any = dataclasses.field(compare=False, repr=False)
    nbytes: int


@message
class Contribution:
    """What a worker sends in a round (clause 4.10: nothing it says of itself is believed).

    Attributes:
        payloads: the packed vector, cut into the round's shards (one in a flat round). A crowd's members share theirs:
            each payload holds the rows of all of them, and ``row`` says which is this one's.
        layout: fingerprint of the layout of the whole vector.
        digests: xxh3-128 of each payload's bytes as the sender had them (clause 6.8).
        mass: the weight it asks for under a weighted mean.
        samples: how many examples it trained on in this round.
        loss: mean loss of its last step; None when it took none (E2) or the loss was not finite (E3).
        efficiency: clause 1.5, in [0.1, 1].
        accuracy: on the rows it trained on, in [0, 1]; None when it has none.
    """

    round: int
    worker: str
    incarnation: int
    payloads: tuple[Payload, ...]
    layout: str
    digests: tuple[str, ...]
    mass: float
    samples: int
    loss: float | None
    efficiency: float
    accuracy: float | None = None
    row: int | None = None


@message
class Seen:
    """What a trusted node found when it looked at a contribution itself.

    Attributes:
        reason: None when it may be used, else why not, for a person to read.
        tops: the largest magnitude in each float block of the layout; empty when rejected.
        digest: of the bytes that were looked at.
    """

    worker: str
    reason: str | None
    tops: tuple[float, ...]
    digest: str


# ------------------------------------------------------------------------------------------------ policy and verdict


@message
class Policy:
    """How a round is to be aggregated, and what it must withstand.

    Attributes:
        rule: a name in ``hqde_ref.core.rules.RULES``.
        topology: ``"flat"`` (one aggregator), ``"tree"`` (means only: clause 3.7), ``"mapreduce"`` (means, parameters
            dealt to reducers: clause 2.1) or ``"sharded"`` (coordinates cut over reducers; clause 3.8).
        weighting: of means: ``"mass"`` (what a contribution asks for) or ``"accuracy_softmax"`` (clause 2.2).
        shards: into how many pieces vectors are cut; 1 unless sharded.
        mappers, reducers: of a mapreduce round.
        faulty_max: f, with 3f < n (clause 4.1).
        branching: b of the aggregation tree.
        outlier_factor: a contribution farther than this many median distances from the centre may be rejected, as
            long as absent and rejected together stay within f (clause 4.4); None rejects no one for its distance.
        round_within_s: the whole round's time; training may take ``train_share`` of it.
        hedge_after_s: how long an aggregator may be silent before its work also goes to another.
        slow_factor: a host that took this many times as long as is usual in the round before carries no inner node
            (clause 3.9); None takes no notice of times.
    """

    rule: str = "geometric_median"
    topology: str = "flat"
    weighting: str = "mass"
    shards: int = 1
    mappers: int = 4
    reducers: int = 2
    faulty_max: int = 0
    branching: int = 3
    outlier_factor: float | None = 3.0
    round_within_s: float = 5.0
    train_share: float = 0.6
    hedge_after_s: float = 0.5
    slow_factor: float | None = None


@message
class Evidence:
    """What the output of a rule proves about itself (clause 4.7), and the bound the rule promises (clause 4.5).

    Attributes:
        faulty_max: f, the number of arbitrary contributions among those that arrived for which the bounds hold.
        kappa: |result - mean of honest|^2 <= kappa * variance of honest, in exact arithmetic: rounding to the layout's
            dtypes comes on top. None when the rule promises nothing.
        subgradient_norm: of the sum of distances at the result; 0 is optimal. None for other rules. A sharded round
            measures it before the result is rounded, since no node sees the rounded result whole.
        radius_factor: distance to any z is at most this times the farthest honest distance to z. None likewise.
    """

    rule: str
    faulty_max: int
    kappa: float | None
    subgradient_norm: float | None = None
    radius_factor: float | None = None


@message
class Accepted:
    """A round that produced a result. Used, rejected and missing partition the members (clause 0.4).

    Attributes:
        scores: distances from the robust centre, by member; empty where nobody is rejected for distance.
        limit: the distance that was allowed, likewise; 0 where there are no scores.
    """

    round: int
    payloads: tuple[Payload, ...]
    digests: tuple[str, ...]
    used: tuple[str, ...]
    rejected: Mapping[str, str]
    missing: Mapping[str, str]
    scores: Mapping[str, float]
    limit: float
    evidence: Evidence

    @property
    def digest(self) -> str:
        """One text for all shards, to compare results by."""
        return "+".join(self.digests)


@message
class Refused:
    """A round that produced nothing, and why (clauses 4.9 and 6.7)."""

    round: int
    reason: str
    rejected: Mapping[str, str]
    missing: Mapping[str, str]


Verdict: TypeAlias = Accepted | Refused


# ------------------------------------------------------------------------------------------------ requests inside


@message
class Begin:
    """Ask a trusted node for the first state: freshly initialised weights, cut into shards."""

    seed: int
    shards: int = 1


@message
class Adopt:
    """Give a worker the published state, shard by shard (clause 1.6)."""

    round: int
    state: tuple[Payload, ...]
    digests: tuple[str, ...]


@message
class Train:
    """Train from the published state on rows [start, stop) of the training data, modulo its length.

    Attributes:
        base: digests of that state; a worker that does not hold it answers ``Failed(UNKNOWN)`` (clauses 1.4, 1.6).
        shards: into how many pieces to cut the contribution.
    """

    round: int
    base: tuple[str, ...]
    start: int
    stop: int
    steps: int
    shards: int = 1


@message
class Muster:
    """Ask a crowd to have its members train, to look at what they give, and to keep it for this round.

    Attributes:
        members, slices: who trains, and on which rows of the training data.
        layout: of the whole vector; members give it in one piece.
        arenas: give the rows of all usable members, cut into ``shards``; else they stay with the crowd.
    """

    round: int
    base: tuple[str, ...]
    members: tuple[str, ...]
    slices: tuple[tuple[int, int], ...]
    steps: int
    shards: int
    layout: Layout
    weighting: str
    arenas: bool


@message
class Subtotal:
    """Ask a crowd for the exact partial sum of these of its members (see ``Combine``).

    Attributes:
        shard, shards: which piece of their vectors, of how many; ``layout`` is its own, ``whole`` that of the vectors.
    """

    round: int
    shard: int
    shards: int
    layout: Layout
    whole: Layout
    workers: tuple[str, ...]
    masses: tuple[float, ...]
    grid: tuple[int, ...]


@message
class Claim:
    """A contribution, or an arena of ``rows`` of them, as its receiver must check it."""

    worker: str
    payload: Payload
    digest: str
    layout: str
    rows: int = 1


@message
class Screen:
    """Look at these contributions, or shards of them: layout, digest, finiteness, magnitude (clauses 0.5, 0.6, 6.8).

    Attributes:
        layout: of the shard at hand.
        declared: fingerprint of the layout of the whole vector, which each sender must have had.
    """

    round: int
    layout: Layout
    declared: str
    claims: tuple[Claim, ...]


@message
class Combine:
    """One node's share of a weighted mean: exact partial sums, in any grouping (clause 3.3).

    Attributes:
        parts: contributions (``leaf``) or partial sums of children.
        workers: the members inside the parts, in order; ``masses`` are theirs.
        grid: one exponent a float block, fixed by the story for the whole round.
        leaf: the parts are contributions, to be multiplied by their masses.
        root: divide, and give a packed result instead of a partial sum.
    """

    round: int
    layout: Layout
    parts: tuple[Payload, ...]
    workers: tuple[str, ...]
    masses: tuple[float, ...]
    grid: tuple[int, ...]
    leaf: bool
    root: bool


@message
class Map:
    """Emit one pair (name, tensor) a parameter of every item, packed by the reducer that owns the name (clause 2.1).

    Attributes:
        items: packed contributions of ``workers``.
        parts: layouts of the reducers' parameters.
    """

    round: int
    layout: Layout
    items: tuple[Payload, ...]
    workers: tuple[str, ...]
    parts: tuple[Layout, ...]


@message
class Reduce:
    """The exact weighted mean of one reducer's parameters, from the mappers' arenas (clause 2.2).

    Attributes:
        arenas: stacked rows; ``workers`` names the rows of all arenas in order, ``masses`` are theirs.
        grid: one exponent a float block of this part.
    """

    round: int
    layout: Layout
    arenas: tuple[Payload, ...]
    workers: tuple[str, ...]
    masses: tuple[float, ...]
    grid: tuple[int, ...]


@message
class Assemble:
    """Join the reducers' parameters to one vector of the whole layout."""

    round: int
    layout: Layout
    parts: tuple[Payload, ...]
    layouts: tuple[Layout, ...]


@message
class Resolve:
    """Reject outliers and apply a robust rule to these rows, at one node that holds them all (clause 4.4).

    Attributes:
        places: where each worker's row stands among the rows of all payloads; None: in order, one a payload.
        faulty_max: how many of the rows may hold anything.
        dropped: how many contributions were rejected as outliers before: the bound counts them.
    """

    round: int
    layout: Layout
    rule: str
    rows: tuple[Payload, ...]
    workers: tuple[str, ...]
    faulty_max: int
    rejections_max: int
    outlier_factor: float | None
    dropped: int = 0
    places: tuple[int, ...] | None = None


@message
class PartialGram:
    """Inner products of the rows within one shard, around one of them (clause 3.8); ``places`` as in ``Resolve``.

    Attributes:
        landmark_of: a rule of two stages, whose landmark (``hqde_ref.core.staged``) is one more row.
    """

    round: int
    layout: Layout
    rows: tuple[Payload, ...]
    places: tuple[int, ...] | None = None
    landmark_of: str | None = None


@message
class AddGrams:
    """Add up partial Gram matrices of n rows, so that no node receives more than b of them."""

    round: int
    parts: tuple[Payload, ...]


@message
class Weigh:
    """From the whole Gram matrix: who is kept, and how every shard is to be combined (clause 3.8).

    Attributes:
        contents: one text a row; equal texts mean equal rows.
        rule: the others are as in ``Resolve``; None only rejects outliers and gives no multipliers.
    """

    round: int
    gram: tuple[Payload, ...]
    workers: tuple[str, ...]
    contents: tuple[str, ...]
    rule: str | None
    faulty_max: int
    rejections_max: int
    outlier_factor: float | None


@message
class Blend:
    """Combine the rows of one shard around one of them; integer entries by the lower median of those kept.

    Attributes:
        multipliers: one a row.
        kept: indices of the rows that were not rejected.
        centre: the row that the shard's Gram matrix was made around.
        places: as in ``Resolve``.
    """

    round: int
    layout: Layout
    rows: tuple[Payload, ...]
    multipliers: tuple[float, ...]
    kept: tuple[int, ...]
    centre: int
    places: tuple[int, ...] | None = None


@message
class Arrange:
    """From the whole Gram matrix of the rows kept: the numbers of the first stage of a rule of two (clause 3.8).

    Attributes:
        contents: one text a row; equal texts mean equal rows.
        dropped: how many rows were rejected before; the bound counts them.
    """

    round: int
    gram: tuple[Payload, ...]
    contents: tuple[str, ...]
    rule: str
    faulty_max: int
    dropped: int


@message
class Finish:
    """The second stage of such a rule on one shard of the rows kept; integer entries by their lower median.

    Attributes:
        numbers: of the first stage.
        centre: the row that the shard's Gram matrix was made around.
        places: as in ``Resolve``.
    """

    round: int
    layout: Layout
    rows: tuple[Payload, ...]
    numbers: Payload
    shape: tuple[int, ...]
    rule: str
    faulty_max: int
    centre: int
    places: tuple[int, ...] | None = None


@message
class Evaluate:
    """Measure a state on held-out data, at a trusted node."""

    round: int
    state: tuple[Payload, ...]


@message
class Forge:
    """Make a Byzantine contribution from what the honest sent, at an attacker's node.

    Attributes:
        attack: a name in ``simulator.attacks.ATTACKS``; ``options`` are its own.
        known: the honest contributions of this round (an omniscient adversary).
        base: the state that the round started from.
        seed: of the attack's own random stream.
        colluders: how many members lie like this in this round.
    """

    round: int
    worker: str
    attack: str
    options: Mapping[str, float]
    known: tuple[tuple[Payload, ...], ...]
    base: tuple[Payload, ...]
    layout: Layout
    seed: int
    template: Contribution | None
    colluders: int = 1


@message
class Measure:
    """Compare a result with the honest contributions, at a harness node that knows who was honest."""

    round: int
    layout: Layout
    honest: tuple[tuple[Payload, ...], ...]
    result: tuple[Payload, ...]


# ------------------------------------------------------------------------------------------------ replies inside


@message
class Begun:
    """The first state and its layout."""

    state: tuple[Payload, ...]
    digests: tuple[str, ...]
    layout: Layout


@message
class Adopted:
    """A worker holds the state of this round."""

    worker: str
    round: int
    incarnation: int


@message
class Mustered:
    """What a crowd's members contributed, and what the crowd found when it looked at it.

    Attributes:
        contributions: of the usable members, without payloads; ``row`` counts the rows of the arenas.
        tops: of each, the largest magnitude in every float block of the whole layout.
        arenas, digests: one a shard, if they were asked for and anybody is usable.
    """

    crowd: str
    round: int
    incarnation: int
    contributions: tuple[Contribution, ...]
    tops: tuple[tuple[float, ...], ...]
    rejected: Mapping[str, str]
    missing: Mapping[str, str]
    arenas: tuple[Payload, ...]
    digests: tuple[str, ...]


@message
class Screened:
    """One finding a claim, in their order."""

    seen: tuple[Seen, ...]


@message
class Combined:
    """A partial sum, or at the root the mean."""

    payload: Payload
    workers: tuple[str, ...]
    digest: str


@message
class Resolved:
    """A robust rule's result. ``scores`` are distances from the robust centre, ``limit`` what was allowed."""

    payload: Payload
    digest: str
    kept: tuple[str, ...]
    scores: Mapping[str, float]
    limit: float
    evidence: Evidence


@message
class Mapped:
    """A mapper's pairs, one arena a reducer; ``workers`` are the rows of each, ``pairs`` how many were emitted."""

    arenas: tuple[Payload, ...]
    workers: tuple[str, ...]
    pairs: int


@message
class GramPart:
    """A partial Gram matrix, (n, n) float64 as bytes; ``centre`` is the row it was made around, None for a sum."""

    payload: Payload
    centre: int | None = None


@message
class Weighed:
    """Who is kept and how to combine; see ``Resolved``."""

    kept: tuple[str, ...]
    multipliers: tuple[float, ...]
    scores: Mapping[str, float]
    limit: float
    evidence: Evidence


@message
class Arranged:
    """The numbers of a rule's first stage, float64 as bytes, their shape, and what is promised of the result."""

    payload: Payload
    shape: tuple[int, ...]
    evidence: Evidence


@message
class Blended:
    """One part of the result, or all of it."""

    payload: Payload
    digest: str


@message
class Evaluated:
    """Accuracy in [0, 1] and mean loss on held-out data."""

    accuracy: float
    loss: float


@message
class Measured:
    """Distance of a result from the honest mean, and how far the honest stand apart.

    Attributes:
        error: |result - mean of honest|, Euclidean, over the float entries.
        deviation: square root of the mean squared distance of the honest from their mean (sigma).
        farthest: largest distance of an honest contribution from the mean.
        result_norm: |result|.
    """

    error: float
    deviation: float
    farthest: float
    result_norm: float


@message
class Failed:
    """A call without a reply.

    Attributes:
        definite: True when it is known that no reply will come; False when time ran out.
        lost: keys of payloads that the request named and that could not be had.
        refused: the node itself refused the request as it stands; another would too.
    """

    reason: str
    definite: bool
    lost: tuple[str, ...] = ()
    refused: bool = False


UNKNOWN = "unknown: this node has adopted no state yet"
LATE = Failed(reason="late", definite=False)  # the call is still out: an equal one joins it
CRASHED = Failed(reason="crashed", definite=True)


# ------------------------------------------------------------------------------------------------ the weight store


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Version:
    """When a value was written: by the writer's clock, and for equal clocks by the writer's name. Totally ordered."""

    counter: int
    writer: str


@message
class Copy:
    """What a store says that it holds for a key; the bytes are not in it."""

    key: str
    version: Version
    digest: str


@message
class Standing:
    """Who answers, and which stores it has seen come back empty.

    Attributes:
        rejoined: (store, incarnation) of every store that was brought up to date with this one's help. What such a
            store had acknowledged in an earlier incarnation counts no more.
    """

    store: str
    incarnation: int
    rejoined: tuple[tuple[str, int], ...]


@message
class Look:
    """Which version of the key does this store hold? With ``whole`` it reads the bytes, and fails if they are damaged.

    A store that has not joined the plan of this epoch fails.
    """

    epoch: int
    key: str
    whole: bool


@message
class Put:
    """Keep this value unless a newer one is there. ``epoch`` None: part of bringing the store up to date."""

    epoch: int | None
    key: str
    version: Version
    payload: Payload
    digest: str


@message
class Get:
    """Give the value of the key, if it is whole and not older than ``least``."""

    key: str
    least: Version


@message
class Report:
    """Say how you stand."""


@message
class List:
    """Which copies do you hold that ``store`` should have too? It comes back, or is new, in this incarnation.

    Attributes:
        stores, copies, domains: of the plan, from which the node finds the keys that are placed on ``store``.
        after: only keys after this one, in order; None starts. At most ``limit`` are listed.
    """

    epoch: int
    store: str
    incarnation: int
    stores: tuple[str, ...]
    copies: int
    after: str | None
    limit: int
    domains: tuple[str, ...] | None = None


@message
class Expect:
    """Never serve anything older than these, even before their bytes have come."""

    incarnation: int
    copies: tuple[Copy, ...]


@message
class Serve:
    """Join the plan of this epoch: from now on answers count.

    Attributes:
        incarnation: which was brought up to date; None: whoever served the plan just before, and gains no key.
        rejoined: what the stores that helped know about others.
    """

    epoch: int
    incarnation: int | None
    rejoined: tuple[tuple[str, int], ...]


@message
class Looked:
    """The version held and its digest; None where there is no copy."""

    by: Standing
    version: Version | None
    digest: str | None


@message
class Stored:
    """This store holds that version of the key, or a newer one."""

    by: Standing
    key: str
    version: Version


@message
class Found:
    """The value of a key as this store holds it; its digest was checked."""

    by: Standing
    key: str
    version: Version
    digest: str
    payload: Payload


@message
class Reported:
    """How a store stands. ``epoch`` is of the plan it has joined, None if none: it does not serve."""

    by: Standing
    epoch: int | None
    keys: int


@message
class Listed:
    """A page of copies, by key; ``more`` says that others follow."""

    by: Standing
    copies: tuple[Copy, ...]
    more: bool


@message
class Expected:
    """Keys of which this store has no whole copy yet."""

    by: Standing
    missing: tuple[str, ...]


@message
class Serving:
    """The store has joined the plan of this epoch."""

    by: Standing
    epoch: int


@message
class Acknowledged:
    """A write that a write quorum holds: it survives every fault that leaves a read quorum (clause 2.7)."""

    key: str
    version: Version
    stores: tuple[str, ...]


@message
class NotAcknowledged:
    """A write that too few stores confirmed.

    Attributes:
        version: None when nothing was sent, so the write did not happen. Else it may or may not survive: a later read
            returns it, or what was there before, and once it was returned it stays.
        stores: who confirmed.
    """

    key: str
    version: Version | None
    stores: tuple[str, ...]
    reason: str


@message
class Value:
    """What a read returns: the newest version, which a write quorum now holds. ``repaired`` were brought up to it."""

    key: str
    version: Version
    digest: str
    payload: Payload
    repaired: tuple[str, ...]


@message
class Absent:
    """A read quorum has never heard of this key: an error that names it (clause 2.8)."""

    key: str
    reason: str


@message
class Unavailable:
    """A read that found no quorum in time. It says nothing about the key."""

    key: str
    reason: str


@message
class Joined:
    """A store serves again. ``behind``: keys whose bytes could not be had yet; it does not serve those."""

    store: str
    incarnation: int
    epoch: int
    keys: int
    behind: tuple[str, ...]


@message
class NotJoined:
    """A store that does not serve, and why."""

    store: str
    reason: str


# ------------------------------------------------------------------------------------------------ foreign requests


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


# ------------------------------------------------------------------------------------------------ calls and protocols

Request: TypeAlias = Any  # one of the requests above; a Node answers those it supports
Reply: TypeAlias = Any


@message
class Call:
    """A request to a node. An equal call joins the one in flight; another attempt is another call.

    Attributes:
        until: when the request's payloads need no longer be waited for; None: when the ask ends that sends it.
    """

    node: str
    request: Request
    attempt: int = 0
    until: float | None = dataclasses.field(default=None, compare=False)


@message
class Answer:
    """What became of a call: a reply, or ``Failed``."""

    node: str
    reply: Reply


@message
class Span:
    """One request's time at a host, for whoever watches a runtime.

    Attributes:
        start, finish: seconds on the runtime's clock.
        outcome: name of the reply's type.
    """

    host: str
    node: str
    request: str
    start: float
    finish: float
    outcome: str


class Node(Protocol):
    """A handler: no clock, no randomness of its own, no calls outward."""

    def perform(self, request: Request, /) -> Reply: ...


class NodeSpec(Protocol):
    """A node as data, from which its host builds it afresh after every restart."""

    @property
    def name(self) -> str: ...

    def build(self, incarnation: int, /) -> Node: ...


class Runtime(Protocol):
    """Carries calls to nodes. See ``docs/design.md`` for the laws of ``ask``."""

    def now(self) -> float:
        """Seconds on this runtime's clock."""
        ...

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        """One answer a call, in the order of the calls; ends at ``enough`` replies or at time ``until``."""
        ...

    def fetch(self, payload: Payload) -> Tensor:
        """The vector itself, copied to the caller: for whoever owns the result, never for a story."""
        ...


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


# ------------------------------------------------------------------------------------------------ payloads in messages


def payloads_of(value: Any) -> Iterator[Payload]:
    """Every payload inside a message, in field order."""
    match value:
        case Payload():
            yield value
        case tuple():
            for item in value:
                yield from payloads_of(item)
        case Layout() | Evidence():
            return
        case _ if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from payloads_of(getattr(value, field.name))


def replace_payloads(value: Any, change: Callable[[Payload], Payload]) -> Any:
    """The same message with every payload changed; messages without payloads come back as they are."""
    match value:
        case Payload():
            return change(value)
        case tuple():
            return tuple(replace_payloads(item, change) for item in value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type) and any(payloads_of(value)):
            changed = {f.name: replace_payloads(getattr(value, f.name), change) for f in dataclasses.fields(value)}
            return dataclasses.replace(value, **changed)
        case _:
            return value


def payloads_in_reply(request: Request) -> int:
    """How many payloads the reply to this request carries (a host declares them before it runs)."""
    match request:
        case Train(shards=shards) | Begin(shards=shards):
            return shards
        case Forge(base=base):
            return len(base)
        case Muster(arenas=True, shards=shards):
            return shards
        case Map(parts=parts):
            return len(parts)
        case Reduce() | Assemble() | Combine() | Subtotal() | Resolve() | Get():
            return 1
        case PartialGram() | AddGrams() | Blend() | Arrange() | Finish():
            return 1
        case _:
            return 0
