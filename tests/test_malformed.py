"""Whatever one member sends, the others' round goes on: in every topology, on the stories themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from hqde_ref.core.packing import digest
from hqde_ref.messages import Accepted, Answer, Call, Contribution, Payload, Policy, Refused, Runtime
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.local import Local
from tests.test_training_rounds import MAPREDUCE, MEAN, MEMBERS, ROBUST, SHARDED, _hosts, _plan

POLICIES = [pytest.param(policy, id=policy.topology) for policy in (MEAN, ROBUST, SHARDED, MAPREDUCE)]


class Tampered:
    """A runtime in which some members' contributions are changed on the way."""

    def __init__(self, inner: Runtime, changes: dict[str, dict[str, Any]]) -> None:
        self._inner = inner
        self._changes = changes

    def now(self) -> float:
        return self._inner.now()

    def fetch(self, payload: Payload) -> torch.Tensor:
        return self._inner.fetch(payload)

    def ask(self, calls: Sequence[Call], *, enough: int, until: float) -> tuple[Answer, ...]:
        answers = self._inner.ask(calls, enough=enough, until=until)
        return tuple(
            Answer(node=a.node, reply=dataclasses.replace(a.reply, **self._changes[a.node]))
            if a.node in self._changes and isinstance(a.reply, Contribution)
            else a
            for a in answers
        )


def _payload(ref: Any) -> tuple[Payload, ...]:
    return (Payload(key="tampered", ref=ref, nbytes=8),)


MALFORMED: dict[str, dict[str, Any]] = {
    "no payload": {"payloads": (), "digests": ()},
    "a payload that is none": {"payloads": ("x",)},
    "a digest that is none": {"digests": (7,)},
    "more shards": {"digests": ("a",) * 9},
    "no mass": {"mass": None},
    "a mass in words": {"mass": "much"},
    "a boolean mass": {"mass": True},
    "another layout": {"layout": "x"},
    "another round": {"round": 7},
    "another name": {"worker": "w0"},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("wrong", MALFORMED)
def test_one_malformed_contribution_is_rejected_and_the_others_are_used(policy: Policy, wrong: str) -> None:
    runtime = Tampered(Local(_hosts()), {"w5": MALFORMED[wrong]})
    verdict = training_round(runtime, _plan(runtime, policy))
    assert isinstance(verdict, Accepted), verdict
    assert list(verdict.rejected) == ["w5"]
    assert verdict.used == tuple(member for member in MEMBERS if member != "w5")


@pytest.mark.parametrize(
    "ref",
    [torch.zeros(4, 4, dtype=torch.uint8), torch.zeros(9640), torch.tensor(1)],
    ids=["a matrix", "floats", "a scalar"],
)
@pytest.mark.parametrize("policy", [p for p in POLICIES if p.id != "sharded"])
def test_bytes_that_are_none_are_misshapen(policy: Policy, ref: torch.Tensor) -> None:
    runtime = Tampered(Local(_hosts()), {"w5": {"payloads": _payload(ref)}})
    verdict = training_round(runtime, _plan(runtime, policy))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.rejected["w5"].startswith("misshapen: ")


@pytest.mark.parametrize("policy", [p for p in POLICIES if p.id != "sharded"])
@pytest.mark.parametrize("knowing", [False, True])
def test_too_few_bytes_are_misshapen_if_they_were_sent_so_and_else_lost_on_the_way(
    policy: Policy, knowing: bool
) -> None:
    """The difference counts: a misshapen contribution is proof against its sender (clause 4.2), a lost tail is none."""
    short = torch.zeros(3, dtype=torch.uint8)
    changes = {"payloads": _payload(short), **({"digests": (digest(short),)} if knowing else {})}
    runtime = Tampered(Local(_hosts()), {"w5": changes})
    verdict = training_round(runtime, _plan(runtime, policy))
    assert isinstance(verdict, Accepted), verdict
    assert verdict.rejected["w5"].startswith("misshapen: 3 bytes" if knowing else "corrupted: its bytes have digest")


@pytest.mark.parametrize("policy", [pytest.param(ROBUST, id="flat"), pytest.param(SHARDED, id="sharded")])
@pytest.mark.parametrize(("proven", "hidden"), [(1, 1), (2, 0), (3, 2)])
def test_proven_liars_use_up_the_budget_unless_they_are_more_than_it(policy: Policy, proven: int, hidden: int) -> None:
    runtime = Tampered(Local(_hosts()), {member: {"layout": "x"} for member in MEMBERS[:proven]})
    verdict = training_round(runtime, _plan(runtime, policy))
    assert isinstance(verdict, Accepted)
    assert verdict.evidence.faulty_max == hidden


@pytest.mark.parametrize("policy", [pytest.param(ROBUST, id="flat"), pytest.param(SHARDED, id="sharded")])
def test_a_budget_that_is_visibly_broken_is_not_answered_with_what_is_left(policy: Policy) -> None:
    """Clause 6.7: seven of eight lied; the last one alone proves nothing."""
    runtime = Tampered(Local(_hosts()), {member: {"layout": "x"} for member in MEMBERS[:7]})
    verdict = training_round(runtime, _plan(runtime, policy))
    assert isinstance(verdict, Refused)
    assert verdict.reason == "geometric_median with faulty_max=2 needs at least 5 usable contributions, got 1 of 8"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"branching": 1}, "branching must be an integer of at least 2, got 1"),
        (
            {"outlier_factor": -1.0},
            "outlier_factor must be at least 1, or None to reject no one, got -1.0; 3 is usual.",
        ),
        ({"outlier_factor": float("nan")}, "outlier_factor must be at least 1"),
        ({"round_within_s": float("inf")}, "round_within_s must be a positive number of seconds, got inf"),
        ({"round_within_s": float("nan")}, "round_within_s must be a positive number of seconds, got nan"),
        ({"shards": 2.5}, "shards must be an integer of at least 1, got 2.5"),
        ({"rule": "bulyan"}, "members of a bulyan round with faulty_max=2 must be at least 11, got 8"),
    ],
)
def test_every_setting_of_a_policy_is_checked_before_anyone_is_asked(changes: dict[str, Any], sentence: str) -> None:
    runtime = Local(_hosts())
    plan = dataclasses.replace(_plan(runtime, ROBUST), policy=dataclasses.replace(ROBUST, **changes))
    with pytest.raises(ValueError, match="must be") as caught:
        training_round(runtime, plan)
    assert str(caught.value).startswith(sentence)


def test_hqdes_own_rule_rejects_once_and_says_whom() -> None:
    """Clause 4.4: what the rule leaves out and what the round says it left out are the same members."""
    runtime = Local(_hosts())
    plain = training_round(runtime, _plan(runtime, ROBUST))
    own = training_round(runtime, _plan(runtime, dataclasses.replace(ROBUST, rule="filtered_geometric_median")))
    assert isinstance(plain, Accepted)
    assert isinstance(own, Accepted)
    assert own.digests == plain.digests
    assert own.rejected == plain.rejected
