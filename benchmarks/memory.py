"""Peak extra memory of every rule of the registry and two kernels beside: what a call allocates beyond its input.

Measured in a process of its own as the resident set that the system counts (its peak is reset before each call, and
what earlier calls freed is given back), so nothing is missed that a library allocates by itself. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import Case, make_rows
from benchmarks.measure import Row

__all__ = ["measure_memory", "memory_rows"]

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_WITHIN_S = 300


def memory_rows(*, n: int, d: int, faulty: int) -> list[Row]:
    """One row a kernel and form: its note says the peak, and what part of the input that is."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", str(n), str(d), str(faulty)],
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).resolve().parents[1],
        )
        notes = [
            f"{name}; peak extra {extra / 1e6:.1f} MB, {extra / (4 * n * d):.2f} of the input"
            for name, extra in json.loads(done.stdout.splitlines()[-1]).items()
        ]
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        notes = [f"all; failed: {type(error).__name__}, the kernel's own counts are needed (Linux)"]
    return [
        {
            "bench": "memory",
            "n": n,
            "d": d,
            "threads": 1,
            "who": "hqde_ref",
            "seconds": None,
            "reads": None,
            "error": None,
            "note": note,
        }
        for note in notes
    ]


def measure_memory(*, n: int, d: int, faulty: int) -> dict[str, int]:
    """Bytes by which the peak of each kernel exceeds what was resident before the call."""
    from hqde_ref.core.kernels.leave_one_out import leave_one_out_scores
    from hqde_ref.core.rules import RULES
    from hqde_ref.core.rules.weighted_mean import fast_weighted_mean

    kernels: dict[str, Callable[[Any], Any]] = {
        "fast_weighted_mean": fast_weighted_mean,
        "leave_one_out": leave_one_out_scores,
        **{name: partial(rule.aggregate, faulty_max=faulty) for name, rule in RULES.items()},
    }
    libc = ctypes.CDLL(None)
    rows = make_rows(Case(bench="memory", n=n, d=d, faulty=faulty))
    small = make_rows(Case(bench="memory", n=n, d=256, faulty=faulty))
    found = {}
    for name, kernel in kernels.items():
        for form, few, many in (("list", small.separate, rows.separate), ("arena", small.arena, rows.arena)):
            kernel(few)
            libc.malloc_trim(0)
            before = _resident("VmRSS")
            _RESET.write_text("5")
            kernel(many)
            found[f"{name}, {form}"] = max(0, _resident("VmHWM") - before)
    return found


def _resident(what: str) -> int:
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    count, length, liars = map(int, sys.argv[1:])
    print(json.dumps(measure_memory(n=count, d=length, faulty=liars)))
