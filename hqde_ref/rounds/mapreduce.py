"""The MapReduce round: items are mapped to pairs by name, names are dealt to reducers, each reduces its own.

Source: HQDE clauses 2.1 to 2.5. Whatever the numbers of mappers and reducers, and whoever of them dies, the result has
the bits of the flat weighted mean: a partition whose worker failed is done again elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from hqde_ref.core.judging import Gathered
from hqde_ref.core.kernels.exact_sums import choose_grid
from hqde_ref.core.mapreduce import partition_items, partition_names
from hqde_ref.core.packing import is_float
from hqde_ref.messages import (
    Accepted,
    Assemble,
    Contribution,
    Evidence,
    Layout,
    Map,
    Mapped,
    Reduce,
    Seen,
    Verdict,
)
from hqde_ref.rounds.asking import Desk, Lost, Unserved
from hqde_ref.rounds.plans import RoundPlan
from hqde_ref.rounds.settling import masses_of, refuse, screen_groups, settle, without_heavy, without_rejected

__all__ = ["mapreduce_round"]


def mapreduce_round(desk: Desk, gathered: Gathered) -> Verdict:
    """Screen where the items are mapped, map, shuffle, reduce, assemble."""
    return settle(desk.plan, gathered, lambda now: _attempt(desk, now))


def _attempt(desk: Desk, gathered: Gathered) -> Verdict | Lost | Unserved:
    plan = desk.plan
    seen = screen_groups(desk, _deal(gathered.contributions, plan))
    if isinstance(seen, Lost | Unserved):
        return seen
    screened = without_heavy(plan, without_rejected(gathered, seen), {w: found.tops for w, found in seen.items()})
    if not screened.contributions:
        return refuse(plan, screened, f"{plan.policy.rule} needs at least 1 usable contribution, got 0")
    masses = masses_of(plan, screened.contributions)
    parts = partition_names(plan.layout, reducers=plan.policy.reducers)
    mapped = desk.ask([_map(plan, group, parts) for group in _deal(screened.contributions, plan)])
    if isinstance(mapped, Lost | Unserved):
        return mapped
    grid = _grid(plan, screened.contributions, masses, seen)
    requests = [_reduce(plan, mapped, masses, grid, number, part) for number, part in enumerate(parts)]
    reduced = desk.ask(requests)
    if isinstance(reduced, Lost | Unserved):
        return reduced
    request = Assemble(
        round=plan.round, layout=plan.layout, parts=tuple(part.payload for part in reduced), layouts=parts
    )
    whole = desk.ask([request])
    if isinstance(whole, Lost | Unserved):
        return whole
    return Accepted(
        round=plan.round,
        payloads=(whole[0].payload,),
        digests=(whole[0].digest,),
        used=tuple(c.worker for c in screened.contributions),
        rejected=screened.rejected,
        missing=screened.missing,
        scores={},
        limit=0.0,
        evidence=Evidence(rule=plan.policy.rule, faulty_max=0, kappa=None),
    )


def _deal(contributions: Sequence[Contribution], plan: RoundPlan) -> list[list[Contribution]]:
    """The items of each mapper; the others are left out."""
    deal = partition_items(len(contributions), mappers=plan.policy.mappers)
    return [[contributions[index] for index in mine] for mine in deal]


def _map(plan: RoundPlan, group: Sequence[Contribution], parts: tuple[Layout, ...]) -> Map:
    return Map(
        round=plan.round,
        layout=plan.layout,
        items=tuple(c.payloads[0] for c in group),
        workers=tuple(c.worker for c in group),
        parts=parts,
    )


def _grid(
    plan: RoundPlan, contributions: Sequence[Contribution], masses: dict[str, float], seen: dict[str, Seen]
) -> dict[str, int]:
    """One exponent for each floating parameter of the whole layout, by name."""
    exponents = choose_grid([seen[c.worker].tops for c in contributions], [masses[c.worker] for c in contributions])
    names = [entry.name for entry in plan.layout.entries if is_float(entry)]
    return dict(zip(names, exponents, strict=True))


def _reduce(
    plan: RoundPlan, mapped: Sequence[Mapped], masses: dict[str, float], grid: dict[str, int], number: int, part: Layout
) -> Reduce:
    workers = tuple(worker for one in mapped for worker in one.workers)
    return Reduce(
        round=plan.round,
        layout=part,
        arenas=tuple(one.arenas[number] for one in mapped),
        workers=workers,
        masses=tuple(masses[worker] for worker in workers),
        grid=tuple(grid[entry.name] for entry in part.entries if is_float(entry)),
    )
