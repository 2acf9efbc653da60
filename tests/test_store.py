"""The weight store without its stories: where keys are kept, how many copies suffice, and what one store does."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hqde_ref.core.placement import choose_stores
from hqde_ref.core.quorums import StorePlan, check_store_plan, plan_store, valid_holders
from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import (
    Failed,
    Found,
    Get,
    List,
    Listed,
    Look,
    Looked,
    Put,
    Standing,
    Stored,
    Version,
)
from hqde_ref.nodes.store import Store, StoreSpec
from hqde_ref.rounds.rejoining import rejoin
from hqde_ref.rounds.storing import Writer, get, put
from hqde_ref.runtimes.local import Local
from simulator.fragile import Damage
from tests.stores import Fleet, content_of, payload_of

_FIRST = Version(counter=1, writer="w")
_SECOND = Version(counter=2, writer="w")


# ------------------------------------------------------------------------------------------------ placement


@given(key=st.text(), count=st.integers(1, 12), data=st.data())
def test_any_string_is_placed_on_distinct_stores_whatever_their_order(
    key: str, count: int, data: st.DataObject
) -> None:
    names = [f"s{index}" for index in range(count)]
    copies = data.draw(st.integers(1, count))
    chosen = choose_stores(key, stores=names, copies=copies)
    assert len(set(chosen)) == copies
    assert chosen == choose_stores(key, stores=data.draw(st.permutations(names)), copies=copies)


def test_placement_is_the_same_in_every_process_and_version() -> None:
    names = [f"s{index}" for index in range(5)]
    placed = {key: choose_stores(key, stores=names, copies=3) for key in ("", "a/b", "ключ")}
    assert placed == {"": ("s4", "s2", "s0"), "a/b": ("s3", "s2", "s1"), "ключ": ("s0", "s2", "s3")}


def test_keys_are_spread_evenly() -> None:
    """Each of N stores keeps R/N of the keys, within five standard deviations of a fair draw."""
    names, keys = [f"s{index}" for index in range(10)], 6_000
    load = Counter(store for key in range(keys) for store in choose_stores(f"layer/{key}", stores=names, copies=3))
    fair = keys * 3 / 10
    assert max(abs(count - fair) for count in load.values()) < 5 * (fair * 0.7) ** 0.5


def test_a_store_that_joins_takes_its_share_and_moves_nothing_else() -> None:
    names = [f"s{index}" for index in range(9)]
    moved = 0
    for number in range(3_000):
        before = set(choose_stores(f"k{number}", stores=names, copies=3))
        after = set(choose_stores(f"k{number}", stores=[*names, "new"], copies=3))
        assert after == before or (after - before == {"new"} and len(before - after) == 1)
        moved += after != before
    assert abs(moved - 3_000 * 3 / 10) < 5 * (3_000 * 0.3 * 0.7) ** 0.5


# ------------------------------------------------------------------------------------------------ quorums


def test_the_documents_three_copies_give_two_writes_and_two_reads() -> None:
    plan = plan_store(("a", "b", "c"), copies=3)
    assert (plan.writes, plan.reads) == (2, 2)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (
            StorePlan(stores=("a", "b")),
            "copies must be an integer from 1 to the number of stores (2), got 3; lower it or add stores.",
        ),
        (
            StorePlan(stores=("a", "b", "c"), writes=1, reads=2),
            "writes + reads must be above copies=3, so that every read meets every write, got 3; "
            "raise writes or reads.",
        ),
        (
            StorePlan(stores=("a", "b", "a")),
            "stores must be distinct names, got ('a', 'b', 'a'); name each store once.",
        ),
        (StorePlan(stores=("a", "b", "c"), writes=4), "writes must be an integer from 1 to the number of copies (3)"),
        (StorePlan(stores=("a", "b", "c"), copies=0), "copies must be an integer from 1"),
        (StorePlan(stores=(), copies=1), "copies must be an integer from 1 to the number of stores (0), got 1"),
        (StorePlan(stores=("a", "b", "c"), reads=True), "reads must be an integer"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_before_anyone_is_asked(plan: StorePlan, sentence: str) -> None:
    payload, code = payload_of("x")
    for act in (
        lambda: check_store_plan(plan),
        lambda: put(Local([]), plan, Writer("w"), "k", payload, code, until=0),
        lambda: get(Local([]), plan, "k", until=0),
        lambda: rejoin(Local([]), plan, "a", until=0),
    ):
        with pytest.raises(ConfigurationError) as caught:
            act()
        assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"key": 3}, "key of the weight store must be a str, got 3; name the value by a text."),
        ({"payload": torch.ones(2)}, "payload of the weight store must be a Payload, got tensor([1., 1.]); wrap the"),
        (
            {"digest": None},
            "digest of the weight store must be a str, got None; pass what hqde_ref.core.packing.digest",
        ),
        (
            {"until": math.nan},
            "until of the weight store must be a moment of the runtime's clock, in seconds, got nan;",
        ),
        (
            {"until": -math.inf},
            "until of the weight store must be a moment of the runtime's clock, in seconds, got -inf",
        ),
        ({"until": 10**400}, "until of the weight store must be a moment of the runtime's clock, in seconds, got 1000"),
        (
            {"until": "soon"},
            "until of the weight store must be a moment of the runtime's clock, in seconds, got 'soon';",
        ),
    ],
)
def test_what_is_no_key_payload_digest_or_moment_is_refused_before_anyone_is_asked(
    changed: dict[str, object], sentence: str
) -> None:
    payload, code = payload_of("x")
    given: dict[str, Any] = {"key": "k", "payload": payload, "digest": code, "until": 0.0} | changed
    plan = StorePlan(stores=("a", "b", "c"))
    acts = [lambda: put(Local([]), plan, Writer("w"), **given)]
    if not changed.keys() & {"payload", "digest"}:
        acts.append(lambda: get(Local([]), plan, given["key"], until=given["until"]))
    for act in acts:
        with pytest.raises(ConfigurationError) as caught:
            act()
        assert str(caught.value).startswith(sentence)


def test_a_confirmation_from_before_a_loss_of_memory_counts_no_more() -> None:
    old = Standing(store="a", incarnation=0, rejoined=())
    new = Standing(store="a", incarnation=1, rejoined=())
    helper = Standing(store="b", incarnation=0, rejoined=(("a", 1),))
    assert valid_holders({"a": old, "b": helper}) == ("b",)
    assert valid_holders({"a": new, "b": helper}) == ("a", "b")


# ------------------------------------------------------------------------------------------------ one store


def _put(text: str, version: Version, *, key: str = "k", code: str | None = None) -> Put:
    payload, found = payload_of(text)
    return Put(epoch=0, key=key, version=version, payload=payload, digest=code or found)


def _held(store: Store, *, key: str = "k") -> str:
    found = store.perform(Get(key=key, least=Version(counter=0, writer="")))
    assert isinstance(found, Found), found
    return content_of(found.payload.ref)


def test_putting_twice_changes_nothing_and_an_older_version_never_replaces_a_newer_one() -> None:
    store = Store("s", 0, epoch=0)
    for request in (_put("new", _SECOND), _put("new", _SECOND), _put("old", _FIRST)):
        assert isinstance(store.perform(request), Stored)
        assert _held(store) == "new"


def test_a_store_keeps_its_own_copy_and_leaves_the_payload_alone() -> None:
    store = Store("s", 0, epoch=0)
    request = _put("mine", _FIRST)
    before = request.payload.ref.clone()
    store.perform(request)
    assert torch.equal(request.payload.ref, before)
    request.payload.ref.zero_()
    assert _held(store) == "mine"


def test_a_payload_that_does_not_fit_its_digest_is_refused() -> None:
    store = Store("s", 0, epoch=0)
    reply = store.perform(_put("x", _FIRST, code="0" * 32))
    assert isinstance(reply, Failed)
    assert reply.reason.startswith("corrupted: the payload of key 'k' has digest ")
    assert store.perform(Look(epoch=0, key="k", whole=True)) == Looked(
        by=Standing(store="s", incarnation=0, rejoined=()), version=None, digest=None
    )


def test_two_values_of_one_version_are_refused_as_a_conflict() -> None:
    store = Store("s", 0, epoch=0)
    store.perform(_put("x", _FIRST))
    assert store.perform(_put("y", _FIRST)) == Failed(
        reason="conflict: key 'k' has another value of version 1 by 'w'; give every writer a name of its own",
        definite=True,
    )


def test_a_damaged_copy_says_so_and_is_mended_by_the_same_or_a_newer_version_only() -> None:
    fleet = Fleet(3)
    store = fleet.world._hosts["s0"].nodes["s0"]
    store.perform(_put("new", _SECOND))
    fleet.tell("s0", Damage(key="k"))
    damaged = Failed(reason="corrupted: the copy of key 'k' in s0 is damaged", definite=True)
    assert store.perform(Look(epoch=0, key="k", whole=True)) == damaged
    assert store.perform(Get(key="k", least=_FIRST)) == damaged
    assert store.perform(_put("old", _FIRST)) == damaged
    assert isinstance(store.perform(_put("new", _SECOND)), Stored)
    assert isinstance(store.perform(Look(epoch=0, key="k", whole=True)), Looked)


def test_a_store_that_came_back_keeps_what_comes_but_does_not_serve() -> None:
    store = StoreSpec(name="s").build(1)
    refused = Failed(reason="not serving: s has joined no plan, wanted plan 0; rejoin it", definite=True)
    for request in (Look(epoch=0, key="k", whole=False), _put("x", _FIRST)):
        assert store.perform(request) == refused
    listing = List(epoch=0, store="t", incarnation=1, stores=("s", "t"), copies=2, after=None, limit=9)
    assert store.perform(listing) == refused
    assert _held(store) == "x"


def test_listing_is_paged_in_the_order_of_keys() -> None:
    store = Store("s", 0, epoch=0)
    for key in ("b", "a", "c"):
        store.perform(_put(key, _FIRST, key=key))
    request = List(epoch=0, store="t", incarnation=1, stores=("s", "t"), copies=2, after=None, limit=2)
    first = store.perform(request)
    assert isinstance(first, Listed)
    assert ([copy.key for copy in first.copies], first.more) == (["a", "b"], True)
    rest = store.perform(dataclasses.replace(request, after="b"))
    assert isinstance(rest, Listed)
    assert ([copy.key for copy in rest.copies], rest.more) == (["c"], False)
