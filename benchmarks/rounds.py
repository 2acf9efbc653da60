"""Whole rounds on real Ray: topologies beside each other, beside one process, and beside the document's own way.

Contributions are synthetic, so training takes no time: a round here is collecting, screening with digests, combining,
publishing, and the answers. Everything runs on one machine: Ray moves vectors through shared memory. A tree bounds how
much one node receives and holds; that it saves time on a network cannot be seen here, and is not claimed.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.document_way import DocumentWay
from hqde_ref.core.kernels.exact_sums import exact_weighted_mean
from hqde_ref.core.packing import digest, float_blocks, split_rows
from hqde_ref.messages import Accepted, Adopt, Call, Policy, Runtime
from hqde_ref.rounds.training import training_round
from hqde_ref.runtimes.on_ray import OnRay
from simulator.ensembles import SEED, Ensemble, fetched_row, numbered
from simulator.synthetic import synthetic_layout

__all__ = ["rows"]

HOSTS = 4
_WITHIN_S = 120.0
_MEAN = Policy(rule="weighted_mean", topology="flat", branching=8, round_within_s=_WITHIN_S, hedge_after_s=60.0)
_MEDIAN = dataclasses.replace(_MEAN, rule="geometric_median")

Row = dict[str, Any]


def rows(quick: bool) -> list[Row]:
    """All measurements. ``quick`` makes everything a tenth of its size, to see that it runs."""
    small = 10 if quick else 1
    sixty_four = Ensemble(members=numbered(64), hosts=HOSTS, floats=1_000_000 // small, lasting=True)
    thousand = Ensemble(
        members=numbered(1000 // small), hosts=HOSTS, floats=100_000 // small, crowds=True, lasting=True
    )
    repeats = 2 if quick else 5
    found = [*_sixty_four(sixty_four, repeats), *_thousand(thousand, repeats)]
    return [*found, *_reducer_memory(sixty_four)]


class _Rounds:
    """One way to run rounds of an ensemble, again and again."""

    def __init__(self, ensemble: Ensemble, runtime: Runtime, policy: Policy) -> None:
        self._runtime = runtime
        self._plan = ensemble.plan(runtime, policy)
        self._nodes = [crowd.node for crowd in self._plan.crowds] or list(ensemble.members)
        self.verdict: Accepted | None = None

    def before(self) -> None:
        """Everybody holds the state, whatever another way published meanwhile."""
        adopt = Adopt(round=self._plan.round, state=self._plan.state, digests=self._plan.state_digests)
        calls = [Call(node=node, request=adopt) for node in self._nodes]
        self._runtime.ask(calls, enough=len(calls), until=self._runtime.now() + _WITHIN_S)

    def run(self) -> None:
        verdict = training_round(self._runtime, self._plan)
        assert isinstance(verdict, Accepted), verdict
        assert len(verdict.used) == len(self._plan.members), verdict.missing
        self.verdict = verdict
        self._plan = dataclasses.replace(
            self._plan, round=self._plan.round + 1, state=verdict.payloads, state_digests=verdict.digests
        )

    def result(self) -> Tensor:
        assert self.verdict is not None
        return fetched_row(self._runtime, self._plan, self.verdict.payloads)


def _medians(ways: Mapping[str, tuple[Callable[[], None], Callable[[], object]]], repeats: int) -> dict[str, float]:
    """Median seconds of each way (what comes before is not timed), all of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, (before, run) in ways.items():
            before()
            began = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in times.items()}


def _nothing() -> None:
    """What comes before a way that needs no preparation."""


def _distance(row: Tensor, truth: Tensor) -> float:
    return float((row.double() - truth.double()).norm() / truth.double().norm())


# ------------------------------------------------------------------------------------------------ 64 members


def _sixty_four(ensemble: Ensemble, repeats: int) -> list[Row]:
    layout = synthetic_layout(ensemble.floats)
    packed = ensemble.packed(ensemble.members, number=0)
    floats = [split_rows(row, layout)[0] for row in packed]
    truth = exact_weighted_mean(floats, blocks=float_blocks(layout))
    policies = {
        "tree": dataclasses.replace(_MEAN, topology="tree"),
        "flat": _MEAN,
        "sharded": dataclasses.replace(_MEAN, topology="sharded", shards=HOSTS),
        "flat geometric median": _MEDIAN,
        "sharded geometric median": dataclasses.replace(_MEDIAN, topology="sharded", shards=HOSTS),
    }
    crowded = dataclasses.replace(ensemble, crowds=True)
    with OnRay(ensemble.nodes(), store_bytes=6 << 30) as runtime, OnRay(crowded.nodes()) as crowds:
        rounds = {name: _Rounds(ensemble, runtime, policy) for name, policy in policies.items()}
        rounds["crowded"] = _Rounds(crowded, crowds, _MEAN)
        document = DocumentWay(
            ensemble.members, processes=HOSTS, branching=_MEAN.branching, seed=SEED, floats=ensemble.floats
        )
        ways: dict[str, tuple[Callable[[], None], Callable[[], object]]] = {
            name: (one.before, one.run) for name, one in rounds.items()
        }
        ways["the document's way"] = (_nothing, document.run)
        ways["one process, digests on"] = (_nothing, lambda: _in_one_process(packed, ensemble.floats))
        ways["one read"] = (_nothing, lambda: [float(row.sum()) for row in floats])
        seconds = _medians(ways, repeats)
        results = {name: one.result() for name, one in rounds.items()}
        results["the document's way"] = torch.cat([document.run()[name].view(-1) for name in ("weight", "bias")])
        document.close()
    results["one process, digests on"] = truth
    median = results["flat geometric median"]
    errors = {name: _distance(row, median if "geometric" in name else truth) for name, row in results.items()}
    notes = _ratio_notes(seconds)
    return [_row("round", ensemble, name, seconds, errors.get(name), notes.get(name, "")) for name in seconds]


