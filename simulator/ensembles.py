"""Distributed ensembles of synthetic workers, for tests of rounds and benchmarks: hosts, plans, the result by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hqde_ref.core.kernels.exact_sums import exact_weighted_mean
from hqde_ref.core.packing import digest, float_blocks, merge_rows, split_rows
from hqde_ref.core.sharding import cut, join
from hqde_ref.messages import (
    Accepted,
    Begin,
    Begun,
    Call,
    Failed,
    NodeSpec,
    Payload,
    Policy,
    Reply,
    Request,
    Runtime,
    Verdict,
    message,
)
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.nodes.crowd import CrowdSpec
from hqde_ref.rounds.plans import Crowding, RoundPlan, Seat
from simulator.synthetic import SyntheticSpec, first_state, synthetic_layout, synthetic_row

SEED = 5


@message
class BeginnerSpec:
    """A node that gives zeros as the first state."""

    name: str
    floats: int

    def build(self, incarnation: int, /) -> Beginner:
        return Beginner(self.floats)


class Beginner:
    def __init__(self, floats: int) -> None:
        self._floats = floats

    def perform(self, request: Request, /) -> Reply:
        if not isinstance(request, Begin):
            return Failed(reason="a beginner only begins", definite=True)
        state, digests = first_state(self._floats, request.shards)
        return Begun(state=state, digests=digests, layout=synthetic_layout(self._floats))


@message
class Ensemble:
    """Members in contiguous runs on hosts h0, h1, ...; with an aggregator each, or, ``apart``, on a host of its own.

    If they are ``lasting``, they give in all rounds what they give in round 0, so that a benchmark does not time the
    making of it.
    """

    members: tuple[str, ...]
    hosts: int
    floats: int
    lies: Mapping[str, str] = dataclasses.field(default_factory=dict)
    crowds: bool = False
    apart: bool = False
    lasting: bool = False

    def host_of(self, member: str) -> str:
        return f"h{self.members.index(member) * self.hosts // len(self.members)}"

    def beside(self, host: str) -> tuple[str, ...]:
        return tuple(member for member in self.members if self.host_of(member) == host)

    def spec(self, member: str) -> SyntheticSpec:
        lie = self.lies.get(member)
        return SyntheticSpec(name=member, seed=SEED, floats=self.floats, lie=lie, lasting=self.lasting)

    def nodes(self) -> dict[str, tuple[NodeSpec, ...]]:
        found: dict[str, tuple[NodeSpec, ...]] = {}
        for index in range(self.hosts):
            workers = tuple(self.spec(member) for member in self.beside(f"h{index}"))
            mine: tuple[NodeSpec, ...] = (CrowdSpec(name=f"c{index}", members=workers),) if self.crowds else workers
            seat = (AggregatorSpec(name=f"a{index}"),)
            found[f"h{index}"] = mine if self.apart else (*seat, *mine)
            if self.apart:
                found[f"g{index}"] = seat
        return found | {"harness": (BeginnerSpec(name="beginner", floats=self.floats),)}

    def plan(self, runtime: Runtime, policy: Policy, *, number: int = 1, after: Verdict | None = None) -> RoundPlan:
        for attempt in range(20):  # where messages get lost, so may these
            call = Call(node="beginner", request=Begin(seed=0, shards=policy.shards), attempt=attempt)
            begun = runtime.ask([call], enough=1, until=runtime.now() + 60)[0].reply
            if isinstance(begun, Begun):
                break
        assert isinstance(begun, Begun), begun
        state, digests = (
            (after.payloads, after.digests) if isinstance(after, Accepted) else (begun.state, begun.digests)
        )
        hosts = [f"h{index}" for index in range(self.hosts)]
        return RoundPlan(
            round=number,
            members=self.members,
            seats=tuple(Seat(aggregator=f"a{h[1:]}", beside=() if self.apart else self.beside(h)) for h in hosts),
            layout=synthetic_layout(self.floats),
            state=state,
            state_digests=digests,
            policy=policy,
            batch_start=0,
            batch=10 * len(self.members),
            steps=1,
            crowds=tuple(Crowding(node=f"c{h[1:]}", members=self.beside(h)) for h in hosts) if self.crowds else (),
        )

    def packed(self, members: Sequence[str], *, number: int) -> list[Tensor]:
        """What these contribute to the round of this number."""
        number = 0 if self.lasting else number
        return [
            synthetic_row(m, seed=SEED, floats=self.floats, round_number=number, lie=self.lies.get(m)) for m in members
        ]

    def mean_digests(self, used: Sequence[str], shards: int, *, number: int) -> tuple[str, ...]:
        """Digests of the exact mean of these in the round of this number, computed flat and here."""
        layout = synthetic_layout(self.floats)
        rows, integers = zip(*(split_rows(row, layout) for row in self.packed(used, number=number)), strict=True)
        mean = exact_weighted_mean(list(rows), blocks=float_blocks(layout))
        middle = torch.stack(integers).sort(dim=0).values[(len(used) - 1) // 2]
        return tuple(map(digest, cut(merge_rows(mean, middle, layout), layout, shards)))


def numbered(count: int) -> tuple[str, ...]:
    """Member ids that sort as they count."""
    return tuple(f"w{index:04d}" for index in range(count))


def accounts(verdict: Verdict) -> list[str]:
    """Everybody that a verdict names, as often as it does."""
    used = verdict.used if isinstance(verdict, Accepted) else ()
    return sorted([*used, *verdict.rejected, *verdict.missing])


def fetched_row(runtime: Runtime, plan: RoundPlan, pieces: Sequence[Payload]) -> Tensor:
    """The float row of a result."""
    return split_rows(join([runtime.fetch(piece) for piece in pieces], plan.layout), plan.layout)[0]
