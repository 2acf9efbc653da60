"""The stories of the weight store: write to a quorum, read from a quorum and repair to one before returning.

Source: HQDE clauses 2.6 to 2.8; Attiya, Bar-Noy and Dolev 1995, with many writers (Lynch and Shvartsman 1997).
No vector passes through here, only handles. Deadlines are absolute. Every ask carries a number of its own, so that
no answer that was computed earlier, and is still on its way, is taken for an answer to this one. The numbers are
counted: a clock may read the same twice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from hqde_ref.core.quorums import StorePlan, check_store_plan, newest_version, valid_holders
from hqde_ref.core.screening import CORRUPTED
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    Absent,
    Acknowledged,
    Call,
    Failed,
    Found,
    Get,
    Look,
    Looked,
    NotAcknowledged,
    Payload,
    Put,
    Reply,
    Request,
    Runtime,
    Standing,
    Stored,
    Unavailable,
    Value,
    Version,
)

__all__ = ["Writer", "ask_stores", "fresh_number", "get", "part_of", "put", "scrub"]

ATTEMPTS = 3
_FARTHEST = 1e300
_numbers = itertools.count()  # of asks in this process: calls in flight are its own


class Writer:
    """A writer's clock. Its name must be its own, in this life of it: versions are told apart by it.

    It remembers what it handed out: a write that was not acknowledged may be invisible to the quorum that the next
    one asks, and must not share its version or come after it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._counter = 0

    def next_after(self, seen: Version | None) -> Version:
        """A version newer than ``seen`` and than any this writer made."""
        self._counter = max(self._counter, seen.counter if seen is not None else 0) + 1
        return Version(counter=self._counter, writer=self._name)


def put(
    runtime: Runtime, plan: StorePlan, writer: Writer, key: str, payload: Payload, digest: str, *, until: float
) -> Acknowledged | NotAcknowledged:
    """Write a value; acknowledged once W stores hold it.

    Raises:
        ConfigurationError: for a plan, a key, a payload, a digest or a moment that makes no sense.
    """
    _check_ask(plan, key, until)
    _require_type("payload of the weight store", payload, Payload, do="wrap the vector in a Payload, as its maker does")
    _require_type("digest of the weight store", digest, str, do="pass what hqde_ref.core.packing.digest says of it")
    stores = plan.stores_of(key)
    answers = _look_around(runtime, plan, key, stores, until=part_of(runtime, until, 2))
    looks = _looks(answers)
    if len(looks) < plan.reads:
        reason = f"{len(looks)} of {plan.reads} stores told their version, so nothing was written{_why(answers)}"
        return NotAcknowledged(key=key, version=None, stores=(), reason=reason)
    version = writer.next_after(newest_version(looks.values()))
    request = Put(epoch=plan.epoch, key=key, version=version, payload=payload, digest=digest)
    held: dict[str, Standing] = {}
    holders: tuple[str, ...] = ()
    for attempt in range(ATTEMPTS):
        rest = [store for store in stores if store not in holders]
        soon = part_of(runtime, until, ATTEMPTS - attempt)
        answers = ask_stores(runtime, rest, request, enough=plan.writes - len(holders), until=soon)
        held |= _standings(answers)
        holders = valid_holders(held)
        if len(holders) >= plan.writes:
            return Acknowledged(key=key, version=version, stores=holders)
    reason = f"{len(holders)} of {plan.writes} stores confirmed: the write may or may not survive{_why(answers)}"
    return NotAcknowledged(key=key, version=version, stores=holders, reason=reason)


def _look_around(
    runtime: Runtime, plan: StorePlan, key: str, stores: Sequence[str], *, until: float
) -> dict[str, Reply]:
    """What R_q stores say of this key; those that do not answer are asked again: a message may have been lost."""
    look = Look(epoch=plan.epoch, key=key, whole=False)
    answers: dict[str, Reply] = {}
    for attempt in range(ATTEMPTS):
        told = _looks(answers)
        rest = [store for store in stores if store not in told]
        soon = part_of(runtime, until, ATTEMPTS - attempt)
        answers |= ask_stores(runtime, rest, look, enough=plan.reads - len(told), until=soon)
        if len(_looks(answers)) >= plan.reads:
            break
    return answers


def get(runtime: Runtime, plan: StorePlan, key: str, *, until: float) -> Value | Absent | Unavailable:
    """Read the newest version from R_q stores, and see that W hold it before it is returned.

    Raises:
        ConfigurationError: for a plan, a key or a moment that makes no sense.
    """
    return _read(runtime, plan, key, enough=plan.reads, until=until)


def scrub(runtime: Runtime, plan: StorePlan, key: str, *, until: float) -> Value | Absent | Unavailable:
    """Read as ``get`` does, but wait for all R stores, and so mend every copy that is stale or damaged."""
    return _read(runtime, plan, key, enough=plan.copies, until=until)


def _read(runtime: Runtime, plan: StorePlan, key: str, *, enough: int, until: float) -> Value | Absent | Unavailable:
    _check_ask(plan, key, until)
    outcome: Value | Absent | Unavailable = Unavailable(key=key, reason="no time was left")
    for attempt in range(ATTEMPTS):
        outcome = _read_once(runtime, plan, key, enough=enough, until=part_of(runtime, until, ATTEMPTS - attempt))
        if not isinstance(outcome, Unavailable):
            break
    return outcome


