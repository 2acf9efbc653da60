"""Our kernels, and the torch and NumPy lines that a user would write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor

from benchmarks.contender import Contender, Contenders, Make
from benchmarks.data import Rows
from hqde_ref.core.certificates import certify_geometric_median
from hqde_ref.core.kernels.exact_sums import exact_weighted_mean
from hqde_ref.core.kernels.leave_one_out import leave_one_out_scores
from hqde_ref.core.rules.coordinate_median import coordinate_median, lower_coordinate_median
from hqde_ref.core.rules.geometric_median import certified_geometric_median, geometric_median
from hqde_ref.core.rules.krum import multi_krum
from hqde_ref.core.rules.mean_around_median import mean_around_median
from hqde_ref.core.rules.minimum_diameter import minimum_diameter_mean
from hqde_ref.core.rules.nearest_neighbour_mixing import mixed_geometric_median
from hqde_ref.core.rules.trimmed_mean import trimmed_mean
from hqde_ref.core.rules.weighted_mean import fast_weighted_mean

__all__ = ["CONTENDERS"]


def _list(rule: Callable[[Any, int], Any]) -> Make:
    return lambda rows: lambda: rule(rows.separate, rows.case.faulty)


def _arena(rule: Callable[[Any, int], Any]) -> Make:
    return lambda rows: lambda: rule(rows.arena, rows.case.faulty)


def _both(rule: Callable[[Any, int], Any], oracle: str) -> tuple[Contender, ...]:
    return (
        Contender(who="hqde_ref", variant="list", make=_list(rule), oracle=oracle),
        Contender(who="hqde_ref", variant="arena", make=_arena(rule), oracle=oracle),
    )


def _compiled(rule: Callable[[Any, int], Any], oracle: str) -> Contender:
    return Contender(who="hqde_ref", variant="compiled", make=_list(rule), oracle=oracle, n_max=32)


def _torch(rule: Callable[[Rows], Any], oracle: str, variant: str) -> Contender:
    return Contender(who="torch", variant=variant, make=lambda rows: lambda: rule(rows), oracle=oracle)


def _numpy(rule: Callable[[list[Any], int], Any], oracle: str, variant: str) -> Contender:
    def make(rows: Rows) -> Callable[[], Any]:
        arrays = [row.numpy() for row in rows.separate]
        return lambda: rule(arrays, rows.case.faulty)

    return Contender(who="numpy", variant=variant, make=make, oracle=oracle)


def _certified(updates: Any, f: int) -> Tensor:
    result, _ = certified_geometric_median(updates, faulty_max=f)
    return result


def _certified_output(updates: Any, f: int) -> Tensor:
    """The median, and a certificate made from the rounded output alone."""
    result = geometric_median(updates, faulty_max=f)
    certify_geometric_median(updates, result, faulty_max=f)
    return result


def _sorted_middle(rows: Rows) -> Tensor:
    f = rows.case.faulty
    return torch.stack(rows.separate).sort(dim=0).values[f : rows.case.n - f].mean(dim=0)


def _numpy_trimmed(arrays: list[Any], f: int) -> Any:
    return numpy.partition(arrays, (f, len(arrays) - f - 1), axis=0)[f : len(arrays) - f].mean(axis=0)


def _cdist_krum(rows: Rows) -> Tensor:
    n, f = rows.case.n, rows.case.faulty
    stacked = torch.stack(rows.separate)
    nearest = torch.cdist(stacked, stacked).square().sort(dim=1).values[:, 1 : n - f - 1]
    return stacked[nearest.sum(dim=1).argsort()[: n - f]].mean(dim=0)


def _document_scores(rows: Rows) -> Tensor:
    """Leave-one-out scores as the document computes them: everything anew for each row."""
    scores = []
    for index, row in enumerate(rows.separate):
        others = torch.stack(rows.separate[:index] + rows.separate[index + 1 :])
        middle = others.median(dim=0).values
        spread = (others - middle).abs().median(dim=0).values
        scores.append(((row - middle).abs() / (spread + 1e-8)).mean())
    return torch.stack(scores)


_KRUM, _MIDDLE, _LOWER, _TRIMMED = "Multi-Krum of n-f-2 neighbours", "median", "lower median", "trimmed mean"
_SCORES = "leave-one-out scores"

_MEAN = (
    *_both(lambda x, f: fast_weighted_mean(x), "mean"),
    _torch(lambda rows: torch.stack(rows.separate).mean(dim=0), "mean", "stack, mean"),
    _torch(lambda rows: rows.arena.mean(dim=0), "mean", "arena mean"),
    # The least that a mean of an arena takes in plain PyTorch, without any check.
    _torch(lambda rows: torch.mv(rows.arena.T, rows.shares), "mean", "arena, bare product"),
    _compiled(lambda x, f: fast_weighted_mean(x, backend="compiled"), "mean"),
    _numpy(lambda arrays, f: numpy.mean(arrays, axis=0), "mean", "numpy.mean"),
)
_MEDIAN = (
    *_both(lambda x, f: coordinate_median(x, faulty_max=f), _MIDDLE),
    Contender(
        who="hqde_ref",
        variant="list, lower",
        oracle=_LOWER,
        make=_list(lambda x, f: lower_coordinate_median(x, faulty_max=f)),
    ),
    _compiled(lambda x, f: coordinate_median(x, faulty_max=f, backend="compiled"), _MIDDLE),
    _torch(lambda rows: torch.stack(rows.separate).median(dim=0).values, _LOWER, "stack, torch.median (lower)"),
    _numpy(lambda arrays, f: numpy.median(arrays, axis=0), _MIDDLE, "numpy.median"),
)
_TRIM = (
    *_both(lambda x, f: trimmed_mean(x, faulty_max=f), _TRIMMED),
    _compiled(lambda x, f: trimmed_mean(x, faulty_max=f, backend="compiled"), _TRIMMED),
    _torch(_sorted_middle, _TRIMMED, "stack, sort, mean"),
    _numpy(_numpy_trimmed, _TRIMMED, "numpy.partition, mean"),
)
_GEOMETRIC = (
    *_both(_certified, "geometric median"),
    Contender(
        who="hqde_ref", variant="list, output certified", make=_list(_certified_output), oracle="geometric median"
    ),
)
_MULTI_KRUM = (
    *_both(lambda x, f: multi_krum(x, faulty_max=f), _KRUM),
    _torch(_cdist_krum, _KRUM, "stack, torch.cdist"),
)

CONTENDERS: Contenders = {
    "mean": _MEAN,
    "exact_mean": (
        *_both(lambda x, f: exact_weighted_mean(x), "mean"),
        _compiled(lambda x, f: exact_weighted_mean(x, backend="compiled"), "mean"),
        Contender(
            who="hqde_ref", variant="plain blocked", make=_list(lambda x, f: fast_weighted_mean(x)), oracle="mean"
        ),
    ),
    "median": _MEDIAN,
    "trimmed_mean": _TRIM,
    "geometric_median": _GEOMETRIC,
    "krum": _MULTI_KRUM,
    "mda": _both(lambda x, f: minimum_diameter_mean(x, faulty_max=f), "minimum diameter"),
    "nnm_gm": _both(lambda x, f: mixed_geometric_median(x, faulty_max=f), "mixed geometric median"),
    "leave_one_out": (
        *_both(lambda x, f: torch.tensor(leave_one_out_scores(x)), _SCORES),
        _compiled(lambda x, f: torch.tensor(leave_one_out_scores(x, backend="compiled")), _SCORES),
        _torch(_document_scores, _SCORES, "the document's loop"),
    ),
    "large_n mean": _MEAN,
    "large_n median": _MEDIAN,
    "large_n trimmed_mean": _TRIM,
    "large_n mean_around_median": _both(lambda x, f: mean_around_median(x, faulty_max=f), "mean around median"),
    "large_n geometric_median": _GEOMETRIC,
    "large_n krum": _MULTI_KRUM,
    "large_n nnm_gm": _both(lambda x, f: mixed_geometric_median(x, faulty_max=f), "mixed geometric median"),
}
