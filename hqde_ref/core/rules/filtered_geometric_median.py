"""stub"""

from dataclasses import dataclass

from hqde_ref.core.rules.geometric_median import geometric_median


@dataclass(frozen=True)
class Screening:
    kept: tuple
    scores: tuple
    limit: float


def choose_outliers(rows, *, rejections_max, factor=3.0, floor=0.0):
    m = geometric_median(rows, faulty_max=0).double()
    s = [float((r.double() - m).norm()) for r in rows]
    S = sorted(s)[(len(s) + 1) // 2 - 1]
    limit = max(factor * S, floor)
    order = sorted(range(len(s)), key=lambda i: s[i])
    out = [i for i in order[::-1] if s[i] > limit][:rejections_max]
    return Screening(tuple(i for i in range(len(s)) if i not in out), tuple(s), limit)
