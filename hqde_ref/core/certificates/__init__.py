"""Certificates: how good an output is, from the contributions and the output alone.

They are computed in float64 from the rows themselves and share with the solvers only how ties are broken, so they
judge anybody's output as they judge ours.

Source: HQDE clauses 4.5, 4.7 and 6.7.
Pure: no clock, no randomness, no input or output; arguments are never changed. A certificate says nothing about
which rows were honest: its bounds hold if at most ``faulty_max`` rows were not. Where float64 rows differ by less than
1e-300 while others, or the output, are not nearly as small, a right output may look wrong.
"""

from hqde_ref.core.certificates.certificate import Certificate, Judged, judge
from hqde_ref.core.certificates.geometric_median import (
    certify_geometric_median,
    judge_geometric_median,
    median_certificate,
)
from hqde_ref.core.certificates.krum import judge_krum, judge_multi_krum
from hqde_ref.core.certificates.means import certify_weighted_mean
from hqde_ref.core.certificates.ranks import certify_ranks

__all__ = [
    "Certificate",
    "Judged",
    "certify_geometric_median",
    "certify_ranks",
    "certify_weighted_mean",
    "judge",
    "judge_geometric_median",
    "judge_krum",
    "judge_multi_krum",
    "median_certificate",
]
