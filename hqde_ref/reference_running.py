"""Rounds with faults behind the foreign request ``RunRound``: the real story of a round, on hosts that fail on demand.

Source: HQDE clauses 2.5, 3.5, 3.6 and section 6. Nothing is decided here: ``hqde_ref.rounds.training`` carries out the
round, real aggregators aggregate; only members are recordings, which send what the request says. Time is virtual.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from hqde_ref.core.judging import check_policy
from hqde_ref.core.packing import unpack
from hqde_ref.core.sharding import join
from hqde_ref.errors import ConfigurationError, require_integer
from hqde_ref.messages import (
    Accepted,
    AddGrams,
    Arrange,
    Assemble,
    Blend,
    Combine,
    Condense,
    Finish,
    Layout,
    Map,
    PartialGram,
    Payload,
    Policy,
    Reduce,
    Request,
    Resolve,
    RoundEnded,
    RoundFault,
    RunRound,
    Screen,
    Train,
    Weigh,
    message,
)
from hqde_ref.nodes.aggregator import AggregatorSpec
from hqde_ref.reference_contributions import members_of, updates_by_worker
from hqde_ref.reference_members import DAMAGES, RecordedSpec, Recording
from hqde_ref.rounds.plans import RoundPlan, Seat
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.frail import Frail, Traffic

__all__ = ["ReferenceRounds"]

_WORK: Final[dict[str, tuple[type, ...]]] = {
    "member": (Train,),
    "mapper": (Screen, Map),
    "reducer": (Reduce, Assemble),
    "inner": (Screen, Combine, Condense, Resolve, PartialGram, AddGrams, Weigh, Blend, Arrange, Finish),
}
_STRIKES: Final = ("dies", "hangs", "is slow", "loses an answer")
_WEIGHTINGS: Final = {"flat": "mass", "hierarchical": "accuracy_softmax"}
_SHARDS = 3
_HEDGE_SHARE = 0.1  # of the round's time


@message
class _Frame:
    """What stays as it is over the rounds of one system."""

    members: tuple[str, ...]
    layout: Layout
    hosts: int


class _Faults:
    """The faults of one round: strikes hosts when their work reaches them, and knows which faults took effect."""

    def __init__(self, request: RunRound, frame: _Frame, runtime: Frail) -> None:
        self._runtime, self._faults = runtime, request.faults
        self._roles = ("member", "mapper", "reducer") if request.topology == "mapreduce" else ("member", "inner")
        self._places = [_place(fault, request, frame) for fault in request.faults]
        self._done: dict[tuple[str, str], int] = {}
        self.fired = [False] * len(request.faults)

    def on_arrival(self, host: str, request: Request) -> None:
        for role in self._roles:
            if isinstance(request, _WORK[role]):
                piece = self._done.get((host, role), 0)
                self._done[host, role] = piece + 1
                self._strike(host, role, piece)

    def _strike(self, host: str, role: str, piece: int) -> None:
        for index, fault in enumerate(self._faults):
            here = (self._places[index], fault.role) == (host, role) and fault.after == piece
            if not here or fault.kind not in _STRIKES or not self._runtime.is_up(host):
                continue
            self.fired[index] = True
            match fault.kind:
                case "dies":
                    self._runtime.crash(host)
                case "hangs":
                    self._runtime.hang(host)
                case "is slow":
                    self._runtime.delay(host, fault.seconds)
                case _:
                    self._runtime.lose(host)

    def damages(self, member: str) -> tuple[tuple[int, RoundFault], ...]:
        """What this member does to its contribution, by the faults' numbers."""
        return tuple(
            (index, fault)
            for index, fault in enumerate(self._faults)
            if fault.kind in DAMAGES and self._places[index] == _home(member)
        )


def _place(fault: RoundFault, request: RunRound, frame: _Frame) -> str:
    """The host that a fault is about.

    Raises:
        ConfigurationError: for a fault that cannot be.
    """
    kinds = (*_STRIKES, *DAMAGES) if fault.role == "member" else _STRIKES
    for setting, wanted, got in (("role", tuple(_WORK), fault.role), ("kind", kinds, fault.kind)):
        if got not in wanted:
            raise ConfigurationError(
                setting=f"{setting} of a fault", wanted=f"one of {', '.join(wanted)}", got=got, do="choose one"
            )
    if fault.role == "member":
        return _home(frame.members[fault.index % len(frame.members)])
    number = {"mapper": request.mappers, "reducer": request.reducers}.get(fault.role, frame.hosts)
    return _machine(fault.index % number % frame.hosts)


def _home(member: str) -> str:
    return f"home of {member}"


def _machine(index: int) -> str:
    return f"machine {index}"


