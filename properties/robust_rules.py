"""The robust rules that the suite knows: what is proven of each, and its symmetries.

Source: HQDE clauses 4.5, 4.6, 4.8 and 4.9; ``simulator.proven_bounds``. n contributions of which f may be anything.
Written without a look at the core: judges do not borrow from the judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hqde_ref.messages import message

__all__ = ["ROBUST", "UNPROVEN", "RobustRule"]


@message
class RobustRule:
    """What holds of a rule beside its bound.

    Attributes:
        translates, negates, rotates: shifting, negating or turning all contributions does so to the result.
        ties: distinct contributions often score alike, so that the tie-break by content shows in its symmetries.
        faulty_most: for how many liars it can be computed in the time of a test.
    """

    translates: bool = True
    negates: bool = True
    rotates: bool = True
    ties: bool = False
    faulty_most: int = 40


ROBUST: Final[Mapping[str, RobustRule]] = {
    "geometric_median": RobustRule(),
    "filtered_geometric_median": RobustRule(),
    "coordinate_median": RobustRule(rotates=False),
    "lower_coordinate_median": RobustRule(rotates=False, negates=False),
    "trimmed_mean": RobustRule(rotates=False),
    "mean_around_median": RobustRule(rotates=False),
    "krum": RobustRule(),
    "multi_krum": RobustRule(),
    "minimum_diameter_mean": RobustRule(ties=True, faulty_most=3),
    "smallest_spread_mean": RobustRule(faulty_most=3),
    "mixed_trimmed_mean": RobustRule(rotates=False),
    "mixed_geometric_median": RobustRule(),
    "mixed_krum": RobustRule(ties=True),
    "clipped_trimmed_mean": RobustRule(translates=False, rotates=False),
}

# Rules that are offered, but not as robust for f < n/3: section 0 binds them, the bounds do not.
UNPROVEN: Final[Mapping[str, RobustRule]] = {
    "covariance_filter": RobustRule(),
    "bulyan": RobustRule(rotates=False),
    "centred_clipping": RobustRule(rotates=False),
}
