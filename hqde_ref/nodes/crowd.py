"""A crowd: all the ensemble members of a host behind one node, so that a thousand members are a few messages.

Source: HQDE clauses 0.5, 0.6, 1.3, 3.3, 6.2. No clock, no randomness of its own, no calls outward.

The crowd is the host's own trusted code: it looks at what its members give exactly as an aggregator would, and believes
nothing they say of themselves. What lies is a member; what crashes or hangs is the host with everybody on it.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from hqde_ref.core.combining import combine
from hqde_ref.core.judging import gather
from hqde_ref.core.packing import digest, fingerprint
from hqde_ref.core.screening import MISSHAPEN, screen
from hqde_ref.core.sharding import cut, cut_rows
from hqde_ref.errors import HqdeError
from hqde_ref.messages import (
    Adopt,
    Adopted,
    Claim,
    Combine,
    Combined,
    Contribution,
    Failed,
    Muster,
    Mustered,
    Node,
    NodeSpec,
    Payload,
    Reply,
    Request,
    Seen,
    Subtotal,
    Train,
    message,
)

__all__ = ["Crowd", "CrowdSpec"]


@message
class CrowdSpec:
    """A crowd as data: its name and its members."""

    name: str
    members: tuple[NodeSpec, ...]

    def build(self, incarnation: int, /) -> Crowd:
        return Crowd(self.name, {spec.name: spec.build(incarnation) for spec in self.members}, incarnation)


class Crowd:
    """Holds its members, and their usable contributions to the last round it was mustered for."""

    def __init__(self, name: str, members: dict[str, Node], incarnation: int) -> None:
        self._name = name
        self._members = members
        self._incarnation = incarnation
        self._round: int | None = None
        self._kept: dict[str, Contribution] = {}
        self._pieces: dict[str, tuple[Tensor, ...]] = {}  # their shards, once a partial sum was asked for

    def perform(self, request: Request, /) -> Reply:
        match request:
            case Adopt():
                return self._adopt(request)
            case Muster():
                return self._muster(request)
            case Subtotal():
                return self._add_up(request)
            case _:
                return Failed(reason=f"a crowd does not answer {type(request).__name__}", definite=True)

    def _ask(self, member: str, request: Request) -> Reply:
        node = self._members.get(member)
        if node is None:
            return Failed(reason=f"there is no node {member!r}", definite=True)
        try:
            return node.perform(request)
        except HqdeError as error:  # as the runtimes do for a member that is a node of its own
            return Failed(reason=f"{type(error).__name__}: {error}", definite=True, refused=True)

    def _adopt(self, request: Adopt) -> Reply:
        """All members adopt; one that does not will say so when it is to train."""
        for member in self._members:
            self._ask(member, request)
        return Adopted(worker=self._name, round=request.round, incarnation=self._incarnation)

    # ---------------------------------------------------------------------------------------------- mustering

    def _muster(self, request: Muster) -> Mustered:
        replies = {
            member: self._ask(member, _train(request, *rows))
            for member, rows in zip(request.members, request.slices, strict=True)
        }
        gathered = gather(replies, members=request.members, round_number=request.round, weighting=request.weighting)
        looks = {c.worker: _look(c, request) for c in gathered.contributions}
        refused = {worker: look.reason for worker, look in looks.items() if look.reason is not None}
        usable = [c for c in gathered.contributions if c.worker not in refused]
        self._round, self._kept, self._pieces = request.round, {c.worker: c for c in usable}, {}
        arenas, digests = self._arenas(usable, request) if request.arenas and usable else ((), ())
        return Mustered(
            crowd=self._name,
            round=request.round,
            incarnation=self._incarnation,
            contributions=tuple(dataclasses.replace(c, payloads=(), row=row) for row, c in enumerate(usable)),
            tops=tuple(looks[c.worker].tops for c in usable),
            rejected={**gathered.rejected, **refused},
            missing=gathered.missing,
            arenas=arenas,
            digests=digests,
        )

    def _arenas(self, usable: list[Contribution], request: Muster) -> tuple[tuple[Payload, ...], tuple[str, ...]]:
        """The rows of everybody, one after the other, shard by shard, and their digests."""
        stacked = cut_rows([c.payloads[0].ref for c in usable], request.layout, request.shards)
        digests = tuple(digest(rows) for rows in stacked)
        named = enumerate(zip(stacked, digests, strict=True))
        return tuple(self._payload(rows, f"rows:{shard}:{code}") for shard, (rows, code) in named), digests

    # ---------------------------------------------------------------------------------------------- partial sums

    def _add_up(self, request: Subtotal) -> Reply:
        strangers = [worker for worker in request.workers if worker not in self._kept]
        if self._round != request.round or strangers:
            what = f"round {request.round}" if self._round != request.round else f"the rows of {strangers[0]}"
            return Failed(reason=f"stale: this crowd does not hold {what}", definite=True)
        rows = [self._piece(worker, request) for worker in request.workers]
        part = Combine(
            round=request.round,
            layout=request.layout,
            parts=(),
            workers=request.workers,
            masses=request.masses,
            grid=request.grid,
            leaf=True,
            root=False,
        )
        packed = combine(part, rows)
        code = digest(packed)
        return Combined(payload=self._payload(packed, f"sum:{code[:16]}"), workers=request.workers, digest=code)

    def _piece(self, worker: str, request: Subtotal) -> Tensor:
        whole = self._kept[worker].payloads[0].ref
        if worker not in self._pieces:
            self._pieces[worker] = cut(whole, request.whole, request.shards)
        return self._pieces[worker][request.shard]

    def _payload(self, packed: Tensor, what: str) -> Payload:
        key = f"{self._name}.{self._incarnation}/{self._round}/{what}"
        return Payload(key=key, ref=packed, nbytes=packed.numel())


def _train(request: Muster, start: int, stop: int) -> Train:
    return Train(round=request.round, base=request.base, start=start, stop=stop, steps=request.steps, shards=1)


def _look(contribution: Contribution, request: Muster) -> Seen:
    """What an aggregator would find; members give their vectors whole, the crowd cuts them."""
    sent = len(contribution.payloads)
    if not sent == len(contribution.digests) == 1:
        reason = f"{MISSHAPEN}: {sent} shards, the round declared 1"
        return Seen(worker=contribution.worker, reason=reason, tops=(), digest="")
    claim = Claim(
        worker=contribution.worker,
        payload=contribution.payloads[0],
        digest=contribution.digests[0],
        layout=contribution.layout,
    )
    return screen(claim, claim.payload.ref, request.layout, declared=fingerprint(request.layout))
