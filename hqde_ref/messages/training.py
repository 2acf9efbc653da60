"""Requests to workers, crowds and evaluators, with their replies.

Source: HQDE sections 1 and 5.
Data only: nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping

from hqde_ref.messages.vectors import Contribution, Layout, Payload, message
from hqde_ref.messages.verdicts import Policy

__all__ = [
    "Adopt",
    "Adopted",
    "Begin",
    "Begun",
    "Evaluate",
    "Evaluated",
    "Forge",
    "Measure",
    "Measured",
    "Muster",
    "Mustered",
    "Train",
]


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
        policy: the aggregation that attacks which search aim at; None for a coordinate-wise median.
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
    policy: Policy | None = None


@message
class Measure:
    """Compare a result with the honest contributions, at a harness node that knows who was honest."""

    round: int
    layout: Layout
    honest: tuple[tuple[Payload, ...], ...]
    result: tuple[Payload, ...]


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