def _check_ask(plan: StorePlan, key: object, until: float) -> None:
    check_store_plan(plan)
    _require_type("key of the weight store", key, str, do="name the value by a text")
    is_number = isinstance(until, int | float) and not isinstance(until, bool)
    if not is_number or not (until == math.inf or abs(until) <= _FARTHEST):  # NaN is neither
        raise ConfigurationError(
            setting="until of the weight store",
            wanted="a moment of the runtime's clock, in seconds",
            got=until,
            do="pass runtime.now() plus the seconds it may take",
        )


def _require_type(setting: str, value: object, wanted: type, *, do: str) -> None:
    if not isinstance(value, wanted):
        raise ConfigurationError(setting=setting, wanted=f"a {wanted.__name__}", got=value, do=do)


def _read_once(
    runtime: Runtime, plan: StorePlan, key: str, *, enough: int, until: float
) -> Value | Absent | Unavailable:
    stores = plan.stores_of(key)
    look = Look(epoch=plan.epoch, key=key, whole=True)
    answers = ask_stores(runtime, stores, look, enough=enough, until=part_of(runtime, until, 2))
    looks = _looks(answers)
    if len(looks) < plan.reads:
        reason = f"{len(looks)} of {plan.reads} stores have a whole copy or none{_why(answers)}"
        return Unavailable(key=key, reason=reason)
    newest = newest_version(looks.values())
    if newest is None:
        return Absent(key=key, reason=f"there is no key {key!r}: {len(looks)} of its {plan.copies} stores say so")
    holders = [store for store, look in looks.items() if look.version == newest]
    found = _fetch(runtime, Get(key=key, least=newest), holders, until=part_of(runtime, until, 2))
    if isinstance(found, Failed):
        return Unavailable(key=key, reason=f"its newest version, {newest.counter}, cannot be had ({found.reason})")
    confirmed, repaired = _repair(runtime, plan, found, answers, until=until)
    if len(confirmed) < plan.writes:
        reason = f"{len(confirmed)} of {plan.writes} stores hold version {found.version.counter}, no other takes it"
        return Unavailable(key=key, reason=reason)
    return Value(key=key, version=found.version, digest=found.digest, payload=found.payload, repaired=repaired)


def _fetch(runtime: Runtime, request: Get, holders: Sequence[str], *, until: float) -> Found | Failed:
    """The value from the first holder that gives it."""
    reply: Found | Failed = Failed(reason="no holder", definite=True)
    for index, store in enumerate(holders):
        soon = part_of(runtime, until, len(holders) - index)
        reply = ask_stores(runtime, [store], request, enough=1, until=soon)[store]
        if isinstance(reply, Found):
            break
    return reply


def _repair(
    runtime: Runtime, plan: StorePlan, found: Found, answers: Mapping[str, Reply], *, until: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Bring what was seen to be behind up to the value found: (who holds it for sure, who was repaired).

    All that were seen to be behind are waited for, for a part of the time; a write quorum is waited for to the end.
    """
    stores, looks = tuple(answers), _looks(answers)
    held = {store: look.by for store, look in looks.items() if look.version == found.version}
    behind = [store for store in stores if store not in held and (store in looks or _is_damaged(answers[store]))]
    request = Put(epoch=plan.epoch, key=found.key, version=found.version, payload=found.payload, digest=found.digest)
    repaired: dict[str, Standing] = {}
    if behind:
        mended = ask_stores(runtime, behind, request, enough=len(behind), until=part_of(runtime, until, 2))
        repaired |= _standings(mended)
    holders = valid_holders(held | repaired)
    if len(holders) < plan.writes:
        rest = [store for store in stores if store not in holders]
        more = ask_stores(runtime, rest, request, enough=plan.writes - len(holders), until=until)
        repaired |= _standings(more)
        holders = valid_holders(held | repaired)
    return holders, tuple(store for store in stores if store in repaired)


# ------------------------------------------------------------------------------------------------ asking


def ask_stores(
    runtime: Runtime, stores: Sequence[str], request: Request, *, enough: int, until: float
) -> dict[str, Reply]:
    """The reply of each store to the same request, asked afresh."""
    fresh = fresh_number()
    calls = [Call(node=store, request=request, attempt=fresh) for store in stores]
    return {answer.node: answer.reply for answer in runtime.ask(calls, enough=enough, until=until)}


def fresh_number() -> int:
    """A number that no other ask has."""
    return next(_numbers)


def part_of(runtime: Runtime, until: float, parts: int) -> float:
    """The end of the first of so many equal parts of the time that is left."""
    now = runtime.now()
    return now + (until - now) / parts


def _looks(answers: Mapping[str, Reply]) -> dict[str, Looked]:
    return {store: reply for store, reply in answers.items() if isinstance(reply, Looked)}


def _standings(answers: Mapping[str, Reply]) -> dict[str, Standing]:
    return {store: reply.by for store, reply in answers.items() if isinstance(reply, Stored)}


def _is_damaged(reply: Reply) -> bool:
    return isinstance(reply, Failed) and reply.reason.startswith(CORRUPTED)


def _why(answers: Mapping[str, Reply]) -> str:
    reasons = [f"{store}: {reply.reason}" for store, reply in answers.items() if isinstance(reply, Failed)]
    return f" ({'; '.join(reasons)})" if reasons else ""
