"""The sharded round: coordinates are cut over reducers, so that no node holds all of everything, and 3f < n is kept.

Source: HQDE clauses 3.8, 2.3 and 4.1 to 4.9. Means and coordinate-wise rules are the flat ones bit for bit; rules that
see distances work on Gram matrices that add up (``hqde_ref.core.isometry``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from hqde_ref.core.judging import Gathered
from hqde_ref.core.kernels.exact_sums import choose_grid
from hqde_ref.core.packing import fingerprint
from hqde_ref.core.rules import get_rule
from hqde_ref.core.sharding import float_slices, shard_layouts
from hqde_ref.messages import Claim, Combine, Contribution, Evidence, Screen, Screened, Seen, Verdict
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.robust import accept_shards, robust_shards
from hqde_ref.rounds.settling import masses_of, refuse, settle, without_heavy, without_rejected

__all__ = ["Tops", "grids_of", "sharded_round"]

Tops: TypeAlias = Mapping[str, tuple[tuple[float, ...], ...]]  # of each member: by shard, by float block of the shard


def sharded_round(desk: Desk, gathered: Gathered) -> Verdict:
    """Screen every shard, judge the members by all their shards, combine shard by shard."""
    return settle(desk.plan, gathered, lambda now: _attempt(desk, now))


def _attempt(desk: Desk, gathered: Gathered) -> Verdict | Lost | Unserved:
    found = _screen(desk, gathered)
    if isinstance(found, Lost | Unserved):
        return found
    seen, tops = found
    screened = without_rejected(gathered, seen)
    whole = {worker: tuple(top for shard in mine for top in shard) for worker, mine in tops.items()}
    if get_rule(desk.plan.policy.rule).family == "mean":
        return _mean(desk, without_heavy(desk.plan, screened, whole), tops)
    return robust_shards(desk, screened, whole)


# ------------------------------------------------------------------------------------------------ screening


def _screen(desk: Desk, gathered: Gathered) -> tuple[dict[str, Seen], Tops] | Lost | Unserved:
    """One finding a member, by its first bad shard, and its magnitudes by shard."""
    plan = desk.plan
    requests = [
        Screen(
            round=plan.round,
            layout=layout,
            declared=fingerprint(plan.layout),
            claims=tuple(
                Claim(worker=c.worker, payload=c.payloads[shard], digest=c.digests[shard], layout=c.layout)
                for c in gathered.contributions
            ),
        )
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards))
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    looks = [{found.worker: found for found in reply.seen} for reply in replies if isinstance(reply, Screened)]
    seen: dict[str, Seen] = {}
    for c in gathered.contributions:
        mine = [look[c.worker] for look in looks]
        seen[c.worker] = next((found for found in mine if found.reason is not None), mine[0])
    tops = {c.worker: tuple(look[c.worker].tops for look in looks) for c in gathered.contributions}
    return seen, tops


# ------------------------------------------------------------------------------------------------ means


def grids_of(plan: RoundPlan, contributions: Sequence[Contribution], tops: Tops) -> tuple[tuple[int, ...], ...]:
    """The grid of every shard; all parts of one entry of the whole layout have the same."""
    parents = float_slices(plan.layout, plan.policy.shards)
    entries = 1 + max((number for shard in parents for number in shard), default=-1)
    whole = []
    for c in contributions:
        largest = [0.0] * entries
        for mine, numbers in zip(tops[c.worker], parents, strict=True):
            for top, number in zip(mine, numbers, strict=True):
                largest[number] = max(largest[number], top)
        whole.append(tuple(largest))
    masses = masses_of(plan, contributions)
    grid = choose_grid(whole, [masses[c.worker] for c in contributions])
    return tuple(tuple(grid[number] for number in numbers) for numbers in parents)


def _mean(desk: Desk, screened: Gathered, tops: Tops) -> Verdict | Lost | Unserved:
    """The exact mean of every shard."""
    plan, contributions = desk.plan, screened.contributions
    if not contributions:
        return refuse(plan, screened, f"{plan.policy.rule} needs at least 1 usable contribution, got 0")
    workers, masses = tuple(c.worker for c in contributions), masses_of(plan, contributions)
    grids = grids_of(plan, contributions, tops)
    requests = [
        Combine(
            round=plan.round,
            layout=layout,
            parts=tuple(c.payloads[shard] for c in contributions),
            workers=workers,
            masses=tuple(masses[worker] for worker in workers),
            grid=grids[shard],
            leaf=True,
            root=True,
        )
        for shard, layout in enumerate(shard_layouts(plan.layout, plan.policy.shards))
    ]
    replies = desk.ask(requests)
    if isinstance(replies, Lost | Unserved):
        return replies
    evidence = Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None)
    return accept_shards(plan, screened, replies, kept=workers, evidence=evidence)
