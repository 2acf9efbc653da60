"""What a round is told: its members, its aggregators, the state it starts from, and its policy. Data only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hqde_ref.messages import Layout, Payload, Policy, message

__all__ = ["Crowding", "RoundPlan", "Seat"]


@message
class Seat:
    """An aggregator and the members that share its host: if they are silent, so probably is it."""

    aggregator: str
    beside: tuple[str, ...]


@message
class Crowding:
    """A crowd and its members."""

    node: str
    members: tuple[str, ...]


@message
class RoundPlan:
    """One training round.

    Attributes:
        members: ids of all workers of the round; slice i of the batch goes to member i.
        state, state_digests: what was published last, shard by shard.
        batch_start, batch: rows [batch_start, batch_start + batch) of the training data, modulo its length.
        steps: gradient steps each worker takes on its slice.
        crowds: the nodes that answer for all members; without any, members are nodes themselves.
        pace: seconds that training took beside each aggregator in the round before, where it is known (see ``pacing``).
    """

    round: int
    members: tuple[str, ...]
    seats: tuple[Seat, ...]
    layout: Layout
    state: tuple[Payload, ...]
    state_digests: tuple[str, ...]
    policy: Policy
    batch_start: int
    batch: int
    steps: int
    crowds: tuple[Crowding, ...] = ()
    pace: Mapping[str, float] = dataclasses.field(default_factory=dict)
