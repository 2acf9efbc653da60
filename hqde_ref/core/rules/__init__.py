"""The registry of aggregation rules and pre-aggregations: each with its condition, bound, symmetries and source.

Source: HQDE clauses 0.7, 4.5, 4.7, 4.8 and 4.9.
Pure: no clock, no randomness, no input or output. A rule without a proven bound says so (``bounds`` is empty) and is
never offered as robust for f < n / 3.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from torch import Tensor

from hqde_ref.core.certificates import Certificate
from hqde_ref.core.kernels.rows import Updates
from hqde_ref.core.rules.bound import MEASURES, Bound, ratio_to_bound
from hqde_ref.core.rules.catalogue import ENTRIES
from hqde_ref.core.rules.preaggregation import PreAggregation
from hqde_ref.core.rules.preparing import PREAGGREGATIONS, compose_rule
from hqde_ref.core.rules.rule import SYMMETRIES, Rule
from hqde_ref.core.rules.settings import check_settings
from hqde_ref.errors import ConfigurationError

__all__ = [
    "MEASURES",
    "PREAGGREGATIONS",
    "RULES",
    "SYMMETRIES",
    "Bound",
    "PreAggregation",
    "Rule",
    "certify",
    "compose",
    "get_preaggregation",
    "get_rule",
    "ratio_to_bound",
]

RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in ENTRIES})


def get_rule(name: str) -> Rule:
    """Return the rule of that name.

    Raises:
        ConfigurationError: there is none; it suggests the nearest name.
    """
    return _find(RULES, name, what="rule", where="RULES")


def get_preaggregation(name: str) -> PreAggregation:
    """Return the pre-aggregation of that name.

    Raises:
        ConfigurationError: there is none; it suggests the nearest name.
    """
    return _find(PREAGGREGATIONS, name, what="pre-aggregation", where="PREAGGREGATIONS")


def compose(preaggregation: str, rule: str | Rule, **settings: object) -> Rule:
    """Return the rule that applies ``rule`` to what the pre-aggregation of that name makes of the rows.

    Args:
        preaggregation: a name in ``PREAGGREGATIONS``.
        rule: a name in ``RULES``, or a rule that was composed before.
        settings: those of the pre-aggregation; the rule's own are given to the result's ``aggregate``.
    Raises:
        ConfigurationError: no such name or setting, or one is missing.
    """
    after = rule if isinstance(rule, Rule) else get_rule(rule)
    return compose_rule(get_preaggregation(preaggregation), after, **settings)


_THEN = " + "  # in the names of compositions
_Entry = TypeVar("_Entry")


def _find(table: Mapping[str, _Entry], name: str, *, what: str, where: str) -> _Entry:
    if isinstance(name, str) and name in table:
        return table[name]
    close = difflib.get_close_matches(str(name), table, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"see hqde_ref.core.rules.{where}"
    raise ConfigurationError(setting=what, wanted=f"one of {', '.join(sorted(table))}", got=name, do=hint)


def _refuse_composed(given: object) -> None:
    """Say of a rule that was made by ``compose``, by its name or itself, that it has no certificate."""
    name = given.name if isinstance(given, Rule) else given
    if isinstance(name, str) and name.split(_THEN)[0] in PREAGGREGATIONS:
        do = "compositions have no certificate: certify the rule by itself, on the rows that the pre-aggregation makes"
    elif isinstance(given, Rule):
        do = f"pass its name, {name!r}" if name in RULES else "ask its own certify, if it has one"
    else:
        return
    got = f"the rule {name!r} itself" if isinstance(given, Rule) else name
    raise ConfigurationError(setting="rule to certify", wanted="a name in hqde_ref.core.rules.RULES", got=got, do=do)


def certify(rule_name: str, updates: Updates, output: Tensor, *, faulty_max: int, **settings: object) -> Certificate:
    """Judge anybody's ``output`` as what the rule of that name should give on ``updates`` with these settings.

    Args:
        rule_name: a rule of ``RULES`` with a certificate; compositions have none.
        updates: n tensors (d,) or one (n, d) tensor, finite.
        output: (d,) on the same device, float16, bfloat16, float32 or float64 whatever the rows are.
        faulty_max: how many rows may hold anything at all.
        settings: those of the rule (``Rule.settings``) that the output was made with; the rule's defaults otherwise.
    Raises:
        ConfigurationError: no such rule, or it has no certificate, or no such setting, or one out of its range.
        TooFewContributions, LayoutError, NotFinite: for rows or an output that do not fit.
    """
    _refuse_composed(rule_name)
    rule = get_rule(rule_name)
    if rule.certify is None:
        known = ", ".join(sorted(name for name, entry in RULES.items() if entry.certify is not None))
        raise ConfigurationError(
            setting="rule to certify",
            wanted=f"one of {known}",
            got=rule_name,
            do="compare with the reference's own output instead",
        )
    check_settings(rule_name, rule.certify, settings)
    return rule.certify(updates, output, faulty_max=faulty_max, **settings)
