"""The judge of the weight store: what is read is what was last acknowledged, and nobody claims more than there is.

Source: HQDE clauses 2.6 and 2.7. It looks at the digests of bytes as the harness saw them, at who confirmed, and at
what the scenario's faults did to whom. Of placement and quorums it knows the numbers in the scenario alone. Where
messages get lost, nobody is blamed for silence: a round with such a problem is excused, which is said.
"""

from __future__ import annotations

import dataclasses

from hqde_ref.messages import Accepted
from simulator.faults import Crash, Damage, Pause, Remove, Slow
from simulator.opinions import Broken, Excused, Opinion
from simulator.records import Kept, ReadBack, RoundRecord, Run, Written
from simulator.scenario import Scenario
from simulator.scenario_store import WeightStore

__all__ = ["find_unkept"]

_SURE = ("read", "train", "write")  # stages that every round reaches that has a result; read is reached by all


def find_unkept(scenario: Scenario, run: Run, record: RoundRecord) -> Opinion:
    """What was wrong with the store in this round; what a read after the last round shows is laid to that round."""
    settings, first = scenario.system.store, run.first
    assert settings is not None, "a scenario that names the law has a store"
    assert first is not None, "a run with a store begins with a write"
    ledger = _Ledger(settings=settings, lossy=scenario.network.is_lossy, writes=[(0, first)])
    problems: list[Opinion] = []
    for past in run.rounds:
        problems = _judge(scenario, ledger, past)
        if past.round == record.round:
            break
    if record.round == run.rounds[-1].round and run.last is not None:
        lost = ledger.find_lost(run.last, ledger.weak)
        problems.append(dataclasses.replace(lost, why=f"afterwards: {lost.why}") if lost is not None else None)
    told = [problem for problem in problems if problem is not None]
    return next((problem for problem in told if isinstance(problem, Broken)), told[0] if told else None)


def _judge(scenario: Scenario, ledger: _Ledger, record: RoundRecord) -> list[Opinion]:
    """What is wrong in a round, which is then entered into the ledger."""
    kept = record.kept
    assert kept is not None, "a run with a store has a record of it for every round"
    weak = ledger.weak | _struck(scenario, record.round) | _damaged(scenario, record.round)
    problems: list[Opinion] = [ledger.find_lost(kept.read, weak)]
    if kept.read.content is None and isinstance(record.verdict, Accepted):
        problems.append(Broken(why="it was accepted, although there was no state to start from"))
    ledger.enter_read(kept.read)
    if kept.written is not None:
        ledger.whole.add(record.round)
        silent = _silenced(scenario, record.round, ledger.whole)
        problems += [_find_boast(scenario, kept.written, silent), ledger.find_needless(kept.written, weak)]
        ledger.enter_write(record.round, kept.written)
    problems.append(_find_outcast(scenario, record.round, kept, before=ledger.out))
    mended = kept.written is not None and kept.written.acknowledged  # a newer version goes over what was damaged
    ledger.damaged = frozenset() if mended else ledger.damaged | _damaged(scenario, record.round)
    ledger.out = frozenset(kept.out)
    return problems


@dataclasses.dataclass
class _Ledger:
    """What was written, and which of it a read may give: the newest acknowledged, or one after it that was not."""

    settings: WeightStore
    lossy: bool
    writes: list[tuple[int, Written]]
    floor: int = 0  # the first of ``writes`` that may be read
    damaged: frozenset[str] = frozenset()
    out: frozenset[str] = frozenset()
    whole: set[int] = dataclasses.field(default_factory=set)  # rounds that came as far as writing

    @property
    def weak(self) -> frozenset[str]:
        """Stores that serve nothing, or perhaps nothing whole."""
        return self.damaged | self.out

    @property
    def spare(self) -> int:
        """How many of them there may be: a write first asks for versions, and a read repairs to a write quorum."""
        return self.settings.copies - max(self.settings.writes, self.settings.reads)

    def _place(self, read: ReadBack) -> int | None:
        """Which write was read."""
        found = (read.version, read.content)
        places = (at for at, (_, written) in enumerate(self.writes) if (written.version, written.content) == found)
        return next(places, None)

    def find_lost(self, read: ReadBack, weak: frozenset[str]) -> Broken | Excused | None:
        if read.content is None:
            return self._find_excess(f"nothing was read ({read.reason})", weak)
        place = self._place(read)
        newest = self.writes[self.floor][0]
        if place is None:
            what = f"what was read is nothing that was written: version {read.version}"
            return Broken(why=f"{what}, not the bytes of {_of(newest)}")
        if place >= self.floor:
            return None
        return Broken(why=f"{_of(self.writes[place][0])} was read, which is older than {_of(newest)}")

    def find_needless(self, written: Written, weak: frozenset[str]) -> Broken | Excused | None:
        if written.acknowledged:
            return None
        return self._find_excess(f"the write was not acknowledged ({written.reason})", weak)

    def _find_excess(self, what: str, weak: frozenset[str]) -> Broken | Excused | None:
        if len(weak) > self.spare:
            return None
        struck = f"only {', '.join(sorted(weak))} may fail" if weak else "no store may fail"
        return _blame(what, f"{struck}, and {self.spare} are to be put up with", lossy=self.lossy)

    def enter_read(self, read: ReadBack) -> None:
        """What was read once stays."""
        self.floor = max(self.floor, self._place(read) or 0)

    def enter_write(self, number: int, written: Written) -> None:
        if written.version is not None:
            self.writes.append((number, written))
            self.floor = len(self.writes) - 1 if written.acknowledged else self.floor


