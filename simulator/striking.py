"""When a scenario's faults begin and end, whom they hit, and whether they really took effect.

They are scoped by rounds and stages, so that a live run and a simulated one mean the same thing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from simulator.adversary import Adversary, Lie
from simulator.damaging import Damaging, NoteFault
from simulator.faults import Byzantine, Corrupt, Crash, Damage, Duplicate, Lose, OnMembers, Pause, Remove, Slow
from simulator.mishaps import Mishaps
from simulator.records import Strike
from simulator.scenario import Scenario
from simulator.worlds import World

__all__ = ["Striking"]


class Striking:
    """The faults of a run: their aims, how often each fired; hosts that are to stay ``down`` or are ``stopped`` now."""

    def __init__(
        self, scenario: Scenario, world: World, *, quiet: bool, note: NoteFault, damaging: Damaging | None
    ) -> None:
        self._faults = () if quiet else scenario.faults
        self._hits = [scenario.aim(index) for index in range(len(self._faults))]
        self._fired = [0] * len(self._faults)
        self._scenario = scenario
        self._world = world
        self._note = note
        self._damaging = damaging
        self._lost_on: set[str] = set()
        self._lossy_rounds = 0
        self.down: list[str] = []
        self.stopped: set[str] = set()

    def prepare(self) -> None:
        """Do before the first round what faults need and would take a round's time."""
        if any(isinstance(fault, Lose) for fault in self._faults):
            self._world.prepare_loss()
        self._world.take_unanswered()  # a run before this one

    def strikes(self) -> tuple[Strike, ...]:
        """What became of every fault, and of messages that the network was to lose."""
        strikes = tuple(self._strike_of(index) for index in range(len(self._faults)))
        if loses := self._scenario.network.loses:
            hits = tuple(host for host in self._scenario.hosts if host in self._lost_on)
            strikes += (Strike(fault=None, action=loses, hits=hits, fired=self._lossy_rounds),)
        return strikes

    def _strike_of(self, index: int) -> Strike:
        action, hits, fired = self._faults[index].action, self._hits[index], self._fired[index]
        if self._damaging is None or not isinstance(self._faults[index], Damage):
            return Strike(fault=index, action=action, hits=hits, fired=fired)
        met, unmet = self._damaging.outcome(index)
        return Strike(fault=index, action=action, hits=hits, fired=int(bool(met)), met=met, unmet=unmet)

    # ---------------------------------------------------------------------------------------------- members

    def lies(self, number: int) -> dict[str, Lie]:
        """What members lie in this round."""
        lies: dict[str, Lie] = {}
        for fault, hits in zip(self._faults, self._hits, strict=True):
            if isinstance(fault, Byzantine | Corrupt) and _is_on(fault, number):
                lies |= {member: Lie(attack=fault.attack.name, options=fault.attack.options) for member in hits}
        return lies

    def hit_in(self, number: int, kind: type) -> set[str]:
        """The members that a fault of this kind is aimed at in this round."""
        return {
            member
            for fault, hits in zip(self._faults, self._hits, strict=True)
            if isinstance(fault, OnMembers) and isinstance(fault, kind) and _is_on(fault, number)
            for member in hits
        }

    def note(self, number: int, adversary: Adversary, mishaps: Mishaps) -> None:
        """Count the faults of members that took effect in this round."""
        for index, (fault, hits) in enumerate(zip(self._faults, self._hits, strict=True)):
            more: dict[str, str] = {}
            match fault:
                case Byzantine() | Corrupt():
                    befell, more = set(adversary.forged), {"attack": fault.attack.name}
                case Duplicate():
                    befell = mishaps.doubled
                case Lose():
                    befell = mishaps.bereft
                case _:
                    continue
            struck = [member for member in hits if member in befell]
            if struck and _is_on(fault, number):
                self._fired[index] += 1
                self._note(number, fault.action, struck, **more)

    def note_losses(self, number: int) -> None:
        """Count a round in which messages of the system were lost; what a host that died leaves unanswered was not."""
        unanswered = self._world.take_unanswered() - self._struck_in(number) - self._struck_in(number - 1)
        hits = [host for host in self._scenario.hosts if host in unanswered]
        if hits and self._scenario.network.loses:
            self._lossy_rounds += 1
            self._lost_on.update(hits)
            self._note(number, self._scenario.network.loses, hits)

    def _struck_in(self, number: int) -> set[str]:
        """Hosts that a fault kills in this round."""
        struck: set[str] = set(self.down)
        for fault, hits in zip(self._faults, self._hits, strict=True):
            if isinstance(fault, Crash | Remove) and fault.at.round == number:
                struck.update(self._scenario.hosts_on(*hits) if isinstance(fault, Remove) else hits)
        return struck

    # ---------------------------------------------------------------------------------------------- hosts

    def begin(self, number: int) -> None:
        """Faults of hosts that begin with a round."""
        for index, fault in enumerate(self._faults):
            match fault:
                case Pause(during=during, stage="train") if during.rounds[0] == number:
                    self._strike(index, number, self._pause)
                case Slow(during=during, factor=factor) if during.rounds[0] == number:
                    self._strike(index, number, partial(self._world.slow, factor=factor))
                case _:
                    pass

    def reach(self, number: int, stage: str) -> None:
        """Faults of hosts that begin before the first request of a stage goes out."""
        for index, fault in enumerate(self._faults):
            match fault:
                case Crash(at=at, restart=restart) if (at.round, at.stage) == (number, stage):
                    self._strike(index, number, self._crash)
                    if restart == "never":
                        self.down += self._hits[index]
                case Remove(at=at, restart=restart) if (at.round, at.stage) == (number, stage):
                    self._strike(index, number, self._remove)
                    if restart == "never":
                        self.down += self._scenario.hosts_on(*self._hits[index])
                case Pause(during=during, stage=begins) if (during.rounds[0], begins) == (number, stage) and (
                    begins != "train"  # that is the beginning of the round
                ):
                    self._strike(index, number, self._pause)
                case Damage(at=at) if (at.round, at.stage) == (number, stage):
                    self._damage(index, number)
                case _:
                    pass

    def end(self, number: int) -> None:
        """Faults of hosts that end with a round."""
        for fault, hits in zip(self._faults, self._hits, strict=True):
            match fault:
                case Pause(during=during) if during.rounds[1] == number:
                    for host in hits:
                        if not self._is_held(host, number):
                            self._world.resume(host)
                            self.stopped.discard(host)
                case Slow(during=during) if during.rounds[1] == number:
                    for host in hits:
                        self._world.slow(host, 1.0)
                case _:
                    pass

    def _is_held(self, host: str, number: int) -> bool:
        """Whether a pause of this host goes on beyond this round."""
        return any(
            isinstance(fault, Pause) and fault.during.rounds[0] <= number < fault.during.rounds[1] and host in hits
            for fault, hits in zip(self._faults, self._hits, strict=True)
        )

    def _crash(self, host: str) -> bool:
        self.stopped.discard(host)
        return self._world.crash(host)

    def _remove(self, node: str) -> bool:
        self.stopped -= set(self._scenario.hosts_on(node))
        return self._world.remove(node)

    def _pause(self, host: str) -> bool:
        if paused := self._world.pause(host):
            self.stopped.add(host)
        return paused

    def _damage(self, index: int, number: int) -> None:
        """Damage copies; that counts when they are met. A stopped store would do it later, and nobody would know."""
        assert self._damaging is not None, "a scenario with this fault has a store"
        self._damaging.strike(index, number, [store for store in self._hits[index] if store not in self.stopped])

    def _strike(self, index: int, number: int, act: Callable[[str], bool]) -> None:
        struck = [host for host in self._hits[index] if act(host)]
        if struck:  # a strike on dead hosts only is none
            self._fired[index] += 1
            on = self._scenario.hosts_on(*struck) if isinstance(self._faults[index], Remove) else ()
            self._note(number, self._faults[index].action, [*struck, *on])


def _is_on(fault: OnMembers, number: int) -> bool:
    return fault.during.rounds[0] <= number <= fault.during.rounds[1]
