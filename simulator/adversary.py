"""What stands between a story and its runtime: liars that rewrite contributions, faults that wait for their moment.

Both decorate the runtime, so neither the story nor the nodes know. Colluders see what the honest sent: every member is
asked honestly first (a liar on a dead host stays silent), then the attacker's node forges from handles.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from hqde_ref.messages import (
    LATE,
    UNANSWERED,
    AddGrams,
    Adopt,
    Answer,
    Arrange,
    Blend,
    Call,
    Combine,
    Condense,
    Contribution,
    Finish,
    Forge,
    Layout,
    Map,
    Muster,
    PartialGram,
    Payload,
    Policy,
    Reduce,
    Reply,
    Resolve,
    Runtime,
    Screen,
    Subtotal,
    Train,
    Weigh,
    message,
)
from simulator.poisoned import LABEL_FLIP, poison
from simulator.streams import seed_of

__all__ = ["Adversary", "Lie", "Moments", "stage_of"]

_HONEST_SHARE = 0.8  # of the time for training, if honest members keep the adversary waiting


@message
class Lie:
    """What one member does in this round: an attack by name with its options."""

    attack: str
    options: Mapping[str, float]


def _key(lie: Lie) -> tuple[object, ...]:
    return (lie.attack, *sorted(lie.options.items()))


class Adversary:
    """A runtime in which some members lie, and know the policy: ``honest`` and ``forged`` collect what was sent."""

    def __init__(
        self,
        inner: Runtime,
        *,
        lies: Mapping[str, Lie],
        base: tuple[Payload, ...],
        layout: Layout,
        round_number: int,
        seed: int,
        train_within_s: float,
        policy: Policy | None = None,
    ) -> None:
        self._inner = inner
        self._patience = inner.now() + _HONEST_SHARE * train_within_s
        self._victims: dict[str, Contribution] = {}
        self._poisoned = frozenset(member for member, lie in lies.items() if lie.attack == LABEL_FLIP)
        self._lies = {member: lie for member, lie in lies.items() if member not in self._poisoned}
        self._colluders = Counter(map(_key, lies.values()))
        self._base = base
        self._layout = layout
        self._round = round_number
        self._seed = seed
        self._policy = policy
        self.honest: dict[str, Contribution] = {}
        self.forged: dict[str, Contribution] = {}

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        if not any(isinstance(call.request, Train) for call in calls):
            return self._inner.ask(calls, enough=enough, until=until)
        wait = min(until, self._patience) if self._lies and not self._is_out_of_patience() else until
        forwarded = [self._poison(call) for call in calls if call.node not in self._victims]
        answers = self._inner.ask(forwarded, enough=len(forwarded), until=wait)
        replies: dict[str, Reply] = {answer.node: answer.reply for answer in answers}
        sent = {node: reply for node, reply in replies.items() if isinstance(reply, Contribution)}
        self.honest |= {node: reply for node, reply in sent.items() if not self._is_liar(node)}
        self.forged |= {node: reply for node, reply in sent.items() if node in self._poisoned}
        self._victims |= {node: reply for node, reply in sent.items() if node in self._lies}
        # Whose message was lost is asked again, so that is no more final than a member that is late.
        waiting = any(reply in (LATE, UNANSWERED) and not self._is_liar(node) for node, reply in replies.items())
        replies |= self._lie([call.node for call in calls], until, waiting=waiting)
        return tuple(Answer(node=call.node, reply=replies[call.node]) for call in calls)

    def _is_liar(self, member: str) -> bool:
        return member in self._lies or member in self._poisoned

    def _poison(self, call: Call) -> Call:
        """A poisoned member lies by what it trains on; it sends what comes of that."""
        if call.node in self._poisoned and isinstance(call.request, Train):
            return dataclasses.replace(call, request=poison(call.request))
        return call

    def _lie(self, asked: Sequence[str], until: float, *, waiting: bool) -> dict[str, Reply]:
        """What liars answer. While honest members are still at work they keep silent, since they want to know all."""
        victims = [node for node in asked if node in self._victims]
        if not victims:
            return {}
        if waiting and not self._is_out_of_patience():
            return dict.fromkeys(victims, LATE)
        if not self.honest:
            return {node: self._victims[node] for node in victims}
        known = tuple(self.honest[member].payloads for member in sorted(self.honest))
        calls = [Call(node="attacker", request=self._forge(node, self._victims[node], known)) for node in victims]
        replies = self._inner.ask(calls, enough=len(calls), until=until)
        forged = {node: answer.reply for node, answer in zip(victims, replies, strict=True)}
        self.forged |= {member: reply for member, reply in forged.items() if isinstance(reply, Contribution)}
        return forged

    def _is_out_of_patience(self) -> bool:
        # A clock in nanoseconds may read a little less than the moment it waited for.
        return self._inner.now() >= self._patience - 1e-6

    def _forge(self, member: str, template: Contribution, known: tuple[tuple[Payload, ...], ...]) -> Forge:
        lie = self._lies[member]
        return Forge(
            round=self._round,
            worker=member,
            attack=lie.attack,
            options=lie.options,
            known=known,
            base=self._base,
            layout=self._layout,
            seed=seed_of(self._seed, "attack", lie.attack, self._round),
            template=template,
            colluders=self._colluders[_key(lie)],
            policy=self._policy,
        )


def stage_of(calls: Sequence[Call], *, round_number: int) -> str | None:
    """The stage of a round that an ask belongs to."""
    for call in calls:
        match call.request:
            case Train() | Muster():
                return "train"
            case Screen():
                return "screen"
            case Combine() | Condense() | Subtotal() | Resolve() | Map():
                return "combine"
            case Reduce():
                return "reduce"
            case PartialGram() | AddGrams() | Weigh() | Blend() | Arrange() | Finish():
                return "combine"
            case Adopt(round=number) if number == round_number:
                return "publish"
    return None


class Moments:
    """A runtime that calls ``reached(stage)`` once, before the first request of each stage of the round goes out."""

    def __init__(self, inner: Runtime, *, round_number: int, reached: Callable[[str], None]) -> None:
        self._inner = inner
        self._round = round_number
        self._reached = reached
        self._seen: list[str] = []

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        stage = stage_of(calls, round_number=self._round)
        if stage is not None and stage not in self._seen:
            self._seen.append(stage)
            self._reached(stage)
        return self._inner.ask(calls, enough=enough, until=until)
