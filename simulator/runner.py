"""Runs a scenario in a world, round by round, and records what happened.

Each round: faults that begin, the story of ``hqde_ref.rounds.training`` on a decorated runtime, then the harness's own
measurements, then faults that end. Between rounds dead hosts are restarted, as a supervisor would. Where there is a
weight store, a round starts from what is read there, and its result is written there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hqde_ref import __version__
from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import (
    UNANSWERED,
    Accepted,
    Begin,
    Begun,
    Call,
    Evaluate,
    Evaluated,
    Failed,
    Layout,
    Measure,
    Measured,
    Payload,
    Policy,
    Reply,
    Request,
    Runtime,
    Span,
    Value,
    Verdict,
)
from hqde_ref.rounds.pacing import Timekeeper
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.training import training_round
from simulator.adversary import Adversary, Moments
from simulator.damaging import Damaging
from simulator.faults import Duplicate, Lose
from simulator.mishaps import Mishaps
from simulator.noting import note_round
from simulator.proven_bounds import kappa_of
from simulator.records import Kept, ReadBack, RoundRecord, Run, Variant, Written
from simulator.scenario import Scenario
from simulator.storage import Storage, refuse_unread
from simulator.striking import Striking
from simulator.trace import Trace
from simulator.worlds import World, place_crowds, place_seats

__all__ = ["policy_of", "run_variant"]

_HARNESS_WITHIN_S = 60.0  # for the harness's own questions between rounds
_HARNESS_ATTEMPTS = 20


def policy_of(scenario: Scenario, variant: Variant) -> Policy:
    """The policy of a variant: the mean goes up the tree and promises nothing."""
    if variant != "mean instead":
        return scenario.system.policy()
    return Policy(
        rule="weighted_mean",
        topology="tree",
        branching=scenario.system.branching,
        round_within_s=scenario.system.round_within,
        train_share=scenario.system.train_share,
        slow_factor=scenario.system.slow_factor,
    )


def run_variant(
    scenario: Scenario, world: World, *, variant: Variant = "as written", progress: Callable[[int], None] | None = None
) -> tuple[Run, Trace]:
    """Run one variant from a fresh state; ``progress`` is told each round that begins, and one more at the end."""
    return _Running(scenario, world, variant).go(progress)


class _Running:
    """The state of a run: the published model, the faults that are on, the trace."""

    def __init__(self, scenario: Scenario, world: World, variant: Variant) -> None:
        self._scenario = scenario
        self._world = world
        self._variant = variant
        self._policy = policy_of(scenario, variant)
        self._origin = world.runtime.now()
        self._trace = Trace(
            scenario=scenario.metadata.name, seed=scenario.seed, world=world.name, variant=variant, version=__version__
        )
        store = scenario.system.store
        self._storage = (
            None
            if store is None
            else Storage(
                store,
                world,
                nodes=scenario.system.nodes,
                lossy=scenario.network.is_lossy,
                note=self._note_store,
            )
        )
        self._damaging = (
            None
            if self._storage is None
            else Damaging(self._storage, note_fault=self._note_fault, note=self._note_store)
        )
        self._struck = Striking(
            scenario, world, quiet=variant == "no faults", note=self._note_fault, damaging=self._damaging
        )
        self._keeper = Timekeeper()
        world.watch(self._note_span)

    def go(self, progress: Callable[[int], None] | None) -> tuple[Run, Trace]:
        self._world.settle()  # an earlier run in this world may have left hosts dead
        self._struck.prepare()
        begun = _require(
            self._ask_harness("evaluator", Begin(seed=self._scenario.seed, shards=self._policy.shards)), Begun
        )
        state, digests = begun.state, begun.digests
        storage = self._storage
        first = None if storage is None else storage.open(state[0], digests[0])
        records = []
        tell = progress or (lambda number: None)
        for number in range(1, self._scenario.workload.rounds + 1):
            tell(number)
            record = self._round(number, state, digests, begun.layout)
            if isinstance(record.verdict, Accepted):
                state, digests = record.verdict.payloads, record.verdict.digests
            records.append(record)
        tell(len(records) + 1)
        last = None if storage is None else self._read_store(len(records) + 1)[0]
        run = Run(
            scenario=self._scenario.metadata.name,
            world=self._world.name,
            variant=self._variant,
            members=self._scenario.members,
            rounds=tuple(records),
            strikes=self._struck.strikes(),
            first=first,
            last=last,
            digest="",
        )
        return dataclasses.replace(run, digest=self._trace.digest), self._trace

    # ---------------------------------------------------------------------------------------------- a round

    def _round(self, number: int, state: tuple[Payload, ...], digests: tuple[str, ...], layout: Layout) -> RoundRecord:
        began = self._since()
        self._trace.add("round began", began, round=number)
        self._struck.begin(number)
        read, value = self._read(number)
        if value is not None:
            state, digests = (value.payload,), (value.digest,)
        started = began if read is None else self._since()
        adversary = Adversary(
            self._world.runtime,
            lies=self._struck.lies(number),
            base=state,
            layout=layout,
            round_number=number,
            seed=self._scenario.seed,
            train_within_s=self._policy.train_share * self._policy.round_within_s,
            policy=self._policy,
        )
        mishaps = Mishaps(
            adversary,
            twice=self._struck.hit_in(number, Duplicate),
            lost=self._struck.hit_in(number, Lose),
            lose=self._world.lose,
        )
        watched = Moments(mishaps, round_number=number, reached=lambda stage: self._struck.reach(number, stage))
        plan = self._plan(number, state, digests, layout)
        verdict = (
            training_round(watched, plan)
            if read is None or value is not None
            else refuse_unread(number, self._scenario.members, read)
        )
        ended = self._since()
        written = self._write(number, verdict)
        self._struck.note(number, adversary, mishaps)
        self._struck.note_losses(number)
        self._struck.end(number)
        self._world.settle(down=tuple(self._struck.down))
        record = self._measure(number, started, ended, verdict, adversary, layout, state)
        if read is not None:
            record = dataclasses.replace(record, began=began, kept=self._keep(number, read, written))
        note_round(self._trace, record)
        return record

    def _read(self, number: int) -> tuple[ReadBack | None, Value | None]:
        if self._storage is None:
            return None, None
        self._struck.reach(number, "read")
        return self._read_store(number)

    def _read_store(self, number: int) -> tuple[ReadBack, Value | None]:
        assert self._storage is not None
        found = self._storage.read(number)
        self._ask_fates(number)
        return found

    def _write(self, number: int, verdict: Verdict) -> Written | None:
        if self._storage is None or not isinstance(verdict, Accepted):
            return None
        self._struck.reach(number, "write")
        return self._storage.write(number, verdict.payloads[0], verdict.digests[0])

    def _keep(self, number: int, read: ReadBack, written: Written | None) -> Kept:
        """Let stores that are back rejoin, now that what befell this round is over."""
        assert self._storage is not None
        down = tuple(store for store in self._scenario.store_hosts if store in self._struck.down)
        out = self._storage.tend(number, silent={*down, *self._struck.stopped})
        self._ask_fates(number)
        return Kept(read=read, written=written, out=(*out, *down))

    def _ask_fates(self, number: int) -> None:
        assert self._damaging is not None
        self._damaging.ask_fates(number, silent={*self._struck.down, *self._struck.stopped})

    def _plan(self, number: int, state: tuple[Payload, ...], digests: tuple[str, ...], layout: Layout) -> RoundPlan:
        work, seats, crowds = self._scenario.workload, place_seats(self._scenario), place_crowds(self._scenario)
        return RoundPlan(
            round=number,
            members=self._scenario.members,
            seats=seats,
            layout=layout,
            state=state,
            state_digests=digests,
            policy=self._policy,
            batch_start=(number - 1) * work.batch,
            batch=work.batch,
            steps=work.steps,
            crowds=crowds,
            pace=self._keeper.pace(seats, crowds),
        )

    def _measure(
        self,
        number: int,
        began: float,
        ended: float,
        verdict: Verdict,
        adversary: Adversary,
        layout: Layout,
        state: tuple[Payload, ...],
    ) -> RoundRecord:
        result = verdict.payloads if isinstance(verdict, Accepted) else state
        honest = tuple(member for member in sorted(adversary.honest) if member not in verdict.missing)
        measured = None
        if isinstance(verdict, Accepted) and honest:
            rows = tuple(adversary.honest[member].payloads for member in honest)
            request = Measure(round=number, layout=layout, honest=rows, result=result)
            reply = self._ask_harness("observer", request)
            is_lost = isinstance(reply, Failed) and reply.lost  # with the machine it was on: nobody can measure then
            measured = None if is_lost else _require(reply, Measured)
        evaluated = _require(self._ask_harness("evaluator", Evaluate(round=number, state=result)), Evaluated)
        return RoundRecord(
            round=number,
            began=began,
            ended=ended,
            deadline=began + self._policy.round_within_s,
            verdict=verdict,
            byzantine=tuple(sorted(adversary.forged)),
            honest=honest,
            measured=measured,
            kappa=kappa_of(verdict, policy=self._policy, members=len(self._scenario.members))
            if isinstance(verdict, Accepted)
            else None,
            accuracy=evaluated.accuracy,
            loss=evaluated.loss,
        )

    def _ask_harness(self, node: str, request: Request) -> Reply:
        """Asked again while Ray loses the message: the harness is no part of what is judged."""
        runtime: Runtime = self._world.runtime
        until = runtime.now() + _HARNESS_WITHIN_S
        reply: Reply = UNANSWERED
        for attempt in range(_HARNESS_ATTEMPTS):
            call = Call(node=node, request=request, attempt=attempt)
            reply = runtime.ask([call], enough=1, until=until)[0].reply
            if reply != UNANSWERED:
                break
        return reply

    # ---------------------------------------------------------------------------------------------- notes

    def _since(self) -> float:
        return self._world.runtime.now() - self._origin

    def _note_fault(self, number: int, action: str, hits: list[str], **more: str) -> None:
        self._trace.add("fault", self._since(), round=number, action=action, hits=hits, **more)

    def _note_store(self, event: str, **fields: Any) -> None:
        self._trace.add(event, self._since(), **fields)

    def _note_span(self, span: Span) -> None:
        self._keeper.note(span)
        self._trace.add(
            "span",
            span.start - self._origin,
            finish=span.finish - self._origin,
            host=span.host,
            node=span.node,
            request=span.request,
            outcome=span.outcome,
        )


def _require(reply: Reply, kind: type) -> Any:
    if not isinstance(reply, kind):
        raise RuntimeFault(what="the harness's own host", problem=f"answered {reply!r}", do="look at its output")
    return reply
