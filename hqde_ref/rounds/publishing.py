"""Giving a round's result to everyone, and making it again where it is lost on the way.

Source: HQDE clauses 1.6, 6.1, 6.4 and 6.5. The same contributions give the same digest, so a result that some
members have may be made again for the others: those who have it stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

from hqde_ref.messages import LATE, Accepted, Adopt, Adopted, Call, Failed, Runtime, Verdict, message
from hqde_ref.rounds.asking import LOAD_SHARE, TICK_S, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan

__all__ = ["PUBLISH_SHARE", "publish"]

PUBLISH_SHARE = 0.25  # of what is left of the round once training is over, or once the result has to be made again
_REMAKES_MAX = 3


@message
class _Given:
    """What became of giving a result away.

    Attributes:
        adopted: nodes that have it.
        lost: payloads that could not be had, and why.
        behind: nodes that could not get it since its payload is lost, and why.
    """

    adopted: frozenset[str]
    lost: Mapping[str, str]
    behind: Mapping[str, str]


def publish(
    runtime: Runtime,
    plan: RoundPlan,
    result: Accepted,
    *,
    remake: Callable[[float], Verdict | Lost | Unserved],
    present: frozenset[str],
    until: float,
) -> Accepted | Lost:
    """Give the result to everyone; the verdict names in ``behind`` whom it could not be given.

    Args:
        remake: the same aggregation once more, until that moment.
        present: members that contributed.

    Returns:
        ``Lost`` where the result is lost before anybody has it: the round has to be aggregated anew, with whom it can.
    """
    groups = {crowd.node: crowd.members for crowd in plan.crowds} or {member: (member,) for member in plan.members}
    waited = [node for node, members in groups.items() if not present.isdisjoint(members)]
    given = _give(runtime, plan, result, nodes=groups, waited=waited, attempt=0, until=until)
    if given.lost and not given.adopted:
        return Lost(reasons=given.lost)
    behind = dict(given.behind)
    for attempt in range(1, _REMAKES_MAX + 1):
        now = runtime.now()
        if not behind or now >= until - TICK_S:
            break
        again = remake(now + LOAD_SHARE * (until - now))
        if not isinstance(again, Accepted) or again.digests != result.digests:
            break  # another result must not stand beside the one that some have
        result = again
        given = _give(runtime, plan, result, nodes=behind, waited=list(behind), attempt=attempt, until=until)
        behind = {n: given.behind.get(n, reason) for n, reason in behind.items() if n not in given.adopted}
    told = {member: reason for node, reason in behind.items() for member in groups[node]}
    return dataclasses.replace(result, behind=told)


def _give(
    runtime: Runtime,
    plan: RoundPlan,
    result: Accepted,
    *,
    nodes: Collection[str],
    waited: Collection[str],
    attempt: int,
    until: float,
) -> _Given:
    """Give the result to these; wait only for those who took part, and not long for one of them that hangs.

    What is under way still arrives, before the next round's request. Whoever never gets it says so in the next round.
    One at least is waited for, while time is left to make the result again: if nobody could get it, it is lost.
    """
    now, left = runtime.now(), until - runtime.now()
    adopt = Adopt(round=plan.round, state=result.payloads, digests=result.digests)
    calls = [Call(node=node, request=adopt, attempt=attempt, until=now + LOAD_SHARE * left) for node in nodes]
    lost: dict[str, str] = {}
    behind: dict[str, str] = {}
    adopted: set[str] = set()
    waits = ((len(waited), min(until, now + plan.policy.hedge_after_s)), (1, until - PUBLISH_SHARE * left))
    for enough, wait in waits:
        answers = runtime.ask(calls, enough=enough, until=wait)
        adopted |= {answer.node for answer in answers if isinstance(answer.reply, Adopted)}
        for answer in answers:
            if isinstance(answer.reply, Failed) and answer.reply.lost:
                lost |= dict.fromkeys(answer.reply.lost, answer.reply.reason)
                behind[answer.node] = f"{answer.reply.reason}: {', '.join(answer.reply.lost)}"
        calls = [call for call, answer in zip(calls, answers, strict=True) if answer.reply == LATE]
        if adopted or not calls:
            break
    return _Given(adopted=frozenset(adopted), lost=lost, behind=behind)
