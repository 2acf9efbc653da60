"""``geom-median``: the geometric median of whole contributions (all tensors of one together), with default settings."""

from __future__ import annotations

from collections.abc import Mapping

from geom_median.torch import compute_geometric_median
from torch import Tensor

from hqde_ref.messages import Aggregate
from properties.adapters.common import Functions, Rule, in_order


def _geometric_median(request: Aggregate) -> Mapping[str, Tensor]:
    median = compute_geometric_median(in_order(request.updates, "geom_median")).median
    return dict(zip(request.updates[0].tensors, median, strict=True))


def _rules() -> dict[str, Rule]:
    return {"geometric_median": _geometric_median}


def implementation() -> Functions:
    """For ``module:attribute``."""
    return Functions("geom_median", _rules, distribution="geom-median")
