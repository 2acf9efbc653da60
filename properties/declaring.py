"""How a property is declared: a law in words, what it draws, which requests and rules it needs, what it catches.

Source: docs/design.md, "A property states its law". The declaration is data (``LAWS`` is found by ``suite``); running
it is ``examine``'s affair, so pytest and the command run the same code.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from hypothesis.strategies import SearchStrategy

from hqde_ref.messages import message

__all__ = ["Law", "Way", "find_law", "law"]

Draws: TypeAlias = SearchStrategy[Any] | Callable[..., SearchStrategy[Any]]
Property: TypeAlias = Callable[..., None]


class Way(NamedTuple):
    """A rule in a topology, as ``Aggregate`` names them."""

    rule: str
    topology: str

    def __str__(self) -> str:
        return f"{self.rule}-{self.topology}"


@message
class Law:
    """A declared property.

    Attributes:
        draws: a strategy by argument name, or a function from the parameters (``way``, ``rule``) to one.
        needs: the request types it sends; ways: the rules in topologies it always asks for.
        topologies: those of which it asks any implementation that has some rule there.
        thrift: it runs once a rule, so each run has this part of a profile's examples.
        statement: its docstring's law; clauses: ids it cites; catches: planted bugs it must catch.
    """

    name: str
    inner: Callable[..., None]
    draws: Mapping[str, Draws]
    needs: tuple[type, ...]
    ways: tuple[Way, ...]
    topologies: tuple[str, ...]
    thrift: int
    statement: str
    clauses: tuple[str, ...]
    catches: tuple[str, ...]


def law(
    *,
    needs: tuple[type, ...],
    ways: tuple[Way, ...] = (),
    topologies: tuple[str, ...] = (),
    thrift: int = 1,
    **draws: Draws,
) -> Callable[[Property], Property]:
    """Declare a property; its docstring ends with ``Clause: x.y. Catches: planted.Name, ...``."""

    def declare(inner: Property) -> Property:
        text = " ".join((inner.__doc__ or "").split())
        declared = Law(
            name=inner.__name__,
            inner=inner,
            draws=draws,
            needs=needs,
            ways=ways,
            topologies=topologies,
            thrift=thrift,
            statement=re.split(r" Clauses?: ", text)[0],
            clauses=_listed(text, r"Clauses?: ", r"\d+\.\d+"),
            catches=_listed(text, r"Catches: ", r"planted\.\w+"),
        )

        @functools.wraps(inner)
        def run(**given: Any) -> None:
            raise AssertionError(f"{inner.__name__} runs under the hqde pytest plugin or hqde-verify only")

        signature = inspect.signature(inner)
        left = [parameter for name, parameter in signature.parameters.items() if name not in draws]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        run.__hqde_law__ = declared  # type: ignore[attr-defined]
        return run

    return declare


def find_law(function: object) -> Law | None:
    """The law that a function declares, or None."""
    found = getattr(function, "__hqde_law__", None)
    return found if isinstance(found, Law) else None


def _listed(text: str, head: str, item: str) -> tuple[str, ...]:
    found = re.search(rf"{head}({item}(?:, {item})*)", text)
    return tuple(found[1].split(", ")) if found else ()
