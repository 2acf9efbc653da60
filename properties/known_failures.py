"""Failures that an adopter knows of: a text file that is theirs, one property or clause a line.

Source: docs/design.md, "Statuses". A line is the id of a clause (all of its properties), the name of a property, or a
name with its parameters in brackets; ``#`` starts a comment. A known failure is run without looking for its smallest
example, so that knowing of many costs no time.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

from hqde_ref.errors import ConfigurationError
from properties.outcomes import Outcome
from properties.suite import PropertyCase

__all__ = ["is_known", "read_known_failures", "with_expectation"]


def read_known_failures(path: Path, cases: Sequence[PropertyCase]) -> frozenset[str]:
    """The names in the file.

    Raises:
        ConfigurationError: when it cannot be read, or names something that is not there.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            setting="--known-failures", wanted="a text file", got=str(path), do=f"check it ({type(error).__name__})"
        ) from error
    known = {name for case in cases for name in _names_of(case)}
    found = set()
    for number, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip()
        if name and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise ConfigurationError(
                setting=f"line {number} of {path}",
                wanted="the id of a clause or the name of a property",
                got=name,
                do=f"did you mean {near[0]}?" if near else "hqde-verify list --json has them all",
            )
        if name:
            found.add(name)
    return frozenset(found)


def _names_of(case: PropertyCase) -> set[str]:
    return {case.name, case.law.name, *case.law.clauses}


def is_known(case: PropertyCase, known: frozenset[str]) -> bool:
    """The file names this property, or a clause that it cites."""
    return not known.isdisjoint(_names_of(case))


def with_expectation(outcome: Outcome) -> Outcome:
    """The outcome of a property that was expected to fail."""
    if outcome.status == "BROKEN":
        return dataclasses.replace(outcome, status="EXPECTED_FAILURE")
    if outcome.status == "HOLDS":
        because = "it was expected to fail, and held: take it off the list of known failures"
        return dataclasses.replace(outcome, status="FIXED", because=because)
    return outcome
