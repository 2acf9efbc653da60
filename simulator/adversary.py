"""What stands between a story and its runtime: liars that rewrite contributions, faults that wait for their moment.

Both decorate the runtime, so neither the story nor the nodes know. Colluders see what the honest sent: every member is
asked honestly first (a liar on a dead host stays silent), then the attacker's node forges from handles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from hqde_ref.messages import (
    Adopt,
    Answer,
    Blend,
    Call,
    Combine,
    Contribution,
    Forge,
    Layout,
    Map,
    PartialGram,
    Payload,
    Reduce,
    Resolve,
    Runtime,
    Screen,
    Train,
    Weigh,
    message,
)
from simulator.streams import seed_of

__all__ = ["Adversary", "Lie", "Moments", "stage_of"]

_HONEST_SHARE = 0.8  # of an ask's time, if honest members keep the adversary waiting


@message
class Lie:
    """What one member does in this round: an attack by name with its options."""

    attack: str
    options: Mapping[str, float]


class Adversary:
    """A runtime in which some members lie. ``told`` collects what became of it."""

    def __init__(
        self,
        inner: Runtime,
        *,
        lies: Mapping[str, Lie],
        base: tuple[Payload, ...],
        layout: Layout,
        round_number: int,
        seed: int,
    ) -> None:
        self._inner = inner
        self._lies = lies
        self._base = base
        self._layout = layout
        self._round = round_number
        self._seed = seed
        self.honest: dict[str, Contribution] = {}
        self.forged: dict[str, Contribution] = {}

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        if not any(isinstance(call.request, Train) for call in calls):
            return self._inner.ask(calls, enough=enough, until=until)
        asked = self._inner.now()
        lying = any(call.node in self._lies for call in calls)
        wait = asked + _HONEST_SHARE * (until - asked) if lying else until
        answers = self._inner.ask(calls, enough=enough, until=wait)
        for answer in answers:
            if isinstance(answer.reply, Contribution) and answer.node not in self._lies:
                self.honest[answer.node] = answer.reply
        return self._replace(answers, until) if lying else answers

    def _replace(self, answers: tuple[Answer, ...], until: float) -> tuple[Answer, ...]:
        known = tuple(self.honest[member].payloads for member in sorted(self.honest))
        victims = [a for a in answers if a.node in self._lies and isinstance(a.reply, Contribution)]
        if not victims or not known:
            return answers
        calls = [Call(node="attacker", request=self._forge(answer.node, answer.reply, known)) for answer in victims]
        replies = self._inner.ask(calls, enough=len(calls), until=until)
        forged = {victim.node: reply.reply for victim, reply in zip(victims, replies, strict=True)}
        self.forged |= {member: reply for member, reply in forged.items() if isinstance(reply, Contribution)}
        return tuple(Answer(node=a.node, reply=forged.get(a.node, a.reply)) for a in answers)

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
            colluders=sum(other == lie for other in self._lies.values()),
        )


def stage_of(calls: Sequence[Call], *, round_number: int) -> str | None:
    """The stage of a round that an ask belongs to."""
    for call in calls:
        match call.request:
            case Train():
                return "train"
            case Screen():
                return "screen"
            case Combine() | Resolve() | Map() | Reduce() | PartialGram() | Weigh() | Blend():
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
