"""Planted bugs of rounds with faults: what a system does wrong when nodes fail and members send what they must not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hqde_ref.messages import Aggregate, Aggregated, Reply, Request, RoundEnded, RoundFault, RunRound, Update
from tests.planted_base import Planted, State, cut_like, table

DAMAGES = ("flips a bit", "truncates")
STOPS = ("dies", "hangs", "is slow", "loses an answer")


class InRuns(Planted):
    """Shows in rounds with faults: ``runs`` is asked instead, and ``ends`` spoils how it ended."""

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        if not isinstance(request, RunRound):
            return ask(request)
        ended = ask(self.runs(request))
        return self.ends(request, ended, state) if isinstance(ended, RoundEnded) else ended

    def runs(self, request: RunRound) -> RunRound:
        return request

    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        return ended


def hangs(request: RunRound) -> bool:
    return any(fault.kind == "hangs" for fault in request.faults)


def sent(request: RunRound, fault: RoundFault) -> int:
    """The number of the update of a fault's member, where every member sends one."""
    return fault.index % len(request.updates)


def shifted(update: Update, by: float) -> Update:
    return dataclasses.replace(update, tensors={name: tensor + by for name, tensor in update.tensors.items()})


# ------------------------------------------------------------------------------------------------ the traffic


class SendsEverythingToTheRoot(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        return dataclasses.replace(ended, most_received=len(request.updates))


class SendsTwice(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        return dataclasses.replace(ended, most_sent=2)


class CoordinatorCarriesAVector(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        vector = sum(tensor.nbytes for tensor in request.updates[0].tensors.values())
        return dataclasses.replace(ended, coordinator_bytes=(ended.coordinator_bytes or 0) + vector)


# ------------------------------------------------------------------------------------------------ failed nodes


class MeanOfMappersMeans(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        if ended.result is None or request.topology != "mapreduce":
            return ended
        rows = table(sorted(request.updates, key=lambda update: update.worker))
        means = [rows[start :: request.mappers].mean(dim=0) for start in range(min(request.mappers, len(rows)))]
        return dataclasses.replace(ended, result=cut_like(sum(means) / len(means), ended.result))


class InPretences(InRuns):
    """Nothing fails in truth: ``untroubled`` is the round whose result is given, under the true members' names."""

    def runs(self, request: RunRound) -> RunRound:
        if not any(self.concerns(fault) for fault in request.faults):
            return request
        return self.untroubled(dataclasses.replace(request, faults=()), request.faults[0])

    def concerns(self, fault: RoundFault) -> bool:
        return fault.role != "member" and fault.kind in STOPS

    def untroubled(self, request: RunRound, fault: RoundFault) -> RunRound:
        return request

    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        if not any(self.concerns(fault) for fault in request.faults):
            return ended
        used = tuple(sorted({update.worker for update in request.updates}))
        return dataclasses.replace(ended, used=used, rejected={}, missing={}, fired=(True,) * len(request.faults))


class LosesTheDeadPartition(InPretences):
    def untroubled(self, request: RunRound, fault: RoundFault) -> RunRound:
        return dataclasses.replace(request, updates=request.updates[:: request.mappers])


class LosesASubtreeInSilence(InPretences):
    def untroubled(self, request: RunRound, fault: RoundFault) -> RunRound:
        return dataclasses.replace(request, updates=request.updates[request.branching // 2 :])


class CountsRedoneWorkTwice(InPretences):
    """What was done again counts beside what came late."""

    def untroubled(self, request: RunRound, fault: RoundFault) -> RunRound:
        again = dataclasses.replace(request.updates[0], worker="again")
        return dataclasses.replace(request, updates=(*request.updates, again))


class LosesAShard(InRuns):
    """The share of a node that failed stays as it was before the round."""

    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        if ended.result is None or not any(fault.role == "inner" for fault in request.faults):
            return ended
        name, tensor = list(ended.result.items())[-1]
        return dataclasses.replace(ended, result={**ended.result, name: tensor * 0})


class WaitsForTheHung(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        return dataclasses.replace(ended, seconds=request.within_s + 60.0) if hangs(request) else ended


class EndsWithNothing(InRuns):
    """A round that is refused has no reason."""

    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        return dataclasses.replace(ended, refused=None)


class RefusesWhenANodeFails(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        failed = [fault for fault in request.faults if fault.role != "member"]
        return refused(request, ended, f"{failed[0].role} {failed[0].index} failed") if failed else ended


class GuessesAResult(InRuns):
    """Where nobody did the work, the first contribution will do."""

    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        guess = request.updates[0].tensors
        return ended if ended.result is not None else dataclasses.replace(ended, result=guess, refused=None)


def refused(request: RunRound, ended: RoundEnded, why: str) -> RoundEnded:
    missing = {update.worker: "unused" for update in request.updates}
    return dataclasses.replace(ended, result=None, used=(), rejected={}, missing=missing, refused=why)


# ------------------------------------------------------------------------------------------------ members that die


class StaysDead(InRuns):
    """Who was missing once is never called again."""

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        gone: set[str] = state.setdefault("gone", set())
        if isinstance(request, RunRound):
            members = tuple(sorted({update.worker for update in request.updates}))
            left = tuple(update for update in request.updates if update.worker not in gone)
            request = dataclasses.replace(request, updates=left, members=members)
        ended = ask(request)
        if isinstance(ended, RoundEnded):
            gone |= set(ended.missing or ())
        return ended


class EndsTraining(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        return refused(request, ended, "a member died") if ended.missing else ended


class UsesTheDead(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        return dataclasses.replace(ended, used=tuple(sorted((*(ended.used or ()), *(ended.missing or ())))), missing={})


# ------------------------------------------------------------------------------------------------ what members send


class CountsStale(InPretences):
    def concerns(self, fault: RoundFault) -> bool:
        return fault.kind == "is stale"


class CallsStaleMissing(InRuns):
    def ends(self, request: RunRound, ended: RoundEnded, state: State) -> RoundEnded:
        if not any(fault.kind == "is stale" for fault in request.faults):
            return ended
        return dataclasses.replace(ended, missing={**(ended.missing or {}), **(ended.rejected or {})}, rejected={})


class TrustsBytes(InPretences):
    """Whatever arrives is aggregated."""

    def concerns(self, fault: RoundFault) -> bool:
        return fault.kind in DAMAGES

    def untroubled(self, request: RunRound, fault: RoundFault) -> RunRound:
        at = sent(request, fault)
        updates = (*request.updates[:at], shifted(request.updates[at], 3.0), *request.updates[at + 1 :])
        return dataclasses.replace(request, updates=updates)


class DamageProvesALiar(InRuns):
    """Whose bytes are damaged was the liar, so there is one liar less among the rest."""

    def runs(self, request: RunRound) -> RunRound:
        damaged = sum(fault.kind in DAMAGES for fault in request.faults)
        return dataclasses.replace(request, faulty_max=max(0, request.faulty_max - damaged))


class CountsEveryTale(Planted):
    """Each thing that a worker says counts as another worker's."""

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        if not isinstance(request, Aggregate | RunRound):
            return ask(request)
        told: list[Update] = []
        for update in request.updates:
            times = sum(other.worker.split(" again")[0] == update.worker for other in told)
            told.append(dataclasses.replace(update, worker=update.worker + " again" * times))
        names = tuple(update.worker for update in told)
        reply = ask(dataclasses.replace(request, updates=tuple(told), members=names))
        if not isinstance(reply, Aggregated | RoundEnded):
            return reply
        true = {update.worker for update in request.updates}
        used = tuple(name for name in reply.used or () if name in true)
        rejected = {name: reason for name, reason in (reply.rejected or {}).items() if name in true}
        reply = dataclasses.replace(reply, used=used, rejected=rejected)
        if isinstance(request, RunRound) and isinstance(reply, RoundEnded):
            reply = dataclasses.replace(reply, fired=(True,) * len(request.faults))
        return reply


class CountsATaleAsAFault(Planted):
    """Every contribution too many uses up the budget of faults."""

    def perform(self, request: Request, ask: Callable[[Request], Reply], state: State) -> Reply:
        reply = ask(request)
        if not isinstance(request, Aggregate | RunRound):
            return reply
        more = len(request.updates) - len({update.worker for update in request.updates})
        if more < max(1, request.faulty_max):
            return reply
        if isinstance(reply, RoundEnded) and isinstance(request, RunRound):
            return refused(request, reply, f"{more + 1} faults are too many")
        return dataclasses.replace(reply, result=None, refused=f"{more + 1} faults are too many")
