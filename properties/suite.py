"""The suite: every property of every module, once for each of its parameters, by name.

Source: docs/design.md, "Layout": ``test_*.py`` in this package are the properties, found alike by pytest and
the command.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import product
from typing import Any

import properties
from hqde_ref.messages import message
from properties.declaring import Law, Way, find_law
from properties.subject import Subject

__all__ = ["PropertyCase", "all_cases", "cases_of", "why_unsupported"]


@message
class PropertyCase:
    """A law with its parameters: what is run, named and reported."""

    name: str
    law: Law
    parameters: Mapping[str, Any]

    @property
    def ways(self) -> tuple[Way, ...]:
        """Every (rule, topology) that it asks for."""
        given = [value for value in self.parameters.values() if isinstance(value, Way)]
        return (*self.law.ways, *given)


@cache
def all_cases() -> tuple[PropertyCase, ...]:
    """All properties in the order of their modules and lines."""
    modules = [
        importlib.import_module(f"properties.{found.name}")
        for found in pkgutil.iter_modules(properties.__path__)
        if found.name.startswith("test_")
    ]
    return tuple(case for module in modules for case in cases_of(vars(module).values()))


def cases_of(functions: Iterable[object]) -> list[PropertyCase]:
    """The properties among some functions, expanded over their ``pytest.mark.parametrize``."""
    cases = []
    for function in functions:
        declared = find_law(function)
        if declared is None:
            continue
        marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
        axes = [[(mark.args[0], value) for value in mark.args[1]] for mark in marks]
        for chosen in product(*axes):
            label = f"[{'-'.join(str(value) for _, value in chosen)}]" if chosen else ""
            cases.append(PropertyCase(name=declared.name + label, law=declared, parameters=dict(chosen)))
    return cases


def why_unsupported(case: PropertyCase, subject: Subject) -> str | None:
    """Say what the implementation lacks for a property, or None."""
    lacking = sorted(kind.__name__ for kind in case.law.needs if kind not in subject.supports)
    if lacking:
        return f"it does not support {', '.join(lacking)}"
    if subject.rules is not None:
        strange = [way for way in case.ways if tuple(way) not in subject.rules]
        if strange:
            return f"it has no {' and no '.join(f'{way.rule} on topology {way.topology}' for way in strange)}"
        known = {topology for _, topology in subject.rules}
        absent = [topology for topology in case.law.topologies if topology not in known]
        if absent:
            return f"it has no rule on topology {' and none on '.join(absent)}"
    return None
