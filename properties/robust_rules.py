"""The robust rules that the suite knows, and the mean: what holds of each beside its bound.

Source: HQDE clauses 4.5, 4.6, 4.8 and 4.9; ``simulator.proven_bounds``. n contributions of which f may be anything.
Written without a look at the core: judges do not borrow from the judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

from hqde_ref.messages import message

__all__ = ["ROBUST", "RULES", "UNPROVEN", "RobustRule"]


@message
class RobustRule:
    """What holds of a rule beside its bound.

    Attributes:
        translates, scales, negates, rotates: a shift, a factor, -1, or a turn of all contributions acts on the result.
        stretches: so does a factor of its own for each coordinate.
        rises: raising a value lowers no value of the result.
        inside: whose range no value of the result leaves; None: clipping may take it out of everyone's.
        fits: if all honest send the same, that is the result.
        picks: the result is one of the contributions.
        ties: distinct contributions often score alike, unless as many as may lie stand apart: the tie-break by content
            shows in symmetries.
        faulty_untied: the f at which symmetries are looked at: distinct contributions seldom score alike.
        faulty_most: for how many liars it can be computed in the time of a test.
    """

    translates: bool = True
    scales: bool = True
    negates: bool = True
    rotates: bool = True
    stretches: bool = False
    rises: bool = False
    inside: Literal["everyone", "honest"] | None = "everyone"
    fits: bool = True
    picks: bool = False
    ties: bool = False
    faulty_untied: int = 1
    faulty_most: int = 40


_BY_RANK: Final = RobustRule(rotates=False, stretches=True, rises=True, inside="honest")

ROBUST: Final[Mapping[str, RobustRule]] = {
    "geometric_median": RobustRule(),
    "blockwise_geometric_median": RobustRule(rotates=False),  # only what holds whatever the blocks
    "filtered_geometric_median": RobustRule(),
    "coordinate_median": _BY_RANK,
    "lower_coordinate_median": replace(_BY_RANK, negates=False),
    "trimmed_mean": _BY_RANK,
    "mean_around_median": RobustRule(rotates=False, stretches=True),
    "krum": RobustRule(picks=True),
    "multi_krum": RobustRule(),
    # Krum on the last few rows counts one neighbour, and two rows are each other's nearest, unless f is 3 or more.
    "bulyan": RobustRule(rotates=False, faulty_untied=3),
    "minimum_diameter_mean": RobustRule(ties=True, faulty_most=3),
    "smallest_spread_mean": RobustRule(faulty_most=3),
    "mixed_trimmed_mean": RobustRule(rotates=False),
    "mixed_geometric_median": RobustRule(),
    "mixed_krum": RobustRule(ties=True),
    "clipped_trimmed_mean": RobustRule(translates=False, rotates=False, inside=None),
}

# Rules that are offered, but not as robust: section 0 binds them, the bounds do not.
UNPROVEN: Final[Mapping[str, RobustRule]] = {
    "covariance_filter": RobustRule(fits=False),
    # Only what holds from any centre with any radius: zero and a constant, say, as well as a median and a distance.
    "centred_clipping": RobustRule(translates=False, scales=False, rotates=False, inside=None, fits=False),
}

# Those and the mean, which withstands nobody but has symmetries too.
RULES: Final[Mapping[str, RobustRule]] = {
    "weighted_mean": RobustRule(stretches=True, rises=True, fits=False, faulty_untied=0, faulty_most=0),
    **ROBUST,
    **UNPROVEN,
}
