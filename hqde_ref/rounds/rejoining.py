"""The stories that change who serves: a store comes back empty, a new one joins, one leaves.

Source: HQDE clauses 2.7, 2.9. A store is brought up to date from the others before it serves: first it is told the
newest version of each of its keys, below which it will never serve, then it is given the bytes.

One coordinator changes a plan, while nobody writes under the old one. A change is refused while stores catch up, and
then the old plan stands; once stores are told to serve it, the new one does, whoever has not heard of it yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hqde_ref.core.quorums import (
    StorePlan,
    Wanted,
    add_store,
    check_plan_change,
    check_store_plan,
    count_faulty,
    drop_store,
    merge_listings,
    merge_rejoined,
    needed_others,
)
from hqde_ref.messages import (
    Answer,
    Call,
    Copy,
    Expect,
    Expected,
    Failed,
    Found,
    Get,
    Joined,
    List,
    Listed,
    NotJoined,
    Put,
    Report,
    Reported,
    Runtime,
    Serve,
    Serving,
    Standing,
    Stored,
    message,
)
from hqde_ref.rounds.storing import ask_stores, fresh_number, part_of

__all__ = ["change_plan", "move_store", "rejoin"]

PAGE = 500  # keys in a message
BATCH = 32  # vectors on their way at once


@message
class _Caught:
    """A store that may be told to serve."""

    store: str
    incarnation: int
    rejoined: tuple[tuple[str, int], ...]
    keys: int
    behind: tuple[str, ...]


@message
class _Listing:
    """What the other stores hold for one store."""

    copies: dict[str, list[Copy]]
    standings: dict[str, Standing]
    silent: dict[str, str]


def rejoin(runtime: Runtime, plan: StorePlan, store: str, *, until: float) -> Joined | NotJoined:
    """Bring a store up to date and let it serve.

    Raises:
        ConfigurationError: for a plan that makes no sense.
    """
    check_store_plan(plan)
    caught = _catch_up(runtime, plan, store, until=part_of(runtime, until, 2))
    return caught if isinstance(caught, NotJoined) else _serve(runtime, plan, [store], {store: caught}, until=until)[0]


def change_plan(
    runtime: Runtime, before: StorePlan, after: StorePlan, *, until: float
) -> tuple[StorePlan, tuple[Joined | NotJoined, ...]]:
    """Let one store join or leave: all that gain keys are brought up to date, then all serve the new plan.

    Returns:
        The plan that stands now, and what became of the stores. That is ``before`` and one ``NotJoined`` where a store
        could not be brought up to date, otherwise ``after`` and all of its stores: one that is ``NotJoined`` then
        serves as soon as the message reaches it, or when it rejoins ``after``.

    Raises:
        ConfigurationError: for plans that make no sense, or more than one change.
    """
    check_plan_change(before, after)
    added = [store for store in after.stores if store not in before.stores]
    gaining = added or list(after.stores)
    caught: dict[str, _Caught] = {}
    for index, store in enumerate(gaining):
        outcome = _catch_up(runtime, after, store, until=part_of(runtime, until, len(gaining) - index + 1))
        if isinstance(outcome, NotJoined):
            return before, (outcome,)
        caught[store] = outcome
    return after, _serve(runtime, after, after.stores, caught, until=until)


def move_store(
    runtime: Runtime, plan: StorePlan, store: str, domain: str, *, until: float
) -> tuple[StorePlan, tuple[NotJoined, ...]]:
    """Let a store that runs in another failure domain now, leave the plan and join it again from there.

    Returns:
        The plan that stands now, and who does not serve it; nobody if all went well. A move that ends between the two
        changes leaves a plan without the store: let the others that are named rejoin it, then change to ``add_store``.

    Raises:
        ConfigurationError: for a plan that makes no sense, or has no domains.
    """
    without = drop_store(plan, store)
    within = add_store(without, store, domain=domain)
    standing, outcomes = change_plan(runtime, plan, without, until=part_of(runtime, until, 2))
    if not _refusals(outcomes):
        standing, outcomes = change_plan(runtime, without, within, until=until)
    return standing, _refusals(outcomes)


def _refusals(outcomes: Sequence[Joined | NotJoined]) -> tuple[NotJoined, ...]:
    return tuple(outcome for outcome in outcomes if isinstance(outcome, NotJoined))


def _serve(
    runtime: Runtime, plan: StorePlan, stores: Sequence[str], caught: Mapping[str, _Caught], *, until: float
) -> tuple[Joined | NotJoined, ...]:
    """Tell all of them at once, so that one that hangs keeps nobody else waiting; the others held their keys before."""
    fresh = fresh_number()
    calls = [Call(node=store, request=_serve_request(plan, caught.get(store)), attempt=fresh) for store in stores]
    answers = runtime.ask(calls, enough=len(calls), until=until)
    return tuple(_judge_serving(answer, caught.get(answer.node)) for answer in answers)


def _serve_request(plan: StorePlan, caught: _Caught | None) -> Serve:
    if caught is None:
        return Serve(epoch=plan.epoch, incarnation=None, rejoined=())
    return Serve(epoch=plan.epoch, incarnation=caught.incarnation, rejoined=caught.rejoined)


def _judge_serving(answer: Answer, caught: _Caught | None) -> Joined | NotJoined:
    reply = answer.reply
    if not isinstance(reply, Serving):
        return NotJoined(store=answer.node, reason=reply.reason)
    keys, behind = (caught.keys, caught.behind) if caught else (0, ())
    return Joined(store=answer.node, incarnation=reply.by.incarnation, epoch=reply.epoch, keys=keys, behind=behind)


def _catch_up(runtime: Runtime, plan: StorePlan, store: str, *, until: float) -> _Caught | NotJoined:
    reported = ask_stores(runtime, [store], Report(), enough=1, until=part_of(runtime, until, 2))[store]
    if not isinstance(reported, Reported):
        return NotJoined(store=store, reason=reported.reason)
    incarnation = reported.by.incarnation
    listing = _list(runtime, plan, store, incarnation, until=part_of(runtime, until, 2))
    refused = _judge_silence(plan, store, listing)
    if refused is not None:
        return NotJoined(store=store, reason=refused)
    wanted = merge_listings(listing.copies)
    missing = _expect(runtime, store, incarnation, wanted, until=part_of(runtime, until, 2))
    if isinstance(missing, Failed):
        return NotJoined(store=store, reason=missing.reason)
    behind = _transfer(runtime, store, [w for w in wanted if w.copy.key in missing], until=until)
    # Whoever answered is alive in this incarnation: what it said in an earlier one counts no more.
    latest = merge_rejoined(listing.standings.values())
    for by in listing.standings.values():
        latest[by.store] = max(latest.get(by.store, 0), by.incarnation)
    return _Caught(
        store=store, incarnation=incarnation, rejoined=tuple(latest.items()), keys=len(wanted), behind=behind
    )


def _list(runtime: Runtime, plan: StorePlan, store: str, incarnation: int, *, until: float) -> _Listing:
    """What the others hold of this store's keys, page by page."""
    others = [other for other in plan.stores if other != store]
    listing = _Listing(copies={other: [] for other in others}, standings={}, silent={})
    after: dict[str, str | None] = dict.fromkeys(others)
    while after:
        fresh = fresh_number()
        calls = [
            Call(
                node=other,
                request=List(
                    epoch=plan.epoch,
                    store=store,
                    incarnation=incarnation,
                    stores=plan.stores,
                    copies=plan.copies,
                    after=last,
                    limit=PAGE,
                    domains=plan.domains,
                ),
                attempt=fresh,
            )
            for other, last in after.items()
        ]
        for answer in runtime.ask(calls, enough=len(calls), until=until):
            match answer.reply:
                case Listed(by=by, copies=copies, more=more):
                    listing.copies[answer.node] += copies
                    listing.standings[answer.node] = by
                    after[answer.node] = copies[-1].key if more else None
                    if not more:
                        del after[answer.node]
                case failed:
                    listing.silent[answer.node] = failed.reason
                    del after[answer.node]
    return listing


