"""The reference as an implementation: what its replies say, and what properties cannot ask fairly of everybody."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hqde_ref.core.rules import certify
from hqde_ref.errors import HqdeError
from hqde_ref.messages import (
    Aggregate,
    Aggregated,
    Entry,
    Layout,
    Misused,
    PlanTree,
    StoreFault,
    StoreGet,
    StoreOpen,
    StorePut,
    TrainSteps,
    Update,
)
from hqde_ref.reference import Reference

TOPOLOGIES = ("flat", "tree", "mapreduce", "sharded")


def _update(worker: str, *values: float, dtype: torch.dtype = torch.float32, mass: float = 1.0) -> Update:
    return Update(worker=worker, tensors={"weight": torch.tensor(values, dtype=dtype)}, mass=mass)


def _ask(*updates: Update, **changes: Any) -> Any:
    usual: dict[str, Any] = {"rule": "weighted_mean", "topology": "flat", "faulty_max": 0}
    return Reference().start().perform(Aggregate(updates=updates, **(usual | changes)))


@pytest.mark.parametrize("wide", [None, torch.float32, torch.float64])
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_mean_in_half_precision_is_rounded_once_whatever_lies_beside_it(
    wide: torch.dtype | None, topology: str
) -> None:
    """The exact mean is a crumb above a tie; float32 on the way would lose the crumb, and the tie would go down."""
    crumb = 2.0**-24
    updates = []
    for index, value in enumerate((2.0, 2.0 + 2.0**-9, crumb, crumb)):
        tensors = {"half": torch.tensor([value], dtype=torch.float16)}
        if wide is not None:
            tensors["wide"] = torch.ones(1, dtype=wide)
        updates.append(Update(worker=f"w{index}", tensors=tensors))
    reply = _ask(*updates, topology=topology)
    assert float(reply.result["half"][0]) == 1.0 + 2.0**-10


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_mass_beyond_float64_is_rejected_and_the_others_are_used(topology: str) -> None:
    reply = _ask(_update("w0", 1.0), _update("w1", 1e200, dtype=torch.float32, mass=1.0), topology=topology)
    assert reply.rejected == {"w1": "not finite: parameter 'weight' holds NaN or infinity"}
    big = [_update(f"w{index}", 1e200, dtype=torch.float64, mass=1e300) for index in range(2)]
    reply = _ask(*big, topology=topology)
    assert reply.refused == "weighted_mean needs at least 1 usable contribution, got 0"
    assert reply.rejected["w0"] == (
        "misshapen: its mass 1e+300, times its largest value, is beyond float64: "
        "at most 2**1021 can be added up for 2 contributions"
    )
    for heavy in (1e300, 10**400):
        good = [_update(f"w{index}", float(index), dtype=torch.float64) for index in range(3)]
        reply = _ask(*good, _update("w3", 1e200, dtype=torch.float64, mass=heavy), topology=topology)
        assert (reply.refused, reply.used, list(reply.rejected)) == (None, ("w0", "w1", "w2"), ["w3"])
        assert reply.rejected["w3"].startswith("misshapen: its mass ")
        assert float(reply.result["weight"][0]) == 1.0


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_masses_whose_sum_would_overflow_are_rejected_even_of_zeros(topology: str) -> None:
    zeros = [_update(f"w{index}", 0.0, dtype=torch.float64, mass=1.5e308) for index in range(2)]
    reply = _ask(*zeros, _update("w2", 4.0, dtype=torch.float64), topology=topology)
    assert (reply.used, sorted(reply.rejected)) == (("w2",), ["w0", "w1"])


def test_a_planted_round_that_takes_any_mass_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hqde_ref.rounds.settling.find_too_heavy", lambda tops, masses: {})
    with pytest.raises((AssertionError, AttributeError, HqdeError, OverflowError)):
        test_a_mass_beyond_float64_is_rejected_and_the_others_are_used("tree")
    with pytest.raises((AssertionError, AttributeError, HqdeError, OverflowError)):
        test_masses_whose_sum_would_overflow_are_rejected_even_of_zeros("tree")


@pytest.mark.parametrize("mass", [0.0, -1.0, float("nan"), float("inf")])
def test_a_mass_that_is_no_positive_number_is_rejected(mass: float) -> None:
    reply = _ask(_update("w0", 1.0), _update("w1", 5.0, mass=mass))
    assert reply.used == ("w0",)
    assert reply.rejected["w1"].startswith("misshapen: its mass is")


def test_who_sends_two_different_things_is_rejected_for_it() -> None:
    reply = _ask(_update("w0", 1.0), _update("w1", 2.0), _update("w1", 3.0))
    assert reply.used == ("w0",)
    assert reply.rejected == {"w1": "equivocation: it sent 2 different contributions"}


def test_a_stranger_is_rejected_and_named() -> None:
    reply = _ask(_update("w0", 1.0), _update("who", 9.0), members=("w0", "w1"))
    assert (reply.used, reply.missing) == (("w0",), ("w1",))
    assert reply.rejected == {"who": "not a member of this round"}


def test_without_a_declared_layout_the_first_worker_by_id_declares_it() -> None:
    odd = Update(worker="w2", tensors={"other": torch.ones(3)})
    reply = _ask(odd, _update("w1", 4.0), _update("w0", 2.0))
    assert reply.result["weight"].tolist() == [3.0]
    assert reply.rejected["w2"].startswith("misshapen: parameter 'weight' is missing")


def test_a_dtype_without_aggregation_is_misshapen() -> None:
    odd = Update(worker="w0", tensors={"weight": torch.ones(1, dtype=torch.complex64)})
    reply = _ask(odd, _update("w1", 4.0))
    assert reply.rejected["w0"] == "misshapen: parameter 'weight' has dtype complex64, wanted float32"


def test_members_without_any_contribution_give_a_refusal() -> None:
    reply = _ask(members=("w0", "w1"), layout=Layout(entries=(Entry(name="weight", shape=(1,), dtype="float32"),)))
    assert isinstance(reply, Aggregated)
    assert reply.refused == "weighted_mean needs at least 1 usable contribution, got 0"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"faulty_max": True}, "faulty_max must be an integer of at least 0, got True; count whole ones."),
        ({"faulty_max": 0.5}, "faulty_max must be an integer of at least 0, got 0.5; count whole ones."),
        ({"members": ("w0", "w0")}, "members must be distinct ids, got ('w0', 'w0'); name every member once."),
        ({"topology": "tree", "branching": 1}, "branching must be an integer of at least 2, got 1; "),
    ],
)
def test_nonsense_is_refused_in_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    reply = _ask(_update("w0", 1.0), **changes)
    assert isinstance(reply, Misused)
    assert reply.error == "ConfigurationError"
    assert reply.sentence.startswith(sentence)


def test_a_tree_of_a_robust_rule_is_refused_with_what_it_would_tolerate() -> None:
    updates = [_update(f"w{index}", float(index)) for index in range(8)]
    reply = _ask(*updates, rule="geometric_median", topology="tree", branching=2, faulty_max=2)
    assert isinstance(reply, Misused)
    assert "must be at most 0, got 2" in reply.sentence


def test_training_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    request = TrainSteps(
        inputs=torch.ones(2, 3),
        targets=torch.tensor([0, 1]),
        weight=torch.zeros(2, 3),
        bias=torch.zeros(2),
        steps=1,
        rate=0.1,
    )
    Reference().start().perform(request)
    assert torch.equal(before, torch.get_rng_state())


def test_parents_of_a_large_plan_are_not_listed() -> None:
    reply = Reference().start().perform(PlanTree(workers=5000, branching=10))
    assert (reply.levels, reply.parents) == ((1, 5, 50, 500, 5000), None)


def test_a_fault_of_a_store_says_whether_it_took_effect() -> None:
    """Nothing befalls a store that is dead or hangs already, but for the end of both."""
    node = Reference().start()
    node.perform(StoreOpen(stores=3, copies=3))
    assert node.perform(StorePut(key="k", tensors={"x": torch.ones(2)})).acknowledged

    def fire(*faults: str) -> list[bool]:
        kinds_and_stores = [fault.split() for fault in faults]
        return [node.perform(StoreFault(kind=kind, store=s, key="k")).fired for kind, s in kinds_and_stores]

    assert fire("stop s0", "stop s0", "damage s0", "continue s0", "damage s0") == [True, False, False, True, True]
    assert torch.equal(node.perform(StoreGet(key="k")).tensors["x"], torch.ones(2))
    assert fire("kill s0", "stop s0", "damage s0", "restart s0", "damage s0") == [True, False, False, True, True]
    assert fire("kill s1", "kill s2", "restart s1") == [True, True, False], "nobody brings it up to date"
    reason = node.perform(StoreGet(key="k")).reason
    assert "s2: crashed" in reason
    assert "s1 has joined no plan, wanted plan 0; rejoin it" in reason


def test_a_sharded_round_of_values_whose_products_vanish_is_refused_and_a_flat_one_is_right() -> None:
    """It published any of them as proven."""
    rows = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-170
    updates = tuple(Update(worker=f"w{index}", tensors={"w": row}) for index, row in enumerate(rows))
    flat, sharded = (
        Reference()
        .start()
        .perform(Aggregate(rule="geometric_median", topology=topology, updates=updates, faulty_max=2))
        for topology in ("flat", "sharded")
    )
    assert isinstance(flat, Aggregated)
    assert flat.result is not None
    assert certify("geometric_median", rows, flat.result["w"], faulty_max=2).excess < 1e-9
    assert isinstance(sharded, Aggregated)
    assert sharded.result is None
    assert "greatest distance in a sharded round must be at least 1e-140" in str(sharded.refused)
