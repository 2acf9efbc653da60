"""``python -m benchmarks [--quick] [--only NAME ...] --json FILE``: measure, and write rows as JSON.

A row is {bench, n, d, threads, who, seconds, reads, error, note}; ``reads`` is the time over that of one read of the
same bytes in the same process, ``error`` the distance to a float64 oracle over the scatter of the honest rows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.data import FAR, HARD, NEAR, Case
from benchmarks.hosts import Host, start_hosts
from benchmarks.measure import Row, kind_of, measure_case
from benchmarks.memory import memory_rows
from hqde_ref.errors import ConfigurationError, RuntimeFault
from simulator.terminal import BAD_INPUT, HARNESS_FAILED, INTERRUPTED, complain, require_file, write_text

TIMED = ("mean", "exact_mean", "median", "trimmed_mean", "geometric_median", "krum", "mda", "nnm_gm", "leave_one_out")
NAMES = (*TIMED, "large_n", "memory", "rounds")
LARGE = ("mean", "median", "trimmed_mean", "mean_around_median", "geometric_median", "krum", "nnm_gm")
SIZES = ((8, 1_000_000), (8, 10_000_000), (16, 1_000_000), (32, 500_000))
QUICK_SIZES = ((8, 50_000), (16, 20_000))
MOST_THREADS = 2


def plan_cases(only: Sequence[str], *, quick: bool) -> list[Case]:
    """What is timed, in order; small and few with ``quick``."""
    cases = []
    for bench in [name for name in TIMED if name in only]:
        for n, d in QUICK_SIZES if quick else SIZES:
            # The exact search of a peer's minimum diameter goes over all subsets: few outliers, or it never ends.
            cases.append(Case(bench=bench, n=n, d=d, faulty=min(3, n // 4) if bench == "mda" else n // 4))
    length = 10_000 if quick else 100_000
    if "geometric_median" in only:
        cases += [Case(bench="geometric_median", n=16, d=length, faulty=4, kind=kind) for kind in (HARD, FAR)]
    if "krum" in only:
        cases += [Case(bench="krum", n=n, d=length, faulty=n // 4, kind=NEAR) for n in (16, 32)]
    if "large_n" in only:
        n, d = (200, 2_000) if quick else (1_000, 10_000)
        cases += [Case(bench=f"large_n {rule}", n=n, d=d, faulty=n // 4) for rule in LARGE]
    return cases


def run(only: Sequence[str], *, quick: bool, save: Callable[[list[Row]], None]) -> list[Row]:
    """All rows of the named benches, saved after each case; progress goes to a terminal."""
    rows: list[Row] = []
    cases = plan_cases(only, quick=quick)
    for threads in _thread_counts() if cases else ():
        hosts, lines = start_hosts(threads=threads)
        if threads == 1:
            for line in lines:
                print(line, file=sys.stderr, flush=True)
        try:
            for place, case in enumerate(cases, 1):
                _progress(f"[{place}/{len(cases)}] {case.bench} n={case.n} d={case.d:.0e} on {threads} thread(s)")
                rows += _measure(hosts, case, threads=threads, quick=quick, so_far=rows)
                save(rows)
        finally:
            for host in hosts:
                host.stop()
    if "memory" in only:
        _progress("memory")
        rows += memory_rows(n=16, d=200_000 if quick else 4_000_000, faulty=3)
    if "rounds" in only:
        rows += _rounds(quick)
    _progress("")
    save(rows)
    return rows


def _thread_counts() -> tuple[int, ...]:
    """One thread, and two where this process may use two cores; where not, that is said."""
    allowed = getattr(os, "sched_getaffinity", None)  # not everywhere
    cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    if cores >= MOST_THREADS:
        return (1, MOST_THREADS)
    print("two threads: not measured, this process may use one core only", file=sys.stderr, flush=True)
    return (1,)


def _measure(hosts: Sequence[Host], case: Case, *, threads: int, quick: bool, so_far: Sequence[Row]) -> list[Row]:
    same = [
        row
        for row in so_far
        if (row["bench"], row["n"], row["d"]) == (case.bench, case.n, case.d) and kind_of(row) == case.kind
    ]
    # Compiling takes longer than all else of a quick run: there, the median alone shows it.
    skip = ("compiled",) if quick and (case.bench != "median" or case.n != 8) else ()
    rounds, budget_s, least = (3, 0.3, 1) if quick else (11, 1.5, 3 if threads == 1 else 1)
    return measure_case(
        hosts,
        case,
        threads=threads,
        rounds=rounds,
        budget_s=budget_s,
        least=least,
        skip=skip,
        known=same if threads > 1 else (),
    )


def _rounds(quick: bool) -> list[Row]:
    from benchmarks.rounds import rows  # brings Ray, which the other benches do without

    _progress("rounds")
    return rows(quick)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our kernels beside their peers.")
    parser.add_argument("--quick", action="store_true", help="small sizes, in a minute or two")
    parser.add_argument("--only", nargs="+", default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the rows go")
    options = parser.parse_args(arguments)
    try:
        _check(options.only, options.json)
    except ConfigurationError as error:
        return complain(str(error), BAD_INPUT)
    saved: list[Row] = []

    def save(rows: list[Row]) -> None:
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
        saved[:] = rows

    try:
        run(options.only, quick=options.quick, save=save)
    except KeyboardInterrupt:
        _progress("")
        kept = f"{options.json} has the {len(saved)} rows measured so far" if saved else "nothing was written"
        return complain(f"interrupted; {kept}", INTERRUPTED)
    except RuntimeFault as error:
        return complain(str(error), HARNESS_FAILED)
    print(f"{len(saved)} rows in {options.json}")
    return 0


def _check(only: Sequence[str], path: Path) -> None:
    """Refuse, before anything is measured, names that no bench has and a file that cannot be written."""
    unknown = [name for name in only if name not in NAMES]
    if unknown:
        raise ConfigurationError(
            setting="--only",
            wanted=f"names among {', '.join(NAMES)}",
            got=", ".join(unknown),
            do="leave it out for all of them",
        )
    require_file("--json", path)


if __name__ == "__main__":
    sys.exit(main())