def _blame(what: str, although: str, *, lossy: bool) -> Broken | Excused:
    """Silence, and why there should have been none, unless messages get lost."""
    return Excused(why=what, excuse="messages get lost") if lossy else Broken(why=f"{what}, although {although}")


def _of(number: int) -> str:
    return f"the result of round {number}" if number else "the first state"


def _find_boast(scenario: Scenario, written: Written, silent: frozenset[str]) -> Broken | None:
    """A write that is called acknowledged without a quorum that can have confirmed it."""
    if not written.acknowledged:
        return None
    settings = scenario.system.store
    assert settings is not None
    able = set(scenario.store_hosts) - silent
    confirmed = sorted(set(written.stores) & able)
    if len(confirmed) >= settings.writes and written.version is not None:
        return None
    false = sorted(set(written.stores) - able)
    beside = f"; {', '.join(false)} cannot have" if false else ""
    return Broken(
        why=f"the write is called acknowledged, but {len(confirmed)} of {settings.writes} stores confirmed it "
        f"({', '.join(confirmed) or 'none'}{beside})"
    )


def _find_outcast(scenario: Scenario, number: int, kept: Kept, *, before: frozenset[str]) -> Opinion:
    """A store that does not serve again, although all others do; or one that nothing has struck.

    Args:
        before: stores that did not serve after the round before.
    """
    settings, lossy = scenario.system.store, scenario.network.is_lossy
    assert settings is not None
    busy = _struck(scenario, number + 1, since=number)
    if not kept.out or busy or settings.writes < 2:  # with W = 1 nobody can know what only it had
        return None
    if len(kept.out) == 1:
        return _blame(f"{kept.out[0]} does not serve again", "every other store does", lossy=lossy)
    unprovoked = sorted(set(kept.out) - _struck(scenario, number) - before)
    return _blame(f"{unprovoked[0]} does not serve", "no fault has struck it", lossy=lossy) if unprovoked else None


# ------------------------------------------------------------------------------------------------ what faults did


def _struck(scenario: Scenario, number: int, *, since: int | None = None) -> frozenset[str]:
    """Stores that a fault may keep silent in a round.

    Args:
        since: leave out faults that begin after this round.
    """
    hosts: set[str] = set()
    for index, fault in enumerate(scenario.faults):
        match fault:
            case Crash(at=at, restart=restart) | Remove(at=at, restart=restart):
                first, on = at.round, at.round == number or (restart == "never" and at.round < number)
            case Pause(during=during) | Slow(during=during):
                first, on = during.rounds[0], during.rounds[0] <= number <= during.rounds[1]
            case _:
                continue
        on = on and (since is None or first <= since)
        hosts |= set(scenario.struck_hosts(index)) if on else set()
    return frozenset(hosts) & frozenset(scenario.store_hosts)


def _silenced(scenario: Scenario, number: int, whole: set[int]) -> frozenset[str]:
    """Stores that cannot answer when this round is written: a fault has struck them for sure, and is on."""
    hosts: set[str] = set()
    for index, fault in enumerate(scenario.faults):
        hits = set(scenario.struck_hosts(index))
        match fault:
            case Crash(at=at, restart=restart) | Remove(at=at, restart=restart) if at.round == number or (
                restart == "never" and at.round < number
            ):
                first, stage = at.round, at.stage
            case Pause(during=during, stage=stage) if during.rounds[0] <= number <= during.rounds[1]:
                first = during.rounds[0]
                hits -= _killed(scenario, first, number)  # what came back runs
            case _:
                continue
        if stage == "read" or (stage in _SURE and first in whole):
            hosts |= hits
    return frozenset(hosts)


def _killed(scenario: Scenario, first: int, before: int) -> set[str]:
    """Hosts that a fault kills from round ``first`` on, before the round ``before``."""
    crashes = [(i, fault.at.round) for i, fault in enumerate(scenario.faults) if isinstance(fault, Crash | Remove)]
    return {host for index, number in crashes if first <= number < before for host in scenario.struck_hosts(index)}


def _damaged(scenario: Scenario, number: int) -> frozenset[str]:
    """Stores whose copy a fault damages in a round."""
    hits = [scenario.aim(i) for i, f in enumerate(scenario.faults) if isinstance(f, Damage) and f.at.round == number]
    return frozenset(store for stores in hits for store in stores)
