"""Bugs planted into the weight store, each of which a test must catch. A bug is a function of ``monkeypatch``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from hqde_ref.core import placement, quorums
from hqde_ref.messages import Answer, Call, Failed, Looked, Put, Runtime, Serve, Standing, Stored, Version
from hqde_ref.nodes import store as nodes
from hqde_ref.rounds import rejoining, storing
from simulator import fragile
from tests import stores

Patch = pytest.MonkeyPatch


def reads_do_not_repair(patch: Patch) -> None:
    """The newest version is returned as it was seen, on however few stores."""
    patch.setattr(storing, "_repair", lambda runtime, plan, found, answers, *, until: (plan.stores[: plan.writes], ()))


def serves_before_it_is_up_to_date(patch: Patch) -> None:
    """A store that came back empty answers at once."""
    patch.setattr(fragile.FragileSpec, "build", lambda self, number: fragile.Fragile(self.name, number, epoch=0))


def acknowledges_at_one(patch: Patch) -> None:
    """W = 1 beside R_q = 2: reads need not meet writes."""
    _quorums(patch, writes=1, reads=2)


def _quorums(patch: Patch, *, writes: int, reads: int) -> None:
    for module in (storing, rejoining):
        patch.setattr(module, "check_store_plan", lambda plan: None)
    patch.setattr(rejoining, "needed_others", lambda plan: 2)

    def plan(names: Iterable[str], copies: int, domains: object = None) -> quorums.StorePlan:
        return quorums.StorePlan(stores=tuple(names), copies=copies, writes=writes, reads=reads)

    patch.setattr(stores, "plan_store", plan)


def last_to_arrive_wins(patch: Patch) -> None:
    """A store keeps whatever came last."""

    def keep(self: Any, request: Put) -> None:
        content = request.payload.ref.clone()
        self._held[request.key] = nodes._Held(version=request.version, digest=request.digest, content=content)

    patch.setattr(nodes.Store, "_keep", keep)


def returns_the_first_version_seen(patch: Patch) -> None:
    """A read believes the store that answered first."""

    def first(looks: Iterable[Looked]) -> Version | None:
        return next((look.version for look in looks if look.version is not None), None)

    patch.setattr(storing, "newest_version", first)


def reads_from_one(patch: Patch) -> None:
    """R_q = 1 beside W = 2: reads need not meet writes."""
    _quorums(patch, writes=2, reads=1)


def does_not_check_digests(patch: Patch) -> None:
    """A damaged copy is served."""
    patch.setattr(nodes._Held, "is_whole", lambda self: self.content is not None)


def forgets_its_clock(patch: Patch) -> None:
    """Versions are counted from what a quorum shows, and a write that failed shows nothing."""

    def forgetful(self: storing.Writer, seen: Version | None) -> Version:
        return Version(counter=(seen.counter if seen else 0) + 1, writer=self._name)

    patch.setattr(storing.Writer, "next_after", forgetful)


def an_older_value_mends_a_damaged_copy(patch: Patch) -> None:
    """The floor of a damaged copy is dropped."""
    keep = nodes.Store._keep

    def mend(self: nodes.Store, request: Put) -> Failed | None:
        held = self._held.get(request.key)
        if held is not None and not held.is_whole():
            del self._held[request.key]
        return keep(self, request)

    patch.setattr(nodes.Store, "_keep", mend)


def is_content_with_one_other(patch: Patch) -> None:
    """A returning store asks one other store, which may have missed the write."""
    patch.setattr(rejoining, "needed_others", lambda plan: 1)


def serves_in_another_incarnation(patch: Patch) -> None:
    """What was brought up to date has died since, and its successor is told to serve."""
    serve = nodes.Store._serve

    def careless(self: nodes.Store, request: Serve) -> Any:
        return serve(self, dataclasses.replace(request, incarnation=self._incarnation))

    patch.setattr(nodes.Store, "_serve", careless)


def counts_a_confirmation_of_an_earlier_life(patch: Patch) -> None:
    """Whoever confirmed counts, although it came back without the write."""

    def all_of_them(standings: Mapping[str, Standing]) -> tuple[str, ...]:
        return tuple(standings)

    patch.setattr(storing, "valid_holders", all_of_them)


def counts_a_store_that_does_not_serve(patch: Patch) -> None:
    """A store that came back confirms writes before it knows who else came back."""
    put = nodes.Store._put

    def eager(self: nodes.Store, request: Put) -> Any:
        reply = put(self, request)
        if isinstance(reply, Failed) and reply.reason.startswith(nodes.NOT_SERVING) and self._epoch is None:
            return Stored(by=self._standing(), key=request.key, version=request.version)
        return reply

    patch.setattr(nodes.Store, "_put", eager)


def joins_an_earlier_look(patch: Patch) -> None:
    """An answer that was on its way when the read began counts for it."""

    def stale(runtime: Runtime, names: Iterable[str], request: Any, *, enough: int, until: float) -> dict[str, Any]:
        calls = [Call(node=name, request=request) for name in names]
        answers: tuple[Answer, ...] = runtime.ask(calls, enough=enough, until=until)
        return {answer.node: answer.reply for answer in answers}

    patch.setattr(storing, "ask_stores", stale)


def numbers_asks_by_the_clock(patch: Patch) -> None:
    """Asks in the same tick of the clock have the same number."""
    patch.setattr(storing, "fresh_number", lambda: 0)


def ignores_domains(patch: Patch) -> None:
    """Copies of a key may lie on one machine."""

    def anywhere(key: str, *, stores: Sequence[str], copies: int, domains: object = None) -> tuple[str, ...]:
        return placement.choose_stores(key, stores=stores, copies=copies)

    for module in (quorums, nodes):
        patch.setattr(module, "choose_stores", anywhere)


def counts_silent_stores(patch: Patch) -> None:
    """A machine with two stores counts as two, so that neither of them ever comes back."""
    patch.setattr(rejoining, "count_faulty", lambda plan, store, silent: len(silent))


def counts_nobody_as_silent(patch: Patch) -> None:
    """A store comes back whoever answers."""
    patch.setattr(rejoining, "count_faulty", lambda plan, store, silent: 0)


def trusts_the_sender(patch: Patch) -> None:
    """A payload is kept whatever its digest."""
    check = nodes.digest

    def put(self: nodes.Store, request: Put) -> Any:
        return original(self, dataclasses.replace(request, digest=check(request.payload.ref)))

    original = nodes.Store._put
    patch.setattr(nodes.Store, "_put", put)