class ReferenceRounds:
    """A node that answers ``RunRound``: one system, round after round. What failed is well again after each."""

    def __init__(self) -> None:
        self._frame: _Frame | None = None
        self._recordings: dict[str, Recording] = {}
        self._state: tuple[Payload, ...] = ()
        self._digests: tuple[str, ...] = ()
        self._faults: _Faults | None = None
        self._last = 0

    def perform(self, request: RunRound) -> RoundEnded:
        """Carry out one round.

        Raises:
            ConfigurationError: for a round that makes no sense, by itself or after the one before.
        """
        by_worker = updates_by_worker(request.updates)
        members = members_of(request.members, request.updates)
        frame = _Frame(members=members, layout=request.layout, hosts=request.hosts)
        plan = self._plan(request, frame)
        check_policy(plan.policy, members=len(members))
        self._enter(request, frame)
        faults = self._faults = _Faults(request, frame, self._runtime)
        for member in members:
            self._recordings[member] = Recording(
                layout=frame.layout,
                updates=tuple(by_worker.get(member, ())),
                damages=faults.damages(member),
                fired=faults.fired,
            )
        self._runtime.traffic = traffic = Traffic()
        began = self._runtime.now()
        verdict = training_round(self._runtime, plan)
        seconds = self._runtime.now() - began
        strangers = {worker: "not a member of this round" for worker in by_worker if worker not in members}
        told = RoundEnded(
            result=None,
            rejected={**verdict.rejected, **strangers},
            missing=verdict.missing,
            fired=tuple(faults.fired),
            seconds=seconds,
            most_received=traffic.most_received,
            most_sent=traffic.most_sent,
            coordinator_bytes=traffic.bytes,
        )
        self._heal()
        if not isinstance(verdict, Accepted):
            return dataclasses.replace(told, used=(), refused=verdict.reason)
        self._state, self._digests = verdict.payloads, verdict.digests
        tensors = unpack(join([self._runtime.fetch(payload) for payload in self._state], frame.layout), frame.layout)
        result = {name: tensor.clone() for name, tensor in tensors.items()}
        return dataclasses.replace(told, used=verdict.used, result=result)

    def _enter(self, request: RunRound, frame: _Frame) -> None:
        """Start the hosts for the first round; every later one must be of the same system."""
        if isinstance(request.number, bool) or not isinstance(request.number, int) or request.number <= self._last:
            wanted = f"an integer above {self._last}"
            raise ConfigurationError(setting="number of the round", wanted=wanted, got=request.number, do="count on")
        if self._frame is None:
            homes = {_home(name): (RecordedSpec(name=name, recordings=self._recordings),) for name in frame.members}
            machines = {name: (AggregatorSpec(name=name),) for name in _machines(frame)}
            self._runtime = Frail({**homes, **machines}, on_arrival=self._on_arrival, is_counted=_is_inner_work)
        elif self._frame != frame:
            raise ConfigurationError(
                setting="members, layout and hosts", wanted="those of the round before", got=frame, do="start a node"
            )
        self._frame, self._last = frame, request.number

    def _on_arrival(self, host: str, request: Request) -> None:
        assert self._faults is not None, "requests go out in rounds only"
        self._faults.on_arrival(host, request)

    def _plan(self, request: RunRound, frame: _Frame) -> RoundPlan:
        return RoundPlan(
            round=request.number,
            members=frame.members,
            seats=tuple(Seat(aggregator=name, beside=()) for name in _machines(frame)),
            layout=frame.layout,
            state=self._state,
            state_digests=self._digests,
            policy=_policy(request),
            batch_start=0,
            batch=len(frame.members),
            steps=1,
        )

    def _heal(self) -> None:
        assert self._frame is not None
        for host in (*map(_home, self._frame.members), *_machines(self._frame)):
            self._runtime.restart(host)
            self._runtime.resume(host)


def _policy(request: RunRound) -> Policy:
    if request.weighting not in _WEIGHTINGS:
        wanted = f"one of {', '.join(_WEIGHTINGS)}"
        raise ConfigurationError(setting="weighting", wanted=wanted, got=request.weighting, do="choose one")
    return Policy(
        rule=request.rule,
        topology=request.topology,
        weighting=_WEIGHTINGS[request.weighting],
        shards=_SHARDS if request.topology == "sharded" else 1,
        mappers=request.mappers,
        reducers=request.reducers,
        faulty_max=request.faulty_max,
        branching=request.branching,
        round_within_s=request.within_s,
        hedge_after_s=_HEDGE_SHARE * request.within_s,
    )


def _machines(frame: _Frame) -> tuple[str, ...]:
    require_integer("hosts", frame.hosts, least=1, do="give the round a machine")
    return tuple(map(_machine, range(frame.hosts)))


def _is_inner_work(request: Request) -> bool:
    return isinstance(request, _WORK["inner"])
