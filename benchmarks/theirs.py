"""The peers' own functions, as their users call them; runs under each peer's interpreter.

Variants are the packages' defaults: byzfl's geometric median is smoothed (nu = 0.1) and stops after three steps; its
Krum counts n - f - 1 neighbours, Flower's n - f - 2; geom-median stops when its objective repeats, or after 100 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.contender import Contender, Contenders, Make
from benchmarks.data import Rows

__all__ = ["load"]

_MIXED_MAX = 1 << 25
_SLOW_MAX = 1 << 27


def _on_list(make: Callable[[int], Callable[[Any], Any]]) -> Make:
    def prepared(rows: Rows) -> Callable[[], Any]:
        rule = make(rows.case.faulty)
        return lambda: rule(rows.separate)

    return prepared


def _byzfl() -> Contenders:
    from properties.adapters.common import stand_in_for

    stand_in_for("torchvision")
    import byzfl

    def one(variant: str, oracle: str, make: Callable[[int], Callable[[Any], Any]], n_max: int = 2000) -> Contender:
        return Contender(
            who="byzfl", variant=variant, oracle=oracle, make=_on_list(make), n_max=n_max, values_max=_SLOW_MAX
        )

    def mixed(f: int) -> Callable[[Any], Any]:
        mix, median = byzfl.NNM(f=f), byzfl.GeometricMedian()
        return lambda rows: median(mix(rows))

    mean = one("Average", "mean", lambda f: byzfl.Average())
    median = one("Median", "median", lambda f: byzfl.Median())
    trimmed = one("TrMean", "trimmed mean", lambda f: byzfl.TrMean(f=f))
    geometric = one("GeometricMedian(nu=0.1, T=3)", "geometric median", lambda f: byzfl.GeometricMedian())
    krum = one("MultiKrum", "Multi-Krum of n-f-1 neighbours", lambda f: byzfl.MultiKrum(f=f))
    chain = one("NNM, GeometricMedian(nu=0.1, T=3)", "mixed geometric median", mixed)
    return {
        "mean": (mean,),
        "median": (median,),
        "trimmed_mean": (trimmed,),
        "geometric_median": (geometric,),
        "krum": (krum,),
        "mda": (one("MDA", "minimum diameter", lambda f: byzfl.MDA(f=f), 20),),
        "nnm_gm": (chain,),
        "large_n mean": (mean,),
        "large_n median": (median,),
        "large_n trimmed_mean": (trimmed,),
        "large_n mean_around_median": (one("Meamed", "mean around median", lambda f: byzfl.Meamed(f=f)),),
        "large_n geometric_median": (geometric,),
        "large_n krum": (krum,),
        "large_n nnm_gm": (chain,),
    }


def _geom_median() -> Contenders:
    from geom_median.torch import compute_geometric_median

    found = Contender(
        who="geom-median",
        variant="compute_geometric_median",
        oracle="geometric median",
        make=_on_list(lambda f: lambda rows: compute_geometric_median(rows).median),
    )
    return {"geometric_median": (found,), "large_n geometric_median": (found,)}


def _flwr() -> Contenders:
    from flwr.server.strategy import aggregate as flower

    def one(variant: str, oracle: str, rule: Callable[[Any, int], Any], n_max: int = 2000) -> Contender:
        def make(rows: Rows) -> Callable[[], Any]:
            results = [([row.numpy()], 1) for row in rows.separate]
            return lambda: torch.from_numpy(rule(results, rows.case.faulty)[0])

        return Contender(who="flwr", variant=variant, oracle=oracle, make=make, n_max=n_max, values_max=_SLOW_MAX)

    mean = one("aggregate", "mean", lambda results, f: flower.aggregate(results))
    median = one("aggregate_median", "median", lambda results, f: flower.aggregate_median(results))
    trimmed = one(
        "aggregate_trimmed_avg",
        "trimmed mean",
        lambda results, f: flower.aggregate_trimmed_avg(results, (f + 0.5) / len(results)),
    )
    krum = one(
        "aggregate_krum",
        "Multi-Krum of n-f-2 neighbours",
        lambda results, f: flower.aggregate_krum(results, f, len(results) - f),
        100,
    )
    return {
        "mean": (mean,),
        "median": (median,),
        "trimmed_mean": (trimmed,),
        "krum": (krum,),
        "large_n mean": (mean,),
        "large_n median": (median,),
        "large_n trimmed_mean": (trimmed,),
    }


def _hqde() -> Contenders:
    from properties.adapters.common import stand_in_for

    stand_in_for("torchvision")
    from hqde.distributed.fault_tolerance import ByzantineFaultTolerantAggregator

    robust = ByzantineFaultTolerantAggregator()

    def scores(rows: Rows) -> Callable[[], Any]:
        updates = [{"w": row} for row in rows.separate]
        every = range(len(updates))
        return lambda: torch.tensor([robust._mad_outlier_score(updates[i], updates, i) for i in every])

    return {
        "geometric_median": (
            Contender(
                who="hqde",
                variant="_calculate_geometric_median",
                oracle="geometric median",
                make=_on_list(lambda f: robust._calculate_geometric_median),
                values_max=_SLOW_MAX,
            ),
        ),
        "leave_one_out": (
            Contender(
                who="hqde",
                variant="_mad_outlier_score of all",
                oracle="leave-one-out scores",
                make=scores,
                values_max=_MIXED_MAX,
            ),
        ),
    }


_LOADERS: dict[str, Callable[[], Contenders]] = {
    "byzfl": _byzfl,
    "geom-median": _geom_median,
    "flwr": _flwr,
    "hqde": _hqde,
}


def load(name: str) -> Contenders:
    """What a peer has to offer, by bench."""
    return _LOADERS[name]()
