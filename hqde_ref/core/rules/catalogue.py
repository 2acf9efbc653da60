"""The entries of the registry, one a rule.

Source: HQDE clauses 4.5 and 4.8; constants in ``bounds``, symmetries as checked numerically in the theory page.
Pure: data.
"""

from __future__ import annotations

from hqde_ref.core.certificates import certify_geometric_median, certify_weighted_mean
from hqde_ref.core.rules import bounds
from hqde_ref.core.rules.blockwise_geometric_median import blockwise_geometric_median
from hqde_ref.core.rules.bound import Bound
from hqde_ref.core.rules.bulyan import bulyan
from hqde_ref.core.rules.centred_clipping import centred_clipping
from hqde_ref.core.rules.certifying import (
    certify_blockwise,
    certify_filtered,
    certify_krum,
    certify_lower_median,
    certify_median,
    certify_multi_krum,
    certify_trimmed,
)
from hqde_ref.core.rules.clipping import clipped_trimmed_mean
from hqde_ref.core.rules.coordinate_median import coordinate_median, lower_coordinate_median
from hqde_ref.core.rules.filtered_geometric_median import filtered_geometric_median
from hqde_ref.core.rules.geometric_median import geometric_median
from hqde_ref.core.rules.krum import krum, multi_krum
from hqde_ref.core.rules.mean_around_median import mean_around_median
from hqde_ref.core.rules.minimum_diameter import minimum_diameter_mean
from hqde_ref.core.rules.nearest_neighbour_mixing import mixed_geometric_median, mixed_krum, mixed_trimmed_mean
from hqde_ref.core.rules.rule import Rule
from hqde_ref.core.rules.spectral import covariance_filter, smallest_spread_mean
from hqde_ref.core.rules.trimmed_mean import trimmed_mean
from hqde_ref.core.rules.weighted_mean import weighted_mean

__all__ = ["ENTRIES"]

_COMMON = frozenset({"permutation", "positive_scale", "negation", "coordinate_permutation", "idempotent", "box"})
_COORDINATEWISE = _COMMON | {"translation", "diagonal_scale"}
_ORDERLY = frozenset({"honest_box", "monotone", "lipschitz"})
_EUCLIDEAN = _COMMON | {"translation", "rotation", "hull"}


def _majority(f: int) -> int:
    return 2 * f + 1


def _krum_least(f: int) -> int:
    return 2 * f + 3


