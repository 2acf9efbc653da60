"""Section 2: the weight store keeps what it acknowledged, whatever befalls one store of a key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch
from hypothesis import reject
from hypothesis import strategies as st
from torch import Tensor

from hqde_ref.messages import (
    StoreAbsent,
    StoreFault,
    StoreFaulted,
    StoreFound,
    StoreGet,
    StoreOpen,
    StoreOpened,
    StorePlace,
    StorePlaced,
    StorePut,
    StoreUnavailable,
    StoreWritten,
)
from properties.declaring import law
from properties.laws import ask, require_refusal
from properties.subject import Subject, WatchedNode
from properties.tolerances import even_shares

KEYS = st.one_of(
    st.sampled_from(("", "a", "a/b", "s0", "s1.0", " a", "A", "\\")), st.text(max_size=6).filter(str.isprintable)
)
FAULTS = ("none", "kill", "stop", "damage")
ENDED_BY = {"kill": "restart", "stop": "continue"}
READS = 10  # a quorum without the damaged copy may answer some of them
PLACED = 200  # keys: enough for four stores to have shares that are not chance


def _value(number: int) -> Mapping[str, Tensor]:
    return {"weight": torch.full((2, 3), float(number)), "steps": torch.tensor(number)}


def _put(implementation: Subject, node: WatchedNode, key: str, number: int) -> StoreWritten:
    return ask(implementation, StorePut(key=key, tensors=_value(number)), StoreWritten, node=node)


def _require_value(implementation: Subject, node: WatchedNode, key: str, number: int) -> None:
    found = ask(implementation, StoreGet(key=key), StoreFound, node=node)
    wanted = _value(number)
    assert set(found.tensors) == set(wanted), f"key {key!r} came back with parameters {sorted(found.tensors)}"
    for name, tensor in wanted.items():
        got = found.tensors[name]
        assert got.dtype == tensor.dtype, f"{name!r} of key {key!r} came back as {got.dtype}, wanted {tensor.dtype}"
        assert torch.equal(got, tensor), f"{name!r} of key {key!r} is {got.tolist()}, wanted {tensor.tolist()}"


def _open(implementation: Subject) -> tuple[WatchedNode, tuple[str, ...]]:
    """Three stores with three copies of each key, and their names."""
    node = implementation.start()
    return node, ask(implementation, StoreOpen(stores=3, copies=3), StoreOpened, node=node).stores


def _strike(implementation: Subject, node: WatchedNode, kind: str, store: str, key: str | None = None) -> None:
    """Nothing is learnt unless the fault takes effect."""
    if not ask(implementation, StoreFault(kind=kind, store=store, key=key), StoreFaulted, node=node).fired:
        reject()


@law(
    needs=(StoreOpen, StorePut, StoreGet, StoreFault),
    steps=st.lists(st.tuples(st.sampled_from(("a", "b")), st.booleans(), st.sampled_from(FAULTS)), max_size=10),
    store=st.integers(0, 2),
)
def test_an_acknowledged_write_is_what_later_reads_give(
    implementation: Subject, steps: list[tuple[str, bool, str]], store: int
) -> None:
    """With one faulty store of three, writes are acknowledged and a read gives the newest acknowledged value.

    Clauses: 2.6, 2.7. Catches: planted.LosesAWriteWhenAStoreDies, planted.ServesDamagedCopies, planted.KeepsTheFirst.
    """
    node, stores = _open(implementation)
    newest: dict[str, int] = {}
    ended_by: str | None = None  # the store is down or hangs, and this brings it back
    for number, (key, reads_first, fault) in enumerate(steps, start=1):
        if reads_first and key in newest:
            _require_value(implementation, node, key, newest[key])
        written = _put(implementation, node, key, number)
        assert written.acknowledged, f"one faulty store of three stopped write {number}: {written.reason}"
        newest[key] = number
        if fault != "none":
            _strike(implementation, node, ended_by or fault, stores[store], key)
            ended_by = ENDED_BY.get(fault) if ended_by is None else None
    for key, number in newest.items():
        _require_value(implementation, node, key, number)


@law(
    needs=(StoreOpen, StorePut, StoreGet, StoreFault),
    lost=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5),
    last=st.integers(1, 2),
)
def test_stores_that_came_back_stand_in_for_the_others(
    implementation: Subject, lost: list[tuple[int, bool]], last: int
) -> None:
    """Stores die and come back one after the other, then another one dies: all acknowledged values are still read.

    Clauses: 2.6, 2.7. Catches: planted.ComesBackEmpty.
    """
    node, stores = _open(implementation)
    newest = {"a": 0, "b": 0}
    for key in newest:
        assert _put(implementation, node, key, 0).acknowledged, "a write to three healthy stores was not acknowledged"
    for number, (store, writes) in enumerate(lost, start=1):
        _strike(implementation, node, "kill", stores[store])
        if writes:
            written = _put(implementation, node, "a", number)
            assert written.acknowledged, f"one dead store of three stopped write {number}: {written.reason}"
            newest["a"] = number
        _strike(implementation, node, "restart", stores[store])
    _strike(implementation, node, "kill", stores[(lost[-1][0] + last) % 3])
    for key, number in newest.items():
        _require_value(implementation, node, key, number)


@law(needs=(StoreOpen, StorePut, StoreGet, StoreFault), order=st.permutations((0, 1, 2)), key=KEYS)
def test_reads_repair_damaged_copies(implementation: Subject, order: list[int], key: str) -> None:
    """One copy after the other is damaged, and the key read; then the store of the third copy dies.

    Clause: 2.7. Catches: planted.NeverRepairs.
    """
    node, stores = _open(implementation)
    assert _put(implementation, node, key, 1).acknowledged, "a write to three healthy stores was not acknowledged"
    for store in order[:2]:
        _strike(implementation, node, "damage", stores[store], key)
        for _ in range(READS):
            _require_value(implementation, node, key, 1)
    _strike(implementation, node, "kill", stores[order[2]])
    _require_value(implementation, node, key, 1)


@law(needs=(StoreOpen, StorePut, StoreGet, StoreFault), dead=st.permutations((0, 1, 2)), key=KEYS)
def test_without_a_quorum_nothing_is_acknowledged_and_nothing_is_told(
    implementation: Subject, dead: list[int], key: str
) -> None:
    """With two of three stores dead a write is not acknowledged, and a read says that it cannot tell.

    Clause: 2.6. Catches: planted.AcknowledgesAnything, planted.GuessesWithoutAQuorum.
    """
    node, stores = _open(implementation)
    assert _put(implementation, node, key, 1).acknowledged, "a write to three healthy stores was not acknowledged"
    for store in dead[:2]:
        _strike(implementation, node, "kill", stores[store])
    ask(implementation, StoreGet(key=key), StoreUnavailable, node=node)
    written = _put(implementation, node, key, 2)
    assert not written.acknowledged, f"a write of key {key!r} was acknowledged with one of three stores alive"


@law(needs=(StorePut, StoreGet), keys=st.lists(KEYS, min_size=1, max_size=8, unique=True), other=KEYS)
def test_any_string_is_a_key_of_its_own(implementation: Subject, keys: list[str], other: str) -> None:
    """Keys that differ hold different values, whatever they look like; an unknown one is an error that names it.

    Clause: 2.8. Catches: planted.TrimsKeys, planted.UnknownKeyIsEmpty.
    """
    node = implementation.start()
    for number, key in enumerate(keys):
        assert _put(implementation, node, key, number).acknowledged, f"a write of key {key!r} was not acknowledged"
    for number, key in enumerate(keys):
        _require_value(implementation, node, key, number)
    if other not in keys:
        absent = ask(implementation, StoreGet(key=other), StoreAbsent, node=node)
        named = other in absent.reason or repr(other)[1:-1] in absent.reason  # a backslash is shown doubled
        assert named, f"the error does not name key {other!r}: {absent.reason}"


@law(needs=(StoreOpen, StorePlace), key=KEYS, stores=st.integers(1, 12), copies=st.integers(1, 5))
def test_keys_are_placed_on_distinct_stores_and_stay_there(
    implementation: Subject, key: str, stores: int, copies: int
) -> None:
    """A key has R distinct stores, the same in every run; when a store is added, the new one replaces one or none.

    Clauses: 2.6, 2.9. Catches: planted.PlacesTwiceOnOneStore, planted.PlacesByCounting, planted.PlacesAtRandom.
    """
    copies = min(copies, stores)
    placed = [_place(implementation, key, stores=count, copies=copies) for count in (stores, stores, stores + 1)]
    assert len(set(placed[0])) == copies, f"key {key!r} is on {placed[0]}, wanted {copies} distinct stores"
    assert set(placed[0]) == set(placed[1]), f"key {key!r} is on {placed[0]} in one run and {placed[1]} in the next"
    moved = set(placed[0]) - set(placed[2])
    assert len(moved) <= 1, f"one store was added, and key {key!r} moved from {placed[0]} to {placed[2]}"


def _place(implementation: Subject, key: str, *, stores: int, copies: int) -> tuple[str, ...]:
    node = implementation.start()
    ask(implementation, StoreOpen(stores=stores, copies=copies), StoreOpened, node=node)
    return ask(implementation, StorePlace(key=key), StorePlaced, node=node).stores


@law(needs=(StoreOpen, StorePlace), thrift=8, prefix=KEYS, copies=st.integers(1, 3))
def test_keys_are_spread_evenly(implementation: Subject, prefix: str, copies: int) -> None:
    """Of many keys each of four stores has its share, as far as chance allows.

    Clause: 2.9. Catches: planted.PlacesOnTheFirst.
    """
    node = implementation.start()
    stores = ask(implementation, StoreOpen(stores=4, copies=copies), StoreOpened, node=node).stores
    held = Counter(
        store
        for number in range(PLACED)
        for store in ask(implementation, StorePlace(key=f"{prefix}{number}"), StorePlaced, node=node).stores
    )
    least, most = even_shares(PLACED, share=copies / 4)
    for store in stores:
        assert least <= held[store] <= most, f"{store} has {held[store]} of {PLACED} keys, wanted {least} to {most}"


@law(needs=(StoreOpen,), sizes=st.sampled_from(((2, 3), (0, 1), (3, 0), (5, -1), (1, 2))))
def test_a_store_that_cannot_be_is_refused(implementation: Subject, sizes: tuple[int, int]) -> None:
    """More copies than stores, or none of either, is refused at once.

    Clause: 0.7. Catches: planted.OpensAnything.
    """
    stores, copies = sizes
    why = f"{copies} copies on {stores} stores"
    require_refusal(implementation, StoreOpen(stores=stores, copies=copies), why=why)