def _judge_silence(plan: StorePlan, store: str, listing: _Listing) -> str | None:
    """Why too few of the others answered, or None.

    A key that nobody lists may be one that only ``store`` and a silent store held, so it is the silent that count:
    those of one failure domain once, where no key has two copies in one.
    """
    spare = plan.copies - 1 - needed_others(plan)
    if spare < 0:
        return (
            f"with copies={plan.copies} and writes={plan.writes} a write may have had its only copy in {store}, "
            f"which came back without it; use at least 2 writes"
        )
    if count_faulty(plan, store, listing.silent) <= spare:
        return None
    reasons = "; ".join(f"{other}: {reason}" for other, reason in listing.silent.items())
    return (
        f"{len(listing.silent)} of the other stores did not list what they hold, {spare} may be silent ({reasons}); "
        f"bring them back, or let one that is gone for good leave the plan"
    )


def _expect(
    runtime: Runtime, store: str, incarnation: int, wanted: Sequence[Wanted], *, until: float
) -> frozenset[str] | Failed:
    """Tell the store what it will have; the keys whose bytes it needs."""
    missing: set[str] = set()
    for start in range(0, len(wanted), PAGE):
        page = tuple(want.copy for want in wanted[start : start + PAGE])
        request = Expect(incarnation=incarnation, copies=page)
        reply = ask_stores(runtime, [store], request, enough=1, until=until)[store]
        if not isinstance(reply, Expected):
            failed: Failed = reply
            return failed
        missing.update(reply.missing)
    return frozenset(missing)


def _transfer(runtime: Runtime, store: str, wanted: Sequence[Wanted], *, until: float) -> tuple[str, ...]:
    """Move the bytes from their holders to the store; the keys for which that failed."""
    behind: list[str] = []
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        found = _fetch_batch(runtime, batch, until=until)
        puts = [
            Put(epoch=None, key=f.key, version=f.version, payload=f.payload, digest=f.digest) for f in found.values()
        ]
        fresh = fresh_number()
        calls = [Call(node=store, request=request, attempt=fresh) for request in puts]
        answers = runtime.ask(calls, enough=len(calls), until=until)
        stored = {answer.reply.key for answer in answers if isinstance(answer.reply, Stored)}
        behind += [want.copy.key for want in batch if want.copy.key not in stored]
    return tuple(behind)


def _fetch_batch(runtime: Runtime, batch: Sequence[Wanted], *, until: float) -> dict[str, Found]:
    """The values, each from the first of its holders that gives it."""
    found: dict[str, Found] = {}
    for turn in range(max(len(want.holders) for want in batch)):
        rest = [want for want in batch if want.copy.key not in found and turn < len(want.holders)]
        fresh = fresh_number()
        calls = [
            Call(node=want.holders[turn], request=Get(key=want.copy.key, least=want.copy.version), attempt=fresh)
            for want in rest
        ]
        for answer in runtime.ask(calls, enough=len(calls), until=part_of(runtime, until, 2)):
            if isinstance(answer.reply, Found):
                found[answer.reply.key] = answer.reply
    return found
