"""The registry of pre-aggregations, and their composition with rules.

Rounds run the compositions that are rules of their own (``mixed_trimmed_mean``, ``clipped_trimmed_mean`` and others,
which save passes over the rows); all others are for rows in one process.

Source: HQDE clauses 4.5 and 4.8; what happens to bounds in ``bounds``.
Pure: no clock, no randomness, no input or output; arguments are never changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from hqde_ref.core.kernels.rows import Updates, as_rows, require_data, require_finite
from hqde_ref.core.rules import bounds
from hqde_ref.core.rules.bound import Bound
from hqde_ref.core.rules.bucketing import average_buckets, check_size
from hqde_ref.core.rules.clipping import clip_adaptively, clip_rows
from hqde_ref.core.rules.nearest_neighbour_mixing import mix_nearest_neighbours
from hqde_ref.core.rules.preaggregation import PreAggregation
from hqde_ref.core.rules.rule import Rule
from hqde_ref.core.rules.settings import check_settings
from hqde_ref.errors import NotFinite

__all__ = ["PREAGGREGATIONS", "compose_rule"]

_LINEAR = frozenset({"positive_scale", "negation", "rotation", "coordinate_permutation"})


def _all_left(n: int, **settings: object) -> int:
    return n


def _majority(f: int) -> int:
    return 2 * f + 1


def _bucket(updates: Updates, *, faulty_max: int, size: int, order: Sequence[int] | None = None) -> tuple[Tensor, ...]:
    return average_buckets(updates, size=size, order=order)


def _buckets_left(n: int, *, size: int, order: object = None) -> int:
    check_size(size)
    return -(-n // size) if n >= size else 0  # less than one bucket


def _clip_statically(updates: Updates, *, faulty_max: int, limit: float) -> tuple[Tensor, ...]:
    return clip_rows(updates, limit=limit)


def _bucketed_kappa(n: int, f: int, kappa: Callable[[int, int], float], *, size: int, order: object = None) -> float:
    return bounds.bucketed_kappa(n, f, kappa, size=size)


_ENTRIES = (
    PreAggregation(
        name="nearest_neighbour_mixing",
        prepare=mix_nearest_neighbours,
        least_contributions=_majority,
        left=_all_left,
        kappa=lambda n, f, kappa: bounds.mixed_kappa(n, f, kappa(n, f)),
        bound="8f / (n - f) (k + 1)",
        symmetries=_LINEAR | {"permutation", "translation", "idempotent", "exact_fit", "hull", "box"},
        family="gram",
        source="Allouah et al. 2023 (arXiv:2302.01772), Lemma 1",
        description="Each contribution becomes the mean of the n - f nearest to it, itself among them.",
    ),
    PreAggregation(
        name="bucketing",
        prepare=_bucket,
        least_contributions=lambda f: 1,
        left=_buckets_left,
        kappa=_bucketed_kappa,
        bound="with k for b = ceil(n / size) rows: h (k + 1) / (size (b - f)) - 1 if size divides n, "
        "else h (k + 1) / (r (b - f)), r = n - size (b - 1) being the rows in the last bucket",
        symmetries=_LINEAR
        | {"translation", "diagonal_scale", "idempotent", "exact_fit", "hull", "box"}
        | {"honest_box", "monotone", "lipschitz"},
        family="coordinatewise",
        source="Karimireddy et al. 2022 (arXiv:2006.09365); the bound for any order is derived in rules/bounds.py",
        description="Means of groups of `size`, in an `order` nobody can foresee; where f is just below n / 3, size 1.",
    ),
    PreAggregation(
        name="static_clipping",
        prepare=_clip_statically,
        least_contributions=lambda f: 1,
        left=_all_left,
        kappa=None,
        bound="none proven; k itself while no honest contribution is longer than the limit",
        symmetries=(_LINEAR - {"positive_scale"}) | {"permutation"},
        family="staged",
        source="folklore; the mean of rows clipped so is centred clipping from 0 (arXiv:2012.10333)",
        description="Contributions longer than `limit` are shortened to it.",
    ),
    PreAggregation(
        name="adaptive_clipping",
        prepare=clip_adaptively,
        least_contributions=_majority,
        left=_all_left,
        kappa=lambda n, f, kappa: bounds.clipped_kappa(n, f, kappa(n, f)),
        bound="k + 2f / (n - 2f)",
        symmetries=_LINEAR | {"permutation", "idempotent", "exact_fit", "majority_fit"},
        family="staged",
        source="Allouah et al. 2024 (arXiv:2405.14432)",
        description="The floor(2 f (n - f) / n) longest contributions are shortened to the length of the next.",
    ),
)
PREAGGREGATIONS: Mapping[str, PreAggregation] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def compose_rule(first: PreAggregation, rule: Rule, **settings: Any) -> Rule:
    """Return the rule that applies ``rule`` to what ``first``, with these settings, makes of the rows.

    The result is a ``Rule`` as those of the registry: it takes the settings of ``rule``, knows how many rows it
    needs, the bound that follows, and the symmetries of both. It can be composed again.

    Raises:
        ConfigurationError: ``first`` has no such setting, or cannot do without one that is not given.
    """
    check_settings(first.name, first.prepare, settings)

    @wraps(rule.aggregate)  # so that its settings are seen
    def aggregate(updates: Updates, *, faulty_max: int, **of_rule: Any) -> Tensor:
        check_settings(rule.name, rule.aggregate, of_rule)
        rows = as_rows(updates, rule=name)
        composed.require_count(len(rows), faulty_max)
        require_data(name, rows)
        try:
            prepared = first.prepare(rows, faulty_max=faulty_max, **settings)
        except NotFinite:
            require_finite(name, rows)  # by the name of what the caller uses
            raise
        return rule.aggregate(prepared, faulty_max=faulty_max, **of_rule)

    def least(f: int) -> int:
        enough, own = rule.least_contributions(f), first.least_contributions(f)
        most = own
        while first.left(most, **settings) < enough:
            most *= 2
        return own + bisect_left(range(own, most), enough, key=lambda n: first.left(n, **settings))

    name, proven = f"{first.name} + {rule.name}", tuple[Bound, ...]()
    if first.kappa is not None and rule.kappa is not None:
        constant = partial(first.kappa, kappa=rule.kappa, **settings)
        proven = (Bound(measure="variance", constant=constant, source=f"{first.source}; {rule.source}"),)
    composed = Rule(
        name=name,
        aggregate=aggregate,
        least_contributions=least,
        bounds=proven,
        symmetries=first.symmetries & rule.symmetries,
        family=_family(first, rule),
        source=f"{first.source}; {rule.source}",
        certify=None,
        description=f"{first.description.rstrip('.')}; then: {rule.description}",
    )
    return composed


def _family(first: PreAggregation, rule: Rule) -> Literal["mean", "coordinatewise", "gram", "staged"]:
    if first.family == "coordinatewise":  # a mean of means of groups is the mean no more
        return "coordinatewise" if rule.family == "mean" else rule.family
    return "gram" if (first.family, rule.family) == ("gram", "gram") else "staged"