ENTRIES: tuple[Rule, ...] = (
    Rule(
        name="weighted_mean",
        aggregate=weighted_mean,
        family="mean",
        least_contributions=lambda f: 1,
        bounds=(),
        symmetries=_EUCLIDEAN | {"diagonal_scale", "monotone", "lipschitz"},
        certify=certify_weighted_mean,
        source="clause 3.3; Blanchard et al. 2017, Lemma 1",
        description="Weighted mean with order-free bits, good to n * 2^-51 of the greatest entry; tolerates no faulty "
        "contribution.",
    ),
    Rule(
        name="coordinate_median",
        aggregate=coordinate_median,
        family="coordinatewise",
        in_tree="half",
        least_contributions=_majority,
        bounds=(
            Bound(measure="variance", constant=bounds.median_kappa, tight=True),
            Bound(measure="range", constant=bounds.median_range, tight=True),
        ),
        symmetries=_COORDINATEWISE | _ORDERLY | {"exact_fit", "majority_fit"},
        certify=certify_median,
        source="Yin et al. 2018 (arXiv:1803.01498)",
        description="Middle value of every coordinate; midpoint of the two middle ones if their number is even.",
    ),
    Rule(
        name="lower_coordinate_median",
        aggregate=lower_coordinate_median,
        family="coordinatewise",
        in_tree="half",
        least_contributions=_majority,
        bounds=(
            Bound(measure="variance", constant=bounds.lower_median_kappa, tight=True),
            Bound(measure="range", constant=bounds.lower_median_range, tight=True),
        ),
        symmetries=(_COORDINATEWISE | _ORDERLY | {"exact_fit", "majority_fit", "monotone_map"}) - {"negation"},
        certify=certify_lower_median,
        source="Yin et al. 2018 (arXiv:1803.01498); torch.median",
        description="Middle value of every coordinate; the lower of the two middle ones if their number is even.",
    ),
    Rule(
        name="trimmed_mean",
        aggregate=trimmed_mean,
        family="coordinatewise",
        in_tree="half",
        least_contributions=_majority,
        bounds=(
            Bound(measure="variance", constant=bounds.trimmed_kappa, tight=True),
            Bound(measure="range", constant=bounds.trimmed_range, tight=True),
        ),
        symmetries=_COORDINATEWISE | _ORDERLY | {"exact_fit"},
        certify=certify_trimmed,
        source="Yin et al. 2018 (arXiv:1803.01498); optimal by Allouah et al. 2023 (arXiv:2302.01772)",
        description="Mean of every coordinate without its f smallest and f largest values; the best constant there is.",
    ),
    Rule(
        name="mean_around_median",
        aggregate=mean_around_median,
        family="coordinatewise",
        least_contributions=_majority,
        bounds=(
            Bound(measure="variance", constant=bounds.mean_around_median_kappa),
            Bound(
                measure="range",
                constant=bounds.mean_around_median_range,
                tight=True,
                source="Farhadkhani et al. 2022 (arXiv:2205.12173)",
            ),
        ),
        symmetries=_COORDINATEWISE | {"exact_fit"},
        certify=None,
        source="Xie et al. 2018 (arXiv:1802.10116)",
        description="Mean of the n - f values of every coordinate that are nearest to its median (MeaMed).",
    ),
    Rule(
        name="geometric_median",
        aggregate=geometric_median,
        family="gram",
        in_tree="half",
        least_contributions=_majority,
        bounds=(
            Bound(measure="variance", constant=bounds.lower_median_kappa, tight=True),
            Bound(
                measure="radius",
                constant=bounds.geometric_median_radius,
                tight=True,
                source="Minsker 2015 (arXiv:1308.1334), Lemma 2.1",
            ),
            Bound(measure="distances", constant=bounds.geometric_median_distances, tight=True),
        ),
        symmetries=_EUCLIDEAN | {"exact_fit", "majority_fit"},
        certify=certify_geometric_median,
        source="Minsker 2015 (arXiv:1308.1334); clause 4.7",
        description="Point with the least sum of distances to all contributions, certified.",
    ),
    Rule(
        name="blockwise_geometric_median",
        aggregate=blockwise_geometric_median,
        family="gram",
        least_contributions=_majority,
        bounds=(Bound(measure="variance", constant=bounds.lower_median_kappa, tight=True),),
        symmetries=_EUCLIDEAN | {"exact_fit", "majority_fit"},  # block by block; without blocks the row is one
        certify=certify_blockwise,
        source="Minsker 2015 (arXiv:1308.1334), block by block; clause 4.7",
        description="Geometric median of each of the `blocks` of coordinates by itself; in a round the row is one.",
    ),
    Rule(
        name="filtered_geometric_median",
        aggregate=filtered_geometric_median,
        family="gram",
        least_contributions=lambda f: 3 * f + 1,
        bounds=(
            Bound(measure="variance", constant=bounds.filtered_kappa),
            Bound(measure="radius", constant=bounds.filtered_radius),
            Bound(measure="distances", constant=bounds.filtered_distances),
        ),
        symmetries=_EUCLIDEAN | {"exact_fit", "majority_fit"},
        certify=certify_filtered,
        source="HQDE section 4 as clauses 4.3 and 4.4 read it",
        description="Geometric median after at most f contributions far out were rejected: HQDE's own rule, provable.",
    ),
    Rule(
        name="krum",
        aggregate=krum,
        family="gram",
        least_contributions=_krum_least,
        bounds=(Bound(measure="variance", constant=bounds.krum_kappa),),
        symmetries=_EUCLIDEAN | {"exact_fit"},
        certify=certify_krum,
        source="Blanchard et al. 2017 (arXiv:1703.02757)",
        description="The contribution with the least sum of squared distances to its n - f - 2 nearest others.",
    ),
    Rule(
        name="multi_krum",
        aggregate=multi_krum,
        family="gram",
        least_contributions=_krum_least,
        bounds=(Bound(measure="variance", constant=bounds.multi_krum_kappa),),
        symmetries=_EUCLIDEAN | {"exact_fit"},
        certify=certify_multi_krum,
        source="Blanchard et al. 2017 (arXiv:1703.02757); Bareilles et al. 2026 (arXiv:2602.03899)",
        description="Mean of the n - f contributions with the lowest Krum scores.",
    ),
    Rule(
        name="minimum_diameter_mean",
        aggregate=minimum_diameter_mean,
        family="gram",
        least_contributions=_majority,
        bounds=(
            Bound(measure="variance", constant=bounds.minimum_diameter_kappa),
            Bound(
                measure="diameter",
                constant=bounds.minimum_diameter,
                tight=True,
                source="Farhadkhani et al. 2022 (arXiv:2205.12173)",
            ),
        ),
        symmetries=_EUCLIDEAN | {"exact_fit"},
        certify=None,
        source="El Mhamdi et al. 2018 (arXiv:1802.07927); Farhadkhani et al. 2022 (arXiv:2205.12173)",
        description="Mean of the n - f contributions of least diameter, found exactly.",
    ),
    Rule(
        name="smallest_spread_mean",
        aggregate=smallest_spread_mean,
        family="gram",
        least_contributions=_majority,
        bounds=(
            Bound(measure="variance", constant=bounds.smallest_spread_kappa, source="Allouah et al. 2023 (SMEA)"),
            Bound(measure="covariance", constant=bounds.smallest_spread_kappa, source="Allouah et al. 2023 (SMEA)"),
        ),
        symmetries=_EUCLIDEAN | {"exact_fit"},
        certify=None,
        source="Allouah et al. 2023 (SMEA)",
        description="Mean of the n - f contributions whose covariance has the smallest largest eigenvalue.",
    ),
    Rule(
        name="covariance_filter",
        aggregate=covariance_filter,
        family="gram",
        least_contributions=_majority,
        bounds=(),
        symmetries=_EUCLIDEAN,
        certify=None,
        source="Allouah et al. 2025 (CAF); no constant proven here",
        description="Weighted mean whose weights shrink along the widest direction until n - 2f is left.",
    ),
    Rule(
        name="bulyan",
        aggregate=bulyan,
        family="staged",
        least_contributions=lambda f: 4 * f + 3,
        bounds=(Bound(measure="variance", constant=bounds.bulyan_kappa),),
        symmetries=(_COMMON | {"translation", "exact_fit"}),
        certify=None,
        source="El Mhamdi et al. 2018 (arXiv:1802.07927)",
        description="Repeated Krum, then each coordinate's mean of the n - 4f values nearest to its median.",
    ),
    Rule(
        name="centred_clipping",
        aggregate=centred_clipping,
        family="staged",
        least_contributions=_majority,
        bounds=(Bound(measure="variance", constant=bounds.centred_clipping_kappa),),
        symmetries=_COMMON | {"translation", "exact_fit", "majority_fit"},
        certify=None,
        source="Karimireddy et al. 2021 (arXiv:2012.10333)",
        description="One step from the coordinate-wise median, each contribution's pull cut to the median distance.",
    ),
    Rule(
        name="mixed_trimmed_mean",
        aggregate=mixed_trimmed_mean,
        family="staged",
        least_contributions=_majority,
        bounds=(
            Bound(
                measure="variance",
                constant=lambda n, f: bounds.mixed_kappa(n, f, bounds.trimmed_kappa(n, f)),
                source="Allouah et al. 2023 (arXiv:2302.01772), Lemma 1",
            ),
        ),
        symmetries=_COMMON | {"translation", "exact_fit"},
        certify=None,
        source="Allouah et al. 2023 (arXiv:2302.01772)",
        description="Trimmed mean after nearest-neighbour mixing.",
    ),
    Rule(
        name="mixed_geometric_median",
        aggregate=mixed_geometric_median,
        family="gram",
        least_contributions=_majority,
        bounds=(
            Bound(
                measure="variance",
                constant=lambda n, f: bounds.mixed_kappa(n, f, bounds.lower_median_kappa(n, f)),
                source="Allouah et al. 2023 (arXiv:2302.01772), Lemma 1",
            ),
        ),
        symmetries=_EUCLIDEAN | {"exact_fit"},
        certify=None,
        source="Allouah et al. 2023 (arXiv:2302.01772)",
        description="Geometric median after nearest-neighbour mixing, solved in coefficient space.",
    ),
    Rule(
        name="mixed_krum",
        aggregate=mixed_krum,
        family="gram",
        least_contributions=_krum_least,
        bounds=(
            Bound(
                measure="variance",
                constant=lambda n, f: bounds.mixed_kappa(n, f, bounds.krum_kappa(n, f)),
                source="Allouah et al. 2023 (arXiv:2302.01772), Lemma 1",
            ),
        ),
        symmetries=_EUCLIDEAN | {"exact_fit"},
        certify=None,
        source="Allouah et al. 2023 (arXiv:2302.01772)",
        description="Krum after nearest-neighbour mixing, scored in coefficient space.",
    ),
    Rule(
        name="clipped_trimmed_mean",
        aggregate=clipped_trimmed_mean,
        family="staged",
        least_contributions=_majority,
        bounds=(
            Bound(
                measure="variance",
                constant=lambda n, f: bounds.clipped_kappa(n, f, bounds.trimmed_kappa(n, f)),
                source="Allouah et al. 2024 (arXiv:2405.14432)",
            ),
        ),
        symmetries=(_COMMON - {"box"}) | {"exact_fit"},  # more than f rows may be shortened, towards the origin
        certify=None,
        source="Allouah et al. 2024 (arXiv:2405.14432)",
        description="Trimmed mean after the longest contributions were shortened (adaptive robust clipping).",
    ),
)
