"""Small cases, all of them: faults at each stage of writes and reads of one key that three stores hold.

The story of a case: put A; put B; put C in some; read; read; heal everything; read. Faults strike just before a stage.
What was seen is judged by a few lines that know no quorum: an acknowledged write is what every later read gives, unless
a later one replaced it; a read never goes back behind an earlier one; nothing is ever unknown; and with faults in one
store only every operation succeeds.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from hqde_ref.messages import (
    Absent,
    Acknowledged,
    Answer,
    Call,
    Failed,
    Get,
    Joined,
    Look,
    NotAcknowledged,
    Payload,
    Put,
    Serve,
    Unavailable,
    Value,
)
from hqde_ref.rounds import rejoining, storing
from simulator.fragile import Damage, FragileSpec
from tests.stores import Fleet, Struck, content_of, payload_of

__all__ = ["DOUBLE", "LATE", "PARTIAL", "SINGLE", "THRICE", "Case", "Strike", "run_case", "violations"]

KEY = "layer/0"
STORES = ("s0", "s1", "s2")
WITHIN_S = 3.0
_UNREACHABLE = Failed(reason="unreachable", definite=False)


@dataclasses.dataclass(frozen=True)
class Strike:
    """A fault.

    ``kill`` and ``pause`` last. Until the operation is over, ``cut`` loses what is sent to the store, ``mute`` what it
    answers, and ``delay`` keeps back what is sent until the stage ``late``, after all writes. ``damage`` flips a bit.
    ``empty`` restarts the store without its memory; ``reborn`` brings it up to date then; ``relapse`` does so after it
    has answered, and before the other stores are asked.
    """

    stage: str
    kind: str
    store: str

    def __str__(self) -> str:
        return f"{self.kind} {self.store} at {self.stage}"


@dataclasses.dataclass(frozen=True)
class Case:
    """Faults, and whether C is written after B."""

    strikes: tuple[Strike, ...]
    again: bool = False

    def __str__(self) -> str:
        return ("with C: " if self.again else "") + (", ".join(map(str, self.strikes)) or "no faults")


def _strikes(stages: Sequence[str], kinds: Sequence[str]) -> list[Strike]:
    return [Strike(*where) for where in itertools.product(stages, kinds, STORES)]


def _cut_in(stages: Sequence[str]) -> list[tuple[Strike, ...]]:
    """Nobody, or one store, is cut off in these stages."""
    return [(), *(tuple(Strike(stage, "cut", store) for stage in stages) for store in STORES)]


_ALL = _strikes(
    ("write look", "write put", "read look", "read get", "read repair", "read"),
    ("kill", "pause", "cut", "damage", "empty", "reborn"),
)
_PAIRS = list(itertools.permutations(STORES, 2))


def _writes(*kinds: str) -> list[tuple[Strike, ...]]:
    """Each store takes part in the write of B, or one of these befalls it."""
    return [
        tuple(Strike("write put", kind, store) for kind, store in zip(fates, STORES, strict=True) if kind)
        for fates in itertools.product(("", *kinds), repeat=3)
        if fates.count("relapse") <= 1
    ]


_RELAPSES = [
    (Strike("write put", "relapse", one), Strike("relapsed", "empty", two), Strike("write put", "cut", three))
    for one, two, three in itertools.permutations(STORES)
]
_READS = [
    (),
    *((s,) for s in _strikes(("read look", "read repair", "read"), ("kill", "cut", "damage", "empty"))),
    *((Strike("read look", "kill", one), Strike("read look", "reborn", two)) for one, two in _PAIRS),
    *(
        (Strike("read look", "reborn", two), Strike("serve", "empty", two), Strike("read look", "cut", one))
        for one, two in _PAIRS
    ),
]
SINGLE = [Case((strike,)) for strike in _ALL]
DOUBLE = [Case(pair) for pair in itertools.combinations(_ALL, 2)]
PARTIAL = [
    Case((*write, *read)) for write, read in itertools.product([*_writes("cut", "mute", "relapse"), *_RELAPSES], _READS)
]
THRICE = [
    Case((*write, *more, *read), again=True)
    for write, more, read in itertools.product(
        _writes("cut", "mute"), _cut_in(("again look", "again put")), _cut_in(("read look",))
    )
]
LATE = [
    Case((*write, *more, Strike("late", "damage", broken), *read), again=True)
    for write, more, broken, read in itertools.product(
        [write for write in _writes("delay", "cut") if any(strike.kind == "delay" for strike in write)],
        _cut_in(("again look", "again put")),
        STORES,
        _cut_in(("read look",)),
    )
]
_STAGES = {
    ("write", Look): "write look",
    ("write", Put): "write put",
    ("again", Look): "again look",
    ("again", Put): "again put",
    ("read", Look): "read look",
    ("read", Get): "read get",
    ("read", Put): "read repair",
}


class _Run:
    """A case under way; itself the runtime that the stories see."""

    def __init__(self, case: Case, spec: Callable[..., FragileSpec]) -> None:
        self.fleet = Fleet(3, spec=spec)
        self.left = list(case.strikes)
        self.operation = ""
        self.cut: set[str] = set()
        self.mute: set[str] = set()
        self.slow: set[str] = set()
        self.on_its_way: list[Call] = []
        self.writer = storing.Writer("w")

    # ---------------------------------------------------------------------------------------------- Runtime

    def now(self) -> float:
        return self.fleet.world.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self.fleet.world.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        stage = _STAGES.get((self.operation, type(calls[0].request)), "") if calls else ""
        relapses = self.reach(stage)
        replies = {store: Answer(node=store, reply=_UNREACHABLE) for store in self.cut}
        for call in calls:
            if call.node in self.slow:
                self.on_its_way.append(call)
                replies[call.node] = Answer(node=call.node, reply=_UNREACHABLE)
            elif call.node in self.mute:
                self.fleet.world.ask([call], enough=1, until=until)
                replies[call.node] = Answer(node=call.node, reply=_UNREACHABLE)
            elif call.node in relapses:
                replies |= {a.node: a for a in self.fleet.world.ask([call], enough=1, until=until)}
                self.strike("reborn", call.node)
                enough -= 1
        self.reach("relapsed" if relapses else "")
        rest = [call for call in calls if call.node not in replies]
        replies |= {answer.node: answer for answer in self.fleet.world.ask(rest, enough=max(enough, 0), until=until)}
        return tuple(replies[call.node] for call in calls)

    # ---------------------------------------------------------------------------------------------- faults

    def reach(self, stage: str) -> list[str]:
        """Strike what is aimed at this stage, once; who is to relapse."""
        now = [strike for strike in self.left if strike.stage == stage]
        self.left = [strike for strike in self.left if strike.stage != stage]
        for strike in now:
            self.strike(strike.kind, strike.store)
        return [strike.store for strike in now if strike.kind == "relapse"]

    def strike(self, kind: str, store: str) -> None:
        match kind:
            case "kill":
                self.fleet.kill(store)
            case "pause":
                self.fleet.pause(store)
            case "cut":
                self.cut.add(store)
            case "mute":
                self.mute.add(store)
            case "delay":
                self.slow.add(store)
            case "damage":
                self.fleet.tell(store, Damage(key=KEY))
            case "empty":
                self.fleet.restart(store)
            case "reborn":
                self.fleet.restart(store)
                self.rejoin(store)

    def rejoin(self, store: str) -> None:
        """Another coordinator does this: it is not cut off from anyone."""

        def watch(_: int, calls: Sequence[Call]) -> None:
            if calls and isinstance(calls[0].request, Serve):
                self.reach("serve")

        world = Struck(self.fleet.world, watch)
        if isinstance(rejoining.rejoin(world, self.fleet.plan, store, until=world.now() + WITHIN_S), Joined):
            self.fleet.empty.discard(store)

    def heal(self) -> None:
        fleet = self.fleet
        for store in sorted(fleet.stopped):
            fleet.resume(store)
        for store in sorted(fleet.down):
            fleet.restart(store)
        for _ in range(2):
            for store in sorted(fleet.empty):
                self.rejoin(store)

    # ---------------------------------------------------------------------------------------------- operations

    def put(self, text: str, *, operation: str = "") -> Acknowledged | NotAcknowledged:
        self.operation = operation
        payload, code = payload_of(text)
        outcome = storing.put(self, self.fleet.plan, self.writer, KEY, payload, code, until=self.now() + WITHIN_S)
        self._end()
        return outcome

    def get(self, *, operation: str = "") -> Value | Absent | Unavailable:
        self.operation = operation
        outcome = storing.get(self, self.fleet.plan, KEY, until=self.now() + WITHIN_S)
        self._end()
        return outcome

    def _end(self) -> None:
        self.operation = ""
        for lost in (self.cut, self.mute, self.slow):
            lost.clear()

    def deliver(self) -> None:
        """What was delayed arrives."""
        self.reach("late")
        self.fleet.world.ask(self.on_its_way, enough=len(self.on_its_way), until=self.now() + WITHIN_S)


def run_case(case: Case, spec: Callable[..., FragileSpec] = FragileSpec) -> Iterator[str]:
    """What this case did that it must not do."""
    run = _Run(case, spec)
    alone = len({strike.store for strike in case.strikes}) <= 1
    assert isinstance(run.put("A"), Acknowledged)
    possible = ["A"]  # oldest first
    for text, operation in (("B", "write"), ("C", "again"))[: 2 if case.again else 1]:
        outcome = run.put(text, operation=operation)
        if isinstance(outcome, Acknowledged):
            possible = [text]
        else:
            possible += [text] if outcome.version is not None else []
            if alone:
                yield f"faults in one store stopped the write of {text}: {outcome.reason}"
    run.deliver()
    reads = [run.get(operation="read")]
    run.reach("read")
    reads.append(run.get())
    run.heal()
    reads.append(run.get())
    for number, read in enumerate(reads, start=1):
        match read:
            case Absent():
                yield f"read {number}: the key is unknown"
            case Unavailable(reason=reason):
                if alone:
                    yield f"read {number}: faults in one store stopped it: {reason}"
            case Value(payload=payload):
                text = content_of(payload.ref)
                if text not in possible:
                    yield f"read {number} gave {text!r}, possible were {possible}"
                else:
                    possible = possible[possible.index(text) :]


def violations(cases: Sequence[Case], spec: Callable[..., FragileSpec] = FragileSpec) -> Iterator[str]:
    """What these cases did that they must not do, with the case in words."""
    gc.disable()  # a world is full of cycles, and small: collecting after every few costs as much as running them
    try:
        for number, case in enumerate(cases):
            for problem in run_case(case, spec):
                yield f"{case}: {problem}"
            if number % 500 == 499:
                gc.collect()
    finally:
        gc.enable()
