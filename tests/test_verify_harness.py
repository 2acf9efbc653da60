"""The harness itself: what each status means, that runs repeat, and that nothing foreign ends or stretches a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from hqde_ref.clauses import CLAUSES
from hqde_ref.messages import Implementation, Node
from hqde_ref.reference import Reference
from properties import subject as subject_module
from properties.examine import PROFILES, Profile, examine
from properties.known_failures import with_expectation
from properties.oracles import level_sizes, lower_middle, round_half, tree_tolerance
from properties.outcomes import Outcome, exit_code, worst
from properties.snippets import write_snippet
from properties.subject import Subject
from properties.suite import PropertyCase, all_cases
from simulator import execution
from simulator.scenario_reading import load_scenario
from tests import verify_samples
from tests.planted import BUGS

QUICK = Profile(examples=20, within_s=10.0)
DEPTH = "test_depth_is_the_least_that_holds_everyone"


def _case(name: str) -> PropertyCase:
    return next(case for case in all_cases() if case.name == name)


def _examine(name: str, implementation: Implementation, profile: Profile = QUICK, **options: Any) -> Outcome:
    return examine(_case(name), Subject(implementation, **options), profile=profile, seed=0)


def test_a_property_of_a_sound_implementation_holds() -> None:
    outcome = _examine(DEPTH, Reference())
    assert (outcome.status, outcome.because, outcome.counterexample) == ("HOLDS", None, None)
    assert outcome.examples == QUICK.examples


def test_a_broken_property_shows_the_smallest_example() -> None:
    outcome = _examine(DEPTH, BUGS["OffByOneDepth"](), PROFILES["standard"])
    assert outcome.status == "BROKEN"
    assert outcome.because == "depth 1, but 2^0 would do"
    assert outcome.counterexample is not None
    assert outcome.counterexample.startswith("PlanTree(workers=1, branching=2)\n  -> TreePlanned(levels=(1,), depth=1")


def test_the_same_seed_finds_the_same_and_another_seed_looks_elsewhere() -> None:
    name = "test_importance_reaches_the_root"
    case, bug = _case(name), Subject(BUGS["ForgetsMass"]())
    one, two, other = (examine(case, bug, profile=PROFILES["standard"], seed=seed) for seed in (3, 3, 4))
    assert dataclasses.replace(one, seconds=0.0).counterexample == two.counterexample
    assert (one.because, one.examples) == (two.because, two.examples)
    assert other.status == "BROKEN"


def test_what_is_not_supported_is_not_run() -> None:
    outcome = _examine("test_training_is_the_plain_loop", verify_samples.PlansOnly())
    assert (outcome.status, outcome.examples) == ("UNSUPPORTED", 0)
    assert outcome.because == "it does not support TrainSteps"
    pair = _examine("test_claims_give_no_influence[krum-sharded]", verify_samples.FlatMeansOnly())
    assert pair.because == "it has no krum on topology sharded"
    tree = _examine("test_a_robust_tree_promises_no_more_than_it_keeps", verify_samples.FlatMeansOnly())
    assert tree.because == "it has no rule on topology tree"


def test_who_offers_trees_but_no_robust_ones_is_asked_to_refuse_them() -> None:
    outcome = _examine("test_a_robust_tree_promises_no_more_than_it_keeps", Reference())
    assert (outcome.status, outcome.because) == ("HOLDS", None)


def test_what_a_reply_does_not_say_cannot_be_told() -> None:
    outcome = _examine("test_identical_contributions_are_all_kept[geometric_median-flat]", verify_samples.Speechless())
    assert (outcome.status, outcome.because) == ("CANNOT_TELL", "it does not say who was used")


def test_what_another_process_does_to_its_surroundings_cannot_be_told() -> None:
    name = "test_surroundings_are_left_alone[weighted_mean-flat]"
    outcome = _examine(name, Reference(), in_process=False)
    assert outcome.status == "CANNOT_TELL"


def test_what_an_adapter_cannot_ask_cannot_be_told() -> None:
    outcome = _examine(DEPTH, verify_samples.Unaskable())
    assert (outcome.status, outcome.because) == ("CANNOT_TELL", "it cannot be asked for a plan")


@pytest.mark.parametrize(
    "name",
    [
        "test_a_flat_mean_is_the_weighted_mean",
        "test_too_few_contributions_are_refused[geometric_median-sharded]",
        "test_identical_contributions_are_all_kept[krum-flat]",
        "test_a_robust_tree_promises_no_more_than_it_keeps",
    ],
)
def test_who_cannot_be_asked_anything_holds_nothing(name: str) -> None:
    outcome = _examine(name, verify_samples.Unaskable(), Profile(examples=8, within_s=10.0))
    assert (outcome.status, outcome.examples) == ("CANNOT_TELL", 0)


def test_an_adapter_that_fails_is_an_error_of_ours() -> None:
    outcome = _examine(DEPTH, verify_samples.BadAdapter())
    assert outcome.status == "ERROR"
    assert "AdapterError: the stand-in has no such function" in (outcome.because or "")


def test_a_crash_breaks_the_property_and_says_how() -> None:
    outcome = _examine("test_a_tree_that_never_ends_is_refused", BUGS["RaisesNakedError"]())
    assert outcome.status == "BROKEN"
    assert "got no answer: ZeroDivisionError: division by zero" in (outcome.because or "")


def test_calls_that_end_at_a_limit_are_not_repeated_by_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def tick() -> float:
        clock[0] += 10.0
        return clock[0]

    monkeypatch.setattr(subject_module.time, "monotonic", tick)
    verify_samples.Slow.calls = 0
    outcome = _examine(DEPTH, verify_samples.Slow(), Profile(examples=100, within_s=1e9))
    assert outcome.status == "BROKEN"
    assert (outcome.because or "").endswith("got no answer: ended by the guard: took longer than 60 s")
    assert outcome.counterexample is not None
    assert verify_samples.Slow.calls <= 3


def test_a_property_stops_when_its_time_is_up() -> None:
    outcome = _examine(DEPTH, verify_samples.Sleepy(), Profile(examples=10_000, within_s=0.5))
    assert outcome.status == "HOLDS"
    assert 3 <= outcome.examples < 50
    assert outcome.because == f"time was up after {outcome.examples} of 10000 examples"


def test_too_few_examples_before_time_is_up_tell_nothing() -> None:
    outcome = _examine(DEPTH, verify_samples.Sleepy(), Profile(examples=10_000, within_s=0.01))
    assert outcome.status == "CANNOT_TELL"
    assert (outcome.because or "").startswith("time was up after ")


def test_an_answer_that_changes_by_itself_is_named() -> None:
    verify_samples.Moody.calls = 0
    outcome = _examine(DEPTH, verify_samples.Moody(), PROFILES["standard"])
    assert outcome.status == "BROKEN"
    assert (outcome.because or "").startswith("it is not deterministic: the same example failed, then held (depth")


def test_statuses_add_up_to_an_exit_code() -> None:
    assert exit_code(["HOLDS", "UNSUPPORTED", "FIXED", "EXPECTED_FAILURE"]) == 0
    assert exit_code(["HOLDS", "ERROR", "BROKEN"]) == 1
    assert exit_code(["HOLDS", "CANNOT_TELL"]) == 2
    assert exit_code(["UNSUPPORTED"]) == 2, "nothing was shown"
    assert exit_code([]) == 2
    assert exit_code(["HOLDS", "CANNOT_TELL", "ERROR"]) == 5


def test_a_clause_is_as_bad_as_its_worst_property() -> None:
    assert worst(["HOLDS", "BROKEN", "ERROR"]) == "BROKEN"
    assert worst(["HOLDS", "UNSUPPORTED"]) == "HOLDS"
    assert worst([]) == "CANNOT_TELL"


def test_an_expected_failure_that_holds_is_fixed() -> None:
    held = Outcome(name="p", status="HOLDS", examples=1, seconds=0.0)
    assert with_expectation(held).status == "FIXED"
    assert with_expectation(dataclasses.replace(held, status="BROKEN")).status == "EXPECTED_FAILURE"
    assert with_expectation(dataclasses.replace(held, status="UNSUPPORTED")).status == "UNSUPPORTED"


def test_clauses_are_numbered_once_and_in_order() -> None:
    numbers = [tuple(map(int, clause.id.split("."))) for clause in CLAUSES]
    assert numbers == sorted(set(numbers))
    assert all(clause.section.startswith(clause.id.split(".")[0]) for clause in CLAUSES)


def test_oracles_agree_with_cases_done_by_hand() -> None:
    assert level_sizes(8, 2) == [1, 2, 4, 8]
    assert level_sizes(1, 5) == [1]
    assert (tree_tolerance(9, 3), tree_tolerance(8, 2), tree_tolerance(10, 3)) == (3, 0, 0)
    assert lower_middle([3, 1, 2, 9], [1.0] * 4) == 2
    assert lower_middle([1, 5], [1.0, 3.0]) == 5
    assert round_half(Fraction(2049, 2048), "float16") == 1.0, "a tie goes to even"
    assert round_half(Fraction(2049, 2048) + Fraction(1, 10**9), "float16") == 1.0 + 2.0**-10


def test_snippets_run_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = _examine(DEPTH, BUGS["OffByOneDepth"](), PROFILES["standard"])
    code = write_snippet("mine", "tests.planted_plans:OffByOneDepth", outcome.requests[-1])
    exec(compile(code, "snippet", "exec"), {})
    assert "depth=1" in capsys.readouterr().out


def test_snippets_for_hqde_use_its_own_words() -> None:
    bug = BUGS["MeanOfMeans"]()
    outcome = _examine("test_every_worker_counts_alike_up_the_tree", bug, PROFILES["standard"])
    code = write_snippet("hqde", "properties.adapters.hqde:Hqde", outcome.requests[-1])
    assert "hqde_ref" not in code
    assert "HierarchicalAggregator(3, 2).aggregate_ensemble_weights(updates, importance)" in code
    compile(code, "snippet", "exec")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_properties_and_simulated_runs_compute_on_one_thread_and_give_the_others_back(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Counting(Reference):
        def start(self) -> Node:
            seen.append(torch.get_num_threads())
            return super().start()

    assert _examine(DEPTH, Counting()).status == "HOLDS"
    monkeypatch.setattr(execution, "run_variant", lambda *_, **__: seen.append(torch.get_num_threads()))
    scenario = load_scenario(Path("scenarios/slow_host.yaml"))
    assert len(list(execution.run_all(scenario, on="sim"))) == len(execution.VARIANTS)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2
