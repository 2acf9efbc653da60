"""``byzfl``: its aggregators, as a torch user gets them, with their default settings.

Rules bear this suite's names: ``MDA`` is minimum_diameter_mean, ``Meamed`` mean_around_median, ``SMEA``
smallest_spread_mean, ``CAF`` covariance_filter; mixed_* is ``NNM`` with f, then the aggregator.
Variants: the median of an even count is the midpoint; Krum sums the distances to n - f - 1 neighbours (its paper:
n - f - 2), Multi-Krum takes n - f; the geometric median is smoothed (nu = 0.1) and iterated three times from zero;
centred clipping starts at zero and keeps its last result for the next call; SMEA and CAF guess eigenvalues by one
power step from a random start (of 20 rounds of 9 rows, SMEA found the subset that brute force finds in 8). All of them
compute in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hqde_ref.messages import Aggregate
from properties.adapters.common import Functions, Rule, as_vectors, equal_masses, from_vector, stand_in_for

stand_in_for("torchvision")

import byzfl  # noqa: E402


def _mixed(faulty_max: int, aggregator: Any) -> Callable[[list[Tensor]], Any]:
    mix = byzfl.NNM(f=faulty_max)
    return lambda vectors: aggregator(mix(vectors))


MAKERS: Mapping[str, Callable[[int], Any]] = {
    "weighted_mean": lambda _f: byzfl.Average(),
    "coordinate_median": lambda _f: byzfl.Median(),
    "trimmed_mean": lambda f: byzfl.TrMean(f=f),
    "geometric_median": lambda _f: byzfl.GeometricMedian(),
    "krum": lambda f: byzfl.Krum(f=f),
    "multi_krum": lambda f: byzfl.MultiKrum(f=f),
    "minimum_diameter_mean": lambda f: byzfl.MDA(f=f),
    "mean_around_median": lambda f: byzfl.Meamed(f=f),
    "smallest_spread_mean": lambda f: byzfl.SMEA(f=f),
    "covariance_filter": lambda f: byzfl.CAF(f=f),
    "centred_clipping": lambda _f: byzfl.CenteredClipping(),
    "mixed_trimmed_mean": lambda f: _mixed(f, byzfl.TrMean(f=f)),
    "mixed_geometric_median": lambda f: _mixed(f, byzfl.GeometricMedian()),
    "mixed_krum": lambda f: _mixed(f, byzfl.Krum(f=f)),
}


def _rules() -> dict[str, Rule]:
    """Rules that keep one aggregator for all rounds of a node, as a user of the package does."""
    made: dict[tuple[str, int, int], Any] = {}

    def rule(name: str) -> Rule:
        def apply(request: Aggregate) -> Mapping[str, Tensor]:
            if name == "weighted_mean":
                equal_masses(request, "byzfl")
            vectors = as_vectors(request.updates, "byzfl")
            key = (name, request.faulty_max, len(vectors[0]) if vectors else 0)
            if key not in made:
                made[key] = MAKERS[name](request.faulty_max)
            return from_vector(made[key](vectors), request.updates[0])

        return apply

    return {name: rule(name) for name in MAKERS}


def implementation() -> Functions:
    """For ``module:attribute``."""
    return Functions("byzfl", _rules, distribution="byzfl")
