"""Every property catches the bugs that it says it catches, and every bug is caught by some property."""

from __future__ import annotations

import pytest

from hqde_ref.clauses import CLAUSES
from properties.declaring import Law
from properties.examine import Profile, examine
from properties.subject import Subject
from properties.suite import PropertyCase, all_cases
from tests.planted import BUGS

QUICK = Profile(examples=150, within_s=20.0, shrink=False)

LAWS: dict[str, Law] = {case.law.name: case.law for case in all_cases()}
PAIRS = [(law.name, bug.removeprefix("planted.")) for law in LAWS.values() for bug in law.catches]


def _cases(law: str, bug: str) -> list[PropertyCase]:
    """The property's runs in which the bug can show."""
    ways = BUGS[bug].ways
    cases = [case for case in all_cases() if case.law.name == law]
    return [case for case in cases if ways is None or any(tuple(way) in ways for way in case.ways) or not case.ways]


@pytest.mark.parametrize(("law", "bug"), PAIRS)
def test_property_catches_the_planted_bug(law: str, bug: str) -> None:
    outcomes = []
    for case in _cases(law, bug):
        outcome = examine(case, Subject(BUGS[bug]()), profile=QUICK, seed=0)
        if outcome.status == "BROKEN":
            assert outcome.because
            assert outcome.counterexample
            return
        outcomes.append((outcome.name, outcome.status, outcome.because))
    pytest.fail(f"nothing in {law} minds {bug}: {outcomes}")


def test_every_planted_bug_is_named_by_a_property() -> None:
    named = {bug for _, bug in PAIRS}
    assert sorted(set(BUGS) - named) == []
    assert sorted(named - set(BUGS)) == []


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.name)
def test_property_names_a_clause_and_a_bug(law: Law) -> None:
    known = {clause.id for clause in CLAUSES}
    assert law.catches, f"{law.name} says of no bug that it catches it"
    assert law.clauses, f"{law.name} cites no clause"
    assert [number for number in law.clauses if number not in known] == []
    assert law.statement.endswith("."), f"{law.name} states its law in no sentence: {law.statement!r}"


def test_there_are_enough_of_both() -> None:
    assert len(LAWS) >= 25
    assert len(BUGS) >= 30
