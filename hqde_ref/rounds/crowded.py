"""The crowded round: a thousand members on a few hosts, each host answering for all of its members at once.

Source: HQDE clauses 0.4, 3.3 to 3.8, 6.1 to 6.5. For a mean a crowd gives one exact partial sum a shard, on the grid
that the story fixes from everybody's magnitudes; for a robust rule one arena a shard with the rows of all its members.
The result has the bits of the round without crowds over the same contributions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hqde_ref.core.judging import Gathered
from hqde_ref.core.kernels.exact_sums import choose_grid
from hqde_ref.core.packing import fingerprint, packed_bytes
from hqde_ref.core.rules import get_rule
from hqde_ref.core.sharding import float_slices, shard_layouts
from hqde_ref.messages import (
    Call,
    Claim,
    Combine,
    Combined,
    Contribution,
    Evidence,
    Failed,
    Screen,
    Subtotal,
    Verdict,
)
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.calling import ask_everyone, got_lost
from hqde_ref.rounds.flat import resolve_screened
from hqde_ref.rounds.mustering import Roll
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.robust import accept_shards, robust_shards
from hqde_ref.rounds.settling import masses_of, refuse, settle, tell_lost, without_heavy

__all__ = ["crowded_round"]

_SUM_SHARE = 0.5  # of the time that is left, before a crowd that does not add up is given up
_LOSSES_MAX = 3


def crowded_round(desk: Desk, roll: Roll) -> Verdict:
    """Partial sums for a mean, arenas for a robust rule; the verdict accounts for every member once."""
    if get_rule(desk.plan.policy.rule).family == "mean":
        return settle(desk.plan, roll.gathered, lambda now: _mean(desk, roll, now))
    return settle(desk.plan, roll.gathered, lambda now: _robust(desk, roll, now))


def _robust(desk: Desk, roll: Roll, gathered: Gathered) -> Verdict | Lost | Unserved:
    bad = _check_arenas(desk, roll, gathered.contributions)
    if isinstance(bad, Lost | Unserved):
        return bad
    refused = {c.worker: bad[p.key] for c in gathered.contributions for p in c.payloads if p.key in bad}
    screened = _without(gathered, rejected=refused, missing={})
    if desk.plan.policy.topology == "sharded":
        return robust_shards(desk, screened, roll.tops)
    return resolve_screened(desk, screened)


def _check_arenas(desk: Desk, roll: Roll, contributions: Iterable[Contribution]) -> dict[str, str] | Lost | Unserved:
    """What reducers find wrong with whole arenas, by their keys: crowds were believed, the way here is not (6.8)."""
    plan = desk.plan
    held = list({c.payloads[0].key: c.payloads for c in contributions}.values())
    if not held:
        return {}
    requests = []
    for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards)):
        size, declared = max(packed_bytes(layout), 1), fingerprint(plan.layout)
        claims = tuple(
            Claim(
                worker=arenas[shard].key,
                payload=arenas[shard],
                digest=roll.digests[arenas[shard].key],
                layout=declared,
                rows=max(arenas[shard].nbytes // size, 1),
            )
            for arenas in held
        )
        requests.append(Screen(round=plan.round, layout=layout, declared=declared, claims=claims))
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    return {seen.worker: seen.reason for reply in replies for seen in reply.seen if seen.reason is not None}


def _without(gathered: Gathered, *, rejected: Mapping[str, str], missing: Mapping[str, str]) -> Gathered:
    return Gathered(
        contributions=tuple(c for c in gathered.contributions if c.worker not in rejected and c.worker not in missing),
        rejected={**gathered.rejected, **rejected},
        missing={**gathered.missing, **missing},
    )


# ------------------------------------------------------------------------------------------------ means


def _mean(desk: Desk, roll: Roll, gathered: Gathered) -> Verdict:
    """Add up crowd by crowd; without one that fails everything is added up anew, on the grid of those left."""
    plan = desk.plan
    gathered = without_heavy(plan, gathered, roll.tops)
    done: dict[tuple[str, int], tuple[Subtotal, Combined]] = {}
    losses = 0
    while gathered.contributions:
        sums = _subtotals(desk, roll, gathered, done)
        if isinstance(sums, dict):
            gathered = _without(gathered, rejected={}, missing=sums)
            continue
        replies = desk.ask(sums)
        match replies:
            case Lost() if losses < _LOSSES_MAX:
                losses += 1
                done.clear()  # a lost partial sum names nobody: the crowds make it again
            case Lost(reasons=reasons):
                return refuse(plan, gathered, tell_lost("payloads kept getting lost", reasons))
            case Unserved(reason=reason):
                return refuse(plan, gathered, f"no aggregator did its work in time ({reason})")
            case _:
                evidence = Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None)
                kept = tuple(c.worker for c in gathered.contributions)
                return accept_shards(plan, gathered, replies, kept=kept, evidence=evidence)
    return refuse(plan, gathered, f"{plan.policy.rule} needs at least 1 usable contribution, got 0")


def _subtotals(
    desk: Desk, roll: Roll, gathered: Gathered, done: dict[tuple[str, int], tuple[Subtotal, Combined]]
) -> list[Combine] | dict[str, str]:
    """What is left to do at the root of every shard, or who is missing since their crowd fails. ``done`` is kept."""
    wanted = _subtotal_requests(desk.plan, roll, gathered)
    todo = {place: request for place, request in wanted.items() if place not in done or done[place][0] != request}
    now = desk.runtime.now()
    until = now + _SUM_SHARE * (desk.until - now)
    calls = {place: Call(node=place[0], request=request) for place, request in todo.items()}
    replies = ask_everyone(desk.runtime, calls, until=until, look_up_s=desk.plan.policy.hedge_after_s)
    done |= {place: (todo[place], reply) for place, reply in replies.items() if isinstance(reply, Combined)}
    failed = {
        crowd: "unreachable" if got_lost(reply) else reply.reason
        for (crowd, _), reply in replies.items()
        if isinstance(reply, Failed)
    }
    if failed:
        gone = [(worker, crowd) for (crowd, _), request in wanted.items() for worker in request.workers]
        return {worker: failed[crowd] for worker, crowd in gone if crowd in failed}
    return _root_requests(desk.plan, {place: done[place] for place in wanted})


def _subtotal_requests(plan: RoundPlan, roll: Roll, gathered: Gathered) -> dict[tuple[str, int], Subtotal]:
    """By crowd and shard; crowds without a usable member are left out."""
    masses = masses_of(plan, gathered.contributions)
    workers = [c.worker for c in gathered.contributions]
    grid = choose_grid([roll.tops[worker] for worker in workers], [masses[worker] for worker in workers])
    parents = float_slices(plan.layout, plan.policy.shards)
    requests = {}
    for crowd in plan.crowds:
        mine = tuple(member for member in crowd.members if member in masses)
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards) if mine else ()):
            requests[crowd.node, shard] = Subtotal(
                round=plan.round,
                shard=shard,
                shards=plan.policy.shards,
                layout=layout,
                whole=plan.layout,
                workers=mine,
                masses=tuple(masses[worker] for worker in mine),
                grid=tuple(grid[number] for number in parents[shard]),
            )
    return requests


def _root_requests(plan: RoundPlan, sums: Mapping[tuple[str, int], tuple[Subtotal, Combined]]) -> list[Combine]:
    requests = []
    for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards)):
        mine = [pair for (_, number), pair in sums.items() if number == shard]
        requests.append(
            Combine(
                round=plan.round,
                layout=layout,
                parts=tuple(reply.payload for _, reply in mine),
                workers=tuple(worker for request, _ in mine for worker in request.workers),
                masses=tuple(mass for request, _ in mine for mass in request.masses),
                grid=mine[0][0].grid,
                leaf=False,
                root=True,
            )
        )
    return requests
