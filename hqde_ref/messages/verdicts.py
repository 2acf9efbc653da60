"""What a round demands and what became of it.

Source: HQDE sections 3, 4 and 6.
Data only: nothing here computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TypeAlias

from hqde_ref.messages.vectors import Payload, message

__all__ = ["Accepted", "Evidence", "Policy", "Refused", "Verdict"]


@message
class Policy:
    """How a round is to be aggregated, and what it must withstand.

    Attributes:
        rule: a name in ``hqde_ref.core.rules.RULES``.
        topology: ``"flat"`` (one aggregator), ``"tree"`` (means, and rules that may go node by node while
            the tree survives ``faulty_max``: clause 3.7), ``"mapreduce"`` (means, parameters
            dealt to reducers: clause 2.1) or ``"sharded"`` (coordinates cut over reducers; clause 3.8).
        weighting: of means: ``"mass"`` (what a contribution asks for) or ``"accuracy_softmax"`` (clause 2.2).
        shards: into how many pieces vectors are cut; 1 unless sharded.
        mappers, reducers: of a mapreduce round.
        faulty_max: f, with 3f < n (clause 4.1).
        branching: b of the aggregation tree.
        outlier_factor: a contribution farther than this many median distances from the centre may be rejected, as
            long as absent and rejected together stay within f (clause 4.4); None rejects no one for its distance, nor
            does a tree, no node of which sees everybody.
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
        radius_factor: distance to any z is at most this times the farthest honest distance to z. None likewise. Of a
            tree it holds of the result before that is rounded to the layout's dtypes, as of a sharded round.
        honest_box: every value lies between the least and the greatest honest one. What is left of a coordinate-wise
            rule that went node by node up a tree, where no kappa holds; False says nothing.
    """

    rule: str
    faulty_max: int
    kappa: float | None
    subgradient_norm: float | None = None
    radius_factor: float | None = None
    honest_box: bool = False


@message
class Accepted:
    """A round that produced a result. Used, rejected and missing partition the members (clause 0.4).

    Attributes:
        scores: distances from the robust centre, by member; empty where nobody is rejected for distance.
        limit: the distance that was allowed, likewise; 0 where there are no scores.
        behind: members that could not be given the result, since it was lost when others had adopted it and could not
            be made again, and why; beside the three above, not one of them. They lack the state in the next round.
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
    behind: Mapping[str, str] = field(default_factory=dict)

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
