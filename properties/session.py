"""One run of the suite on one implementation: which properties, in which order, and what they add up to.

Source: docs/design.md, "The two commands": the JSON is a contract.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import hqde_ref
from hqde_ref.clauses import CLAUSES, SPEC, Clause
from hqde_ref.messages import message
from properties.examine import Profile, examine
from properties.known_failures import is_known, with_expectation
from properties.outcomes import STATUSES, Outcome, worst
from properties.subject import Subject
from properties.suite import PropertyCase

__all__ = ["Report", "Session", "as_document", "failures", "reproduce", "run_session", "select_cases"]


@message
class Session:
    """What is asked of a run.

    Attributes:
        word: the implementation as the command line names it; options: what else was on it, to repeat the run.
        clauses: those asked for; empty: every clause that has a property.
    """

    word: str
    options: tuple[str, ...]
    clauses: tuple[str, ...]
    profile_name: str
    profile: Profile
    seed: int
    known: frozenset[str]


@message
class Report:
    """What a run found, as far as it came."""

    session: Session
    name: str
    version: str
    outcomes: tuple[tuple[PropertyCase, Outcome], ...]
    interrupted: bool

    def clauses(self) -> list[tuple[Clause, list[tuple[PropertyCase, Outcome]]]]:
        """Each clause asked for, with its properties."""
        wanted = self.session.clauses
        found = []
        for clause in CLAUSES:
            mine = [(case, outcome) for case, outcome in self.outcomes if clause.id in case.law.clauses]
            if clause.id in wanted or (not wanted and mine):
                found.append((clause, mine))
        return found


def run_session(
    session: Session,
    subject: Subject,
    cases: Sequence[PropertyCase],
    *,
    tell: Callable[[PropertyCase, Outcome | None], None],
) -> Report:
    """Examine each property; an interrupt ends the run, and what was found by then is reported.

    Args:
        tell: called before each property (with None) and after it.
    """
    outcomes: list[tuple[PropertyCase, Outcome]] = []
    interrupted = False
    try:
        for case in cases:
            tell(case, None)
            outcome = _examine(session, subject, case)
            outcomes.append((case, outcome))
            tell(case, outcome)
    except KeyboardInterrupt:
        interrupted = True
    return Report(
        session=session,
        name=subject.name,
        version=subject.version,
        outcomes=tuple(outcomes),
        interrupted=interrupted,
    )


def _examine(session: Session, subject: Subject, case: PropertyCase) -> Outcome:
    known = is_known(case, session.known)
    profile = dataclasses.replace(session.profile, shrink=False) if known else session.profile
    outcome = examine(case, subject, profile=profile, seed=session.seed)
    return with_expectation(outcome) if known else outcome


def select_cases(cases: Sequence[PropertyCase], clauses: Sequence[str]) -> list[PropertyCase]:
    """The properties that cite one of the clauses; all of them when none is named."""
    return [case for case in cases if not clauses or not set(clauses).isdisjoint(case.law.clauses)]


def failures(report: Report) -> list[list[tuple[PropertyCase, Outcome]]]:
    """What is broken or failed to run, the runs of one property together."""
    groups: dict[tuple[str, str], list[tuple[PropertyCase, Outcome]]] = {}
    for case, outcome in report.outcomes:
        if outcome.status in ("BROKEN", "ERROR"):
            groups.setdefault((case.law.name, outcome.status), []).append((case, outcome))
    return list(groups.values())


def reproduce(session: Session, case: PropertyCase) -> str:
    """One command that finds the same again."""
    clause = next((number for number in case.law.clauses if number in session.clauses), case.law.clauses[0])
    words = ["hqde-verify", "run", session.word, "--clause", clause, "--profile", session.profile_name]
    return shlex.join([*words, "--seed", str(session.seed), *session.options])


def as_document(report: Report) -> dict[str, Any]:
    """The report as JSON values; ``interrupted`` only where it was."""
    statuses = [outcome.status for _, outcome in report.outcomes]
    document = {
        "implementation": {"name": report.name, "version": report.version},
        "spec": SPEC,
        "suite": hqde_ref.__version__,
        "seed": report.session.seed,
        "summary": {status: statuses.count(status) for status in sorted(STATUSES)},
        "clauses": [
            {
                "id": clause.id,
                "level": clause.level,
                "statement": clause.statement,
                "status": worst(outcome.status for _, outcome in mine),
                "properties": [_property(report.session, case, outcome) for case, outcome in mine],
            }
            for clause, mine in report.clauses()
        ],
    }
    return {**document, "interrupted": True} if report.interrupted else document


def _property(session: Session, case: PropertyCase, outcome: Outcome) -> dict[str, Any]:
    failed = outcome.status in ("BROKEN", "ERROR", "EXPECTED_FAILURE")
    return {
        "name": outcome.name,
        "status": outcome.status,
        "examples": outcome.examples,
        "seconds": round(outcome.seconds, 3),
        "because": outcome.because,
        "counterexample": outcome.counterexample,
        "reproduce": reproduce(session, case) if failed else None,
    }
