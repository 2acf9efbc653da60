"""What a worker's losses make of its efficiency.

Source: HQDE clause 1.5 with erratum E3. Pure.
"""

from __future__ import annotations

import math

__all__ = ["EFFICIENCY_LEAST", "EFFICIENCY_START", "next_efficiency"]

EFFICIENCY_START = 1.0
EFFICIENCY_LEAST = 0.1


def next_efficiency(efficiency: float, loss: float) -> float:
    """s <- max(0.1, 0.99 s + 0.01 / (1 + loss)), in [0.1, 1] (clause 1.5).

    A negative loss counts as 0, a loss that is not finite as 1 / (1 + loss) = 0 (E3).
    """
    gain = 1.0 / (1.0 + max(loss, 0.0)) if math.isfinite(loss) else 0.0
    return max(EFFICIENCY_LEAST, 0.99 * efficiency + 0.01 * gain)