def _in_one_process(packed: list[Tensor], floats: int) -> Tensor:
    """The least anybody can do: a digest and the magnitudes of every row, the exact mean, and its digest."""
    layout = synthetic_layout(floats)
    for row in packed:
        digest(row)
    mean = exact_weighted_mean([split_rows(row, layout)[0] for row in packed], blocks=float_blocks(layout))
    digest(mean)
    return mean


def _ratio_notes(seconds: Mapping[str, float]) -> dict[str, str]:
    document, flat = seconds["the document's way"], seconds["flat geometric median"]
    notes = {
        name: f"{document / seconds[name]:.2f}x as fast as the document's way"
        for name in ("tree", "flat", "sharded", "crowded")
    }
    ratio = flat / seconds["sharded geometric median"]
    notes["sharded geometric median"] = f"{ratio:.2f}x as fast as flat; error is the distance from flat's result"
    notes["the document's way"] = "no digests, no screening, no account; mass carried along (E7)"
    return notes


def _row(bench: str, ensemble: Ensemble, who: str, seconds: Mapping[str, float], error: float | None, note: str) -> Row:
    return {
        "bench": bench,
        "n": len(ensemble.members),
        "d": ensemble.floats,
        "threads": 1,
        "who": who,
        "seconds": seconds[who],
        "reads": seconds[who] / seconds["one read"],
        "error": error,
        "note": note,
    }


# ------------------------------------------------------------------------------------------------ 1,000 members


def _thousand(ensemble: Ensemble, repeats: int) -> list[Row]:
    layout = synthetic_layout(ensemble.floats)
    floats = [split_rows(row, layout)[0] for row in ensemble.packed(ensemble.members, number=0)]
    truth = exact_weighted_mean(floats, blocks=float_blocks(layout))
    robust = dataclasses.replace(_MEDIAN, topology="sharded", shards=HOSTS, faulty_max=(len(ensemble.members) - 1) // 3)
    with OnRay(ensemble.nodes(), store_bytes=6 << 30) as runtime:
        mean, median = _Rounds(ensemble, runtime, _MEAN), _Rounds(ensemble, runtime, robust)
        ways: dict[str, tuple[Callable[[], None], Callable[[], object]]] = {
            "crowded mean": (mean.before, mean.run),
            "crowded geometric median": (median.before, median.run),
            "one read": (_nothing, lambda: [float(row.sum()) for row in floats]),
        }
        seconds = _medians(ways, repeats)
        errors = {"crowded mean": _distance(mean.result(), truth)}
    notes = {
        "crowded mean": f"wanted: at most 0.4 s on {HOSTS} hosts",
        "crowded geometric median": "wanted: at most 2 s; f just below n / 3, outliers rejected",
    }
    return [_row("crowd", ensemble, name, seconds, errors.get(name), notes.get(name, "")) for name in seconds]


# ------------------------------------------------------------------------------------------------ memory of a reducer

_PROBE = """
import sys, torch
torch.set_num_threads(1)
from hqde_ref.core.combining import resolve_rows
from hqde_ref.core.isometry import blend, partial_gram
n, d, flat = map(int, sys.argv[1:])
options = dict(rule="geometric_median", faulty_max=0, rejections_max=0, outlier_factor=3.0)
def kilobytes(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))
resolve_rows([torch.randn(64) for _ in range(4)], **options)
open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
start = kilobytes("VmRSS")
rows = list(torch.randn(n, d).unbind(0))
if flat:
    resolve_rows(rows, **options)
else:
    blend(rows, [1.0 / n] * n, centre=partial_gram(rows)[1])
print((kilobytes("VmHWM") - start) * 1024)
"""


def _reducer_memory(ensemble: Ensemble) -> list[Row]:
    """Peak memory of a reducer with its rows, in a process of its own: flat, and with a k-th of the coordinates."""
    n, d = len(ensemble.members), ensemble.floats
    peaks = {1: _peak(n, d, flat=True)} | {k: _peak(n, d // k, flat=False) for k in (2, 4, 8)}
    return [
        {
            "bench": "reducer memory",
            "n": n,
            "d": d,
            "threads": 1,
            "who": "flat geometric median" if k == 1 else f"sharded geometric median, {k} shards",
            "seconds": None,
            "reads": peak / (4 * n * d),
            "error": None,
            "note": f"{peak >> 20} MiB at its peak, {peak / peaks[1]:.2f} of flat; reads: in units of all rows",
        }
        for k, peak in peaks.items()
    ]


def _peak(n: int, d: int, *, flat: bool) -> int:
    command = [sys.executable, "-c", _PROBE, str(n), str(d), str(int(flat))]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)
