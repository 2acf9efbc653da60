"""How many copies make a write and a read, which version is the newest, and who really holds it.

Source: HQDE clauses 0.7, 2.6 to 2.8; Gifford 1979 (weighted voting); Attiya, Bar-Noy and Dolev 1995 (reads write back).
Pure.

Why a write is not lost. At least W of the R stores of a key held it when it was acknowledged; a read asks R_q with
W + R_q > R, so one of them is among those. A store that lost its memory does not answer until it has seen
``needed_others`` of the other R - 1, and at least W - 1 of those held it. What is left is a write that was under way:
a store confirms, dies, comes back without it, and then the confirmation is counted. ``valid_holders`` refuses it:
whoever helped the store to come back says so with every answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress

from hqde_ref.core.placement import choose_stores
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import Copy, Looked, Standing, Version, message

__all__ = [
    "StorePlan",
    "Wanted",
    "add_store",
    "check_plan_change",
    "check_store_plan",
    "count_faulty",
    "drop_store",
    "merge_listings",
    "merge_rejoined",
    "needed_others",
    "newest_version",
    "plan_store",
    "valid_holders",
]


@message
class StorePlan:
    """Who keeps what.

    Attributes:
        stores: names of the nodes, all distinct.
        copies: R, on distinct stores.
        writes: W stores confirm a write; ``reads``: R_q stores are asked by a read.
        epoch: counts the changes of ``stores``; a store answers only for the plan that it has joined.
        domains: the failure domain of each store, on Ray its node: copies of a key share one only where there are fewer
            domains than copies. None: every store is one of its own. Names have no say, so a domain whose stores all
            move elsewhere together changes nothing.
    """

    stores: tuple[str, ...]
    copies: int = 3
    writes: int = 2
    reads: int = 2
    epoch: int = 0
    domains: tuple[str, ...] | None = None

    def domain_of(self, store: str) -> str:
        return store if self.domains is None else self.domains[self.stores.index(store)]

    def stores_of(self, key: str) -> tuple[str, ...]:
        """The R stores of a key, best first."""
        return choose_stores(key, stores=self.stores, copies=self.copies, domains=self.domains)


def plan_store(stores: Sequence[str], *, copies: int = 3, domains: Sequence[str] | None = None) -> StorePlan:
    """The plan with the smallest majority as write quorum; R = 3 gives W = 2 and R_q = 2 (clause 2.6).

    Args:
        domains: the failure domain of each store; None: each is one of its own.

    Raises:
        ConfigurationError: see ``check_store_plan``.
    """
    writes = copies // 2 + 1
    plan = StorePlan(
        stores=tuple(stores),
        copies=copies,
        writes=writes,
        reads=copies - writes + 1,
        domains=None if domains is None else tuple(domains),
    )
    check_store_plan(plan)
    return plan


def check_store_plan(plan: StorePlan) -> None:
    """Refuse a plan that could not keep clause 2.6 (clause 0.7).

    Raises:
        ConfigurationError: naming the setting.
    """
    if len(set(plan.stores)) != len(plan.stores):
        raise ConfigurationError(setting="stores", wanted="distinct names", got=plan.stores, do="name each store once")
    if plan.domains is not None and len(plan.domains) != len(plan.stores):
        raise ConfigurationError(
            setting="domains", wanted=f"one for each of {len(plan.stores)} stores", got=plan.domains, do="name them all"
        )
    _require(plan.copies, "copies", least=1, most=len(plan.stores), most_is="stores")
    _require(plan.writes, "writes", least=1, most=plan.copies, most_is="copies")
    _require(plan.reads, "reads", least=1, most=plan.copies, most_is="copies")
    if plan.writes + plan.reads <= plan.copies:
        raise ConfigurationError(
            setting="writes + reads",
            wanted=f"above copies={plan.copies}, so that every read meets every write",
            got=plan.writes + plan.reads,
            do="raise writes or reads",
        )


def _require(value: object, setting: str, *, least: int, most: int, most_is: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(
            setting=setting,
            wanted=f"an integer from {least} to the number of {most_is} ({most})",
            got=value,
            do=f"lower it or add {most_is}",
        )


def check_plan_change(before: StorePlan, after: StorePlan) -> None:
    """One store joins or leaves at a time: then a key's new stores are its old ones but for one.

    Raises:
        ConfigurationError: for any other change.
    """
    check_store_plan(before)
    check_store_plan(after)
    moved = sorted(set(before.stores) ^ set(after.stores))
    shifted = [s for s in before.stores if s in after.stores and before.domain_of(s) != after.domain_of(s)]
    if shifted:
        raise ConfigurationError(
            setting=f"the domain of {shifted[0]}",
            wanted=repr(before.domain_of(shifted[0])),
            got=after.domain_of(shifted[0]),
            do="let the store leave the plan, and join it again from its new domain",
        )
    same = (before.copies, before.writes, before.reads) == (after.copies, after.writes, after.reads)
    if len(moved) != 1 or not same or after.epoch != before.epoch + 1:
        raise ConfigurationError(
            setting="a changed plan",
            wanted=f"one store more or less, the same quorums, and epoch {before.epoch + 1}",
            got=after,
            do="change one store at a time",
        )


def needed_others(plan: StorePlan) -> int:
    """How many of a key's R - 1 other stores a store must have seen before it serves the key.

    R - W + 1 of them meet every write it may have lost; a majority of them also meets every earlier return of
    another store, so that ``valid_holders`` is told of it. More than R - 1 means that it can never be sure (W = 1).
    """
    return max(plan.copies - plan.writes + 1, (plan.copies - 1) // 2 + 1)


def count_faulty(plan: StorePlan, store: str, silent: Iterable[str]) -> int:
    """The most of a key's R - 1 other stores that can be among the silent, for any key of ``store``.

    With as many domains as copies a key has at most one store in a domain, and none beside ``store``: a machine that
    carries many stores counts once.
    """
    if len({plan.domain_of(other) for other in plan.stores}) < plan.copies:
        return len(set(silent))
    return len({plan.domain_of(other) for other in silent} - {plan.domain_of(store)})


def add_store(plan: StorePlan, store: str, *, domain: str | None = None) -> StorePlan:
    """The plan with one store more, which has to be brought up to date: see ``rounds.rejoining.change_plan``.

    Raises:
        ConfigurationError: a plan with domains needs that of the new store.
    """
    if (domain is None) != (plan.domains is None):
        raise ConfigurationError(
            setting=f"domain of {store}",
            wanted="none" if plan.domains is None else "a name, as the others have",
            got=domain,
            do="say for all stores where they are, or for none",
        )
    domains = None if plan.domains is None or domain is None else (*plan.domains, domain)
    return dataclasses.replace(plan, stores=(*plan.stores, store), domains=domains, epoch=plan.epoch + 1)


def drop_store(plan: StorePlan, store: str) -> StorePlan:
    """The plan with this store left out."""
    keep = [other != store for other in plan.stores]
    domains = None if plan.domains is None else tuple(compress(plan.domains, keep))
    return dataclasses.replace(plan, stores=tuple(compress(plan.stores, keep)), domains=domains, epoch=plan.epoch + 1)


def newest_version(looks: Iterable[Looked]) -> Version | None:
    """The newest version that any of these stores holds; None if none holds the key."""
    return max((look.version for look in looks if look.version is not None), default=None)


def valid_holders(standings: Mapping[str, Standing]) -> tuple[str, ...]:
    """The stores whose confirmation counts: none of the others has seen them come back empty since."""
    latest = merge_rejoined(standings.values())
    return tuple(store for store, by in standings.items() if by.incarnation >= latest.get(store, 0))


def merge_rejoined(standings: Iterable[Standing]) -> dict[str, int]:
    """The latest incarnation in which each store was seen to come back."""
    latest: dict[str, int] = {}
    for by in standings:
        for store, incarnation in by.rejoined:
            latest[store] = max(latest.get(store, 0), incarnation)
    return latest


@message
class Wanted:
    """A copy that a returning store needs, and who holds it."""

    copy: Copy
    holders: tuple[str, ...]


def merge_listings(listings: Mapping[str, Iterable[Copy]]) -> tuple[Wanted, ...]:
    """The newest copy of every key that was listed, by key."""
    newest: dict[str, Wanted] = {}
    for store, copies in listings.items():
        for copy in copies:
            now = newest.get(copy.key)
            if now is None or copy.version > now.copy.version:
                newest[copy.key] = Wanted(copy=copy, holders=(store,))
            elif copy.version == now.copy.version:
                newest[copy.key] = Wanted(copy=now.copy, holders=(*now.holders, store))
    return tuple(newest[key] for key in sorted(newest))
