"""Write docs/rules.md from the registry and the worst inputs kept: ``python -m tests.rules_page``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from hqde_ref.core.rules import MEASURES, PREAGGREGATIONS, RULES, Bound, PreAggregation, Rule
from tests.worst_inputs import kept_inputs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "rules.md"
_COUNT = 10
_HEAD = f"""# Aggregation rules

Made from the registry by `python -m tests.rules_page`; a test keeps it true. n contributions, of which f may hold
anything, h = n - f honest ones, V their mean squared distance from their mean. A rule with a bound promises
|result - honest mean|^2 <= kappa * V on every input; the table has kappa for n = {_COUNT} and f = 1, 2, 3.

- **least n** is the fewest contributions the rule takes.
- **nearest** is how near the worst input found (`tests/worst_inputs.py` climbs) comes to the bound. At 1.000 the
  constant is attained and cannot be improved.
- **settings** are what a rule takes beside rows and f; bounds are for the defaults. `weights` are one a row.
- **certificate**: `certify(name, updates, output, faulty_max=f, **settings)` judges anybody's output.
- **topologies**: a sharded round keeps the full f < n / 3 with O(d) a node. A tree takes means, and
  node by node the rules of which something is proven there: a value that stays in the honest range at every node does
  so at the root, and the radius factors of geometric medians multiply; no kappa is left of either. It survives one liar
  less than the cheapest way to its root takes (3 of 9 with b = 3, 8 of 25 with b = 5, nobody with b = 2), and a policy
  that asks for more is refused (clause 3.7). Of the others nothing is proven that composes; Krum would besides need
  2f + 3 children at a node.

Which one? `trimmed_mean` has the best constant there is and is the cheapest; it knows nothing of directions.
`geometric_median` is certified from its output and turns with the coordinates. `mixed_trimmed_mean` and
`smallest_spread_mean` are made for attacks that hide within the scatter, at the cost of all distances. A rule without a
bound is offered for comparison and never as robust.

| rule | what it is | least n | kappa, f = 1, 2, 3 | nearest | settings | certificate | topologies | source |
|---|---|---|---|---|---|---|---|---|
"""
_BOUNDS = f"""
## Bounds beside kappa

`Rule.bounds` has them all as data, kappa first, and `ratio_to_bound(bound, result, honest, faulty=f)` says how much of
one a result uses up. F is the result, mu the mean of the honest; c is again for n = {_COUNT}, f = 1, 2, 3,
and *nearest* as above. Rules that keep to the honest range in every coordinate have the symmetry `honest_box`.

| rule | what holds | c, f = 1, 2, 3 | nearest | source |
|---|---|---|---|---|
"""
_PREAGGREGATIONS = """
## Pre-aggregations

They change the rows before a rule sees them. `compose("nearest_neighbour_mixing", "krum")` is a rule with its own
condition, bound and symmetries, and can be composed again; settings in this table are given to `compose`. k is the
kappa of the rule after it. Rounds run those compositions that are rules by themselves, above.

| pre-aggregation | what it does | settings | least n | kappa of both | keeps | source |
|---|---|---|---|---|---|---|
"""


def _line(rule: Rule) -> str:
    variance = next((bound for bound in rule.bounds if bound.measure == "variance"), None)
    cells = (
        f"`{rule.name}`",
        rule.description.rstrip("."),
        _least(rule),
        "none" if variance is None else _constants(rule, variance),
        "" if variance is None else _nearest(rule, variance),
        _listed(rule.settings),
        "yes" if rule.certify else "",
        ", ".join(rule.topologies),
        rule.source,
    )
    return f"| {' | '.join(cells)} |\n"


def _bound_lines() -> str:
    lines = [
        (
            f"`{name}`",
            MEASURES[bound.measure].replace("|", r"\|"),
            _constants(rule, bound),
            _nearest(rule, bound),
            bound.source,
        )
        for name, rule in RULES.items()
        for bound in rule.bounds
        if bound.measure != "variance"
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _constants(rule: Rule, bound: Bound) -> str:
    return ", ".join(f"{bound.constant(_COUNT, f):.3g}" for f in (1, 2, 3) if rule.least_contributions(f) <= _COUNT)


def _nearest(rule: Rule, bound: Bound) -> str:
    found = (kept.ratio for kept in kept_inputs() if (kept.rule, kept.measure) == (rule.name, bound.measure))
    return f"{max(found):.3f}"


def _preaggregation_line(first: PreAggregation) -> str:
    cells = (
        f"`{first.name}`",
        first.description.rstrip("."),
        _listed(first.settings),
        _least(first),
        first.bound,
        ", ".join(sorted(first.symmetries)),
        first.source,
    )
    return f"| {' | '.join(cells)} |\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _least(rule: Rule | PreAggregation) -> str:
    base, slope = rule.least_contributions(0), rule.least_contributions(1) - rule.least_contributions(0)
    assert rule.least_contributions(7) == base + 7 * slope
    return f"{slope}f + {base}" if slope else str(base)


def page() -> str:
    """The whole page."""
    rules = "".join(map(_line, RULES.values()))
    return _HEAD + rules + _BOUNDS + _bound_lines() + _PREAGGREGATIONS + _preaggregations()


def _preaggregations() -> str:
    return "".join(map(_preaggregation_line, PREAGGREGATIONS.values()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.name)
    sys.exit(0)
