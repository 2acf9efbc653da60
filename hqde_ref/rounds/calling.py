"""Calling everybody up: members, or crowds of them, to train from the published state.

Source: HQDE clauses 1.4, 1.6, 6.1, 6.2. A restarted host has lost the state: it says so, is given it, and is asked
again. One that hangs must not keep the story from that, so it looks up now and then; what is still out is joined, not
repeated.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from hqde_ref.messages import LATE, UNKNOWN, Adopt, Call, Failed, Mustered, Reply, Runtime
from hqde_ref.rounds.asking import ATTEMPTS, TICK_S

__all__ = ["ask_everyone", "call_up", "got_lost"]

Place = TypeVar("Place")

GIFTS_MAX = 5  # a member that says it lacks the state although it answered so many is given up


def call_up(
    runtime: Runtime,
    calls: Mapping[str, Call],
    *,
    adopt: Adopt,
    until: float,
    look_up_s: float,
) -> dict[str, Reply]:
    """The last reply of every node, by its name; where one lacks the state to the end, with why it was not given it.

    Args:
        calls: one for each node. A node is asked again when it lacked the state, or when a message was lost on the way.
        look_up_s: how long to wait at most before those that did answer are looked after.
    """
    replies: dict[str, Reply] = dict.fromkeys(calls, LATE)
    given: dict[str, Reply] = {}
    times: Counter[str] = Counter()
    out = dict(calls)
    while out and runtime.now() < until - TICK_S:
        replies |= _ask_out(runtime, out, until, look_up_s)
        may = [node for node, call in out.items() if call.attempt + 1 < ATTEMPTS]
        behind = [node for node in may if _is_behind(replies[node]) and times[node] < GIFTS_MAX]
        if behind:
            gifts = {node: Call(node=node, request=adopt, until=until) for node in behind}
            given |= _ask_out(runtime, gifts, until, look_up_s)
            times.update(node for node in behind if given[node] != LATE and not got_lost(given[node]))
        again = {node: out[node] for node in may if node in behind or got_lost(replies[node])}
        # Where the state itself is still on its way, which may be lost and take long to be missed, no attempt is spent.
        silent = {n: call for n, call in out.items() if replies[n] == LATE or (n in behind and given[n] == LATE)}
        out = _once_more(again) | silent
    return {node: _explain(reply, given.get(node)) for node, reply in replies.items()}


def ask_everyone(
    runtime: Runtime, calls: Mapping[Place, Call], *, until: float, look_up_s: float
) -> dict[Place, Reply]:
    """The last reply to every call; a message that was lost on the way is sent again, also while another node hangs.

    Args:
        look_up_s: how long to wait at most before what got lost is sent again.
    """
    replies: dict[Place, Reply] = dict.fromkeys(calls, LATE)
    out = dict(calls)
    while out and runtime.now() < until - TICK_S:
        replies |= _ask_out(runtime, out, until, look_up_s)
        silent = {place: call for place, call in out.items() if replies[place] == LATE}  # joined, not repeated
        lost = {p: call for p, call in out.items() if got_lost(replies[p]) and call.attempt + 1 < ATTEMPTS}
        out = _once_more(lost) | silent
    return replies


def _ask_out(runtime: Runtime, out: Mapping[Place, Call], until: float, look_up_s: float) -> dict[Place, Reply]:
    """What has come by the next look-up; clocks tick, so that a shorter pause than a tick would never end."""
    pause = min(until, runtime.now() + max(look_up_s, TICK_S))
    answers = runtime.ask(list(out.values()), enough=len(out), until=pause)
    return {place: answer.reply for place, answer in zip(out, answers, strict=True)}


def _once_more(calls: Mapping[Place, Call]) -> dict[Place, Call]:
    return {place: dataclasses.replace(call, attempt=call.attempt + 1) for place, call in calls.items()}


def _is_behind(reply: Reply) -> bool:
    """Whether a member, or one of a crowd's, says that it lacks the state."""
    match reply:
        case Failed(reason=reason):
            return reason == UNKNOWN
        case Mustered(missing=missing):
            return UNKNOWN in missing.values()
    return False


def _explain(reply: Reply, given: Reply) -> Reply:
    """The reply with why the state was not adopted, if it is for that and there is a reason."""
    if not isinstance(given, Failed) or not _is_behind(reply):
        return reply
    why = f"{UNKNOWN} ({': '.join((given.reason, *given.lost))})"
    match reply:
        case Mustered(missing=missing):
            told = {member: why if reason == UNKNOWN else reason for member, reason in missing.items()}
            return dataclasses.replace(reply, missing=told)
        case _:
            return dataclasses.replace(reply, reason=why)


def got_lost(reply: Reply) -> bool:
    """Whether the request or its answer was lost on the way. It may have been done; done again, it counts once."""
    return isinstance(reply, Failed) and not reply.definite and reply != LATE
