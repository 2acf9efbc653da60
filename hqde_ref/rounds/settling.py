"""What all rounds share: going round again when a payload is lost, refusals, and moving members out of what is used.

Those that hold whole contributions also share their screening at aggregators.

Source: HQDE clauses 0.4, 0.5, 0.6, 4.9, 6.4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from hqde_ref.core.judging import Gathered
from hqde_ref.core.mapreduce import accuracy_masses
from hqde_ref.core.packing import fingerprint, packed_bytes
from hqde_ref.core.screening import find_too_heavy, find_too_large
from hqde_ref.messages import Claim, Contribution, Layout, Payload, Refused, Screen, Screened, Seen, Verdict
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan

__all__ = [
    "Attempt",
    "masses_of",
    "outlier_reasons",
    "refuse",
    "rows_of",
    "screen_groups",
    "settle",
    "tell_lost",
    "without_heavy",
    "without_large",
    "without_rejected",
]

Attempt = Callable[[Gathered], Verdict | Lost | Unserved]


def settle(plan: RoundPlan, gathered: Gathered, attempt: Attempt) -> Verdict:
    """Try until there is a verdict; each turn goes on without the contributions that were lost meanwhile.

    A lost partial sum or result names nobody: the next turn makes it anew from the leaves that are left, and a refusal
    says which were lost.
    """
    made: dict[str, str] = {}
    for _ in range(len(plan.members) + 1):
        match attempt(gathered):
            case Lost(reasons=reasons):
                gone = {
                    c.worker: reasons[p.key] for c in gathered.contributions for p in c.payloads if p.key in reasons
                }
                given = {p.key for c in gathered.contributions for p in c.payloads}
                made |= {key: reason for key, reason in reasons.items() if key not in given}
                gathered = Gathered(
                    contributions=tuple(c for c in gathered.contributions if c.worker not in gone),
                    rejected=gathered.rejected,
                    missing={**gathered.missing, **gone},
                )
            case Unserved(reason=reason):
                return refuse(plan, gathered, tell_lost(reason, made))
            case Refused(reason=reason) as refused:
                return dataclasses.replace(refused, reason=tell_lost(reason, made))
            case verdict:
                return verdict
    return refuse(plan, gathered, tell_lost("payloads kept getting lost", made))


def tell_lost(reason: str, lost: Mapping[str, str]) -> str:
    """The reason of a refusal, with the payloads that were lost before it, by key, and why."""
    told = [f"{key} ({why})" for key, why in sorted(lost.items())]
    return f"{reason}; lost on the way: {', '.join(told)}" if lost else reason


def refuse(plan: RoundPlan, gathered: Gathered, reason: str) -> Refused:
    """A refusal in which every member that was not rejected is missing."""
    unused = {c.worker: "unused: the round was refused" for c in gathered.contributions}
    return Refused(round=plan.round, reason=reason, rejected=gathered.rejected, missing={**gathered.missing, **unused})


def screen_groups(
    desk: Desk, groups: Sequence[Sequence[Contribution]], *, at: Sequence[str] = ()
) -> dict[str, Seen] | Lost | Unserved:
    """What trusted aggregators find in whole vectors, one request a group; ``at``: whom to ask first."""
    plan = desk.plan
    requests = [
        Screen(
            round=plan.round,
            layout=plan.layout,
            declared=fingerprint(plan.layout),
            claims=tuple(
                Claim(worker=c.worker, payload=c.payloads[0], digest=c.digests[0], layout=c.layout) for c in group
            ),
        )
        for group in groups
    ]
    replies = desk.ask(requests, at=at)
    if isinstance(replies, Lost | Unserved):
        return replies
    seen = {found.worker: found for reply in replies if isinstance(reply, Screened) for found in reply.seen}
    assert len(seen) == sum(map(len, groups)), "nothing goes on that was not looked at"
    return seen


def rows_of(
    contributions: Sequence[Contribution], shard: int, layout: Layout
) -> tuple[tuple[Payload, ...], tuple[int, ...] | None]:
    """The payloads that hold this shard of contributions, and where in them each row stands (see ``Resolve``)."""
    if all(c.row is None for c in contributions):
        return tuple(c.payloads[shard] for c in contributions), None
    starts: dict[str, int] = {}
    arenas: list[Payload] = []
    reached = 0
    for arena in (c.payloads[shard] for c in contributions):
        if arena.key not in starts:
            starts[arena.key] = reached
            reached += arena.nbytes // max(packed_bytes(layout), 1)
            arenas.append(arena)
    return tuple(arenas), tuple(starts[c.payloads[shard].key] + (c.row or 0) for c in contributions)


def outlier_reasons(
    screened: Gathered, kept: Sequence[str], scores: Mapping[str, float], limit: float
) -> dict[str, str]:
    """Why each contribution that was not kept was rejected (clause 4.12)."""
    chosen = frozenset(kept)
    return {
        c.worker: f"outlier: distance {scores[c.worker]:.4g} from the centre, {limit:.4g} is allowed"
        for c in screened.contributions
        if c.worker not in chosen
    }


def masses_of(plan: RoundPlan, contributions: Sequence[Contribution]) -> dict[str, float]:
    """What each contribution weighs in a mean; those without a mass were rejected when they were gathered."""
    if plan.policy.weighting == "accuracy_softmax":
        masses, _ = accuracy_masses({c.worker: c.accuracy for c in contributions})
        return masses
    return {c.worker: c.mass for c in contributions}


def without_rejected(gathered: Gathered, seen: dict[str, Seen]) -> Gathered:
    """Move the contributions that screening refused to the rejected."""
    return _reject(gathered, {worker: found.reason for worker, found in seen.items() if found.reason is not None})


def without_heavy(plan: RoundPlan, gathered: Gathered, tops: Mapping[str, Sequence[float]]) -> Gathered:
    """Move those whose mass cannot be used in a mean to the rejected; the others' round goes on (clause 6.1)."""
    if not gathered.contributions:
        return gathered
    mine = {c.worker: tops[c.worker] for c in gathered.contributions}
    return _reject(gathered, find_too_heavy(mine, masses_of(plan, gathered.contributions)))


def without_large(gathered: Gathered, tops: Mapping[str, Sequence[float]]) -> Gathered:
    """Move those whose values cannot be multiplied to the rejected; for rules that look at distances in shards."""
    return _reject(gathered, find_too_large({c.worker: tops[c.worker] for c in gathered.contributions}))


def _reject(gathered: Gathered, refused: Mapping[str, str]) -> Gathered:
    return Gathered(
        contributions=tuple(c for c in gathered.contributions if c.worker not in refused),
        rejected={**gathered.rejected, **refused},
        missing=gathered.missing,
    )
