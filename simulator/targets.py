"""Which hosts or members a fault hits: drawn from a stream of its own, so the same file and seed hit the same ones."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from random import Random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Fixed", "FixedPercent", "Placement", "Strict", "Target", "choose_targets", "target_count"]

_SHOWN = 8  # names in an error


class Strict(BaseModel):
    """A part of a scenario: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Fixed(Strict):
    """So many."""

    fixed: Annotated[int, Field(ge=0, strict=True)]


class FixedPercent(Strict):
    """So many of a hundred, rounded down."""

    fixed_percent: Annotated[float, Field(ge=0, le=100)] = Field(alias="fixed-percent")


Target = Literal["one", "all", "minority", "majority", "minority-third"] | Fixed | FixedPercent | tuple[str, ...] | str
Placement = Literal["random", "spread", "packed"]


def target_count(target: Target, *, population: int) -> int:
    """How many a worded target means: minority-third is the largest f with 3f < n."""
    match target:
        case "one":
            return min(1, population)
        case "all":
            return population
        case "minority":
            return (population - 1) // 2
        case "majority":
            return population // 2 + 1
        case "minority-third":
            return (population - 1) // 3
        case Fixed(fixed=count):
            return count
        case FixedPercent(fixed_percent=percent):
            return int(population * percent / 100)
        case str():
            return 1
        case _:
            return len(target)


def choose_targets(
    target: Target,
    population: Sequence[str],
    *,
    draw: Random,
    placement: Placement = "random",
) -> tuple[str, ...]:
    """Names, in the order of the population.

    Raises:
        ValueError: for a name that is not in the population, or more than there are.
    """
    if isinstance(target, str) and target not in ("one", "all", "minority", "majority", "minority-third"):
        target = (target,)
    if isinstance(target, tuple):
        for name in target:
            if name not in population:
                near = difflib.get_close_matches(name, population, n=1)
                known = ", ".join(population[:_SHOWN]) + (", ..." if len(population) > _SHOWN else "")
                hint = f"did you mean {near[0]!r}?" if near else f"there are {known}"
                raise ValueError(f"there is no {name!r}; {hint}")
        return tuple(name for name in population if name in target)
    count = target_count(target, population=len(population))
    if count > len(population):
        raise ValueError(f"wanted {count} of only {len(population)}")
    match placement:
        case "random":
            chosen = sorted(draw.sample(range(len(population)), count))
        case "spread":
            chosen = [index * len(population) // count for index in range(count)]
        case "packed":
            chosen = list(range(count))
    return tuple(population[index] for index in chosen)
