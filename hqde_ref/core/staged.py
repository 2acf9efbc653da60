"""Rules of two stages on sharded rows: distances decide how, then every coordinate is combined by itself.

Bulyan chooses rows and averages around their median; nearest-neighbour mixing and adaptive clipping change rows before
a trimmed mean; centred clipping shortens the steps from the coordinate-wise median. The first stage runs on points that
lie to each other as the rows do (``isometry``), beside which a rule may need one more: the origin, or the median. Its
numbers go to every shard, where the second stage needs nothing else.

Source: HQDE clause 3.8.
Pure: arguments are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from hqde_ref.core.isometry import blend
from hqde_ref.core.kernels.order_statistics import median_rows
from hqde_ref.core.rules import get_rule
from hqde_ref.core.rules.bulyan import average_chosen, choose_repeatedly
from hqde_ref.core.rules.centred_clipping import clipping_multipliers
from hqde_ref.core.rules.clipping import clipping_factors, trim_shortened
from hqde_ref.core.rules.nearest_neighbour_mixing import mixing_matrix, trim_mixed
from hqde_ref.messages import message

__all__ = ["arrange", "finish", "is_staged", "with_landmark"]

_Rows = Sequence[Tensor]


def _nothing(rows: _Rows) -> list[Tensor]:
    return []


def _origin(rows: _Rows) -> list[Tensor]:
    return [torch.zeros_like(rows[0])]


def _median(rows: _Rows) -> list[Tensor]:
    return [median_rows(rows, lower=False, rule="centred_clipping")]


@message
class _Staged:
    """The two stages of a rule.

    Attributes:
        landmark: what point the distances need beside the rows.
        arrange: points (the landmark last) and f to the numbers of the rule, a float64 tensor.
        finish: the shard's rows (the landmark last), those numbers, f, and a row most are near to, to the result.
    """

    landmark: Callable[[_Rows], list[Tensor]]
    arrange: Callable[[_Rows, int], Tensor]
    finish: Callable[[_Rows, Tensor, int, int], Tensor]


def _arrange_clipped(points: _Rows, faulty_max: int) -> Tensor:
    lengths = [float((point - points[-1]).norm()) for point in points[:-1]]
    return torch.tensor(clipping_factors(lengths, faulty_max=faulty_max), dtype=torch.float64)


def _finish_bulyan(rows: _Rows, numbers: Tensor, faulty_max: int, centre: int) -> Tensor:
    return average_chosen([rows[int(place)] for place in numbers.tolist()], faulty_max=faulty_max)


def _finish_clipped(rows: _Rows, numbers: Tensor, faulty_max: int, centre: int) -> Tensor:
    return trim_shortened(rows[:-1], numbers.tolist(), faulty_max=faulty_max)


def _finish_centred(rows: _Rows, numbers: Tensor, faulty_max: int, centre: int) -> Tensor:
    return blend(rows, [*numbers.tolist(), 0.0], centre=len(rows) - 1)


_STAGED: Final[Mapping[str, _Staged]] = MappingProxyType(
    {
        "bulyan": _Staged(
            landmark=_nothing,
            arrange=lambda points, f: torch.tensor(choose_repeatedly(points, faulty_max=f), dtype=torch.float64),
            finish=_finish_bulyan,
        ),
        "mixed_trimmed_mean": _Staged(
            landmark=_nothing,
            arrange=lambda points, f: mixing_matrix(points, faulty_max=f),
            finish=lambda rows, numbers, f, centre: trim_mixed(rows, numbers, faulty_max=f, centre=centre),
        ),
        "clipped_trimmed_mean": _Staged(landmark=_origin, arrange=_arrange_clipped, finish=_finish_clipped),
        "centred_clipping": _Staged(
            landmark=_median,
            arrange=lambda points, f: clipping_multipliers(points[:-1], points[-1], faulty_max=f),
            finish=_finish_centred,
        ),
    }
)


def is_staged(rule: str) -> bool:
    """Ask whether a rule has a second stage that goes by coordinates.

    Raises:
        ConfigurationError: there is no such rule.
    """
    return get_rule(rule).family == "staged"


def with_landmark(rule: str, rows: Sequence[Tensor]) -> list[Tensor]:
    """Return these shards (d,) of the rows, and that of the point that the rule measures distances from, if any."""
    return [*rows, *_STAGED[rule].landmark(rows)]


def arrange(rule: str, points: Sequence[Tensor], *, faulty_max: int) -> Tensor:
    """Return what the first stage says, a float64 tensor whose shape is the rule's affair.

    Args:
        points: (k,) float64, that lie to each other as the rows of ``with_landmark`` do.
    Raises:
        TooFewContributions: the rule's condition does not hold.
    """
    return _STAGED[rule].arrange(points, faulty_max)


def finish(rule: str, rows: Sequence[Tensor], numbers: Tensor, *, faulty_max: int, centre: int) -> Tensor:
    """Return the result on these shards, (d,) of the rows' dtype.

    Args:
        rows: as ``with_landmark`` gives them.
        numbers: of ``arrange``.
        centre: a row that most are near to.
    """
    return _STAGED[rule].finish(rows, numbers, faulty_max, centre)
