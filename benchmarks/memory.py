"""Peak extra memory of every kernel: what it allocates beyond its input, its result included.

Measured in a process of its own as the resident set that the system counts (its peak is reset before each call, and
what earlier calls freed is given back), so nothing is missed that a library allocates by itself. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.data import Case, make_rows
from benchmarks.measure import Row

__all__ = ["measure_memory", "memory_rows"]

_BENCHES = (
    "mean",
    "exact_mean",
    "median",
    "trimmed_mean",
    "geometric_median",
    "krum",
    "mda",
    "nnm_gm",
    "leave_one_out",
)
_FORMS = ("list", "arena")
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
    from benchmarks.ours import CONTENDERS

    libc = ctypes.CDLL(None)
    rows = make_rows(Case(bench="memory", n=n, d=d, faulty=faulty))
    small = make_rows(Case(bench="memory", n=n, d=256, faulty=faulty))
    found = {}
    for bench in _BENCHES:
        for form in _FORMS:
            (one,) = [c for c in CONTENDERS[bench] if c.who == "hqde_ref" and c.variant == form]
            one.make(small)()
            call = one.make(rows)
            libc.malloc_trim(0)
            before = _resident("VmRSS")
            _RESET.write_text("5")
            call()
            found[f"{bench}, {form}"] = max(0, _resident("VmHWM") - before)
    return found


def _resident(what: str) -> int:
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    count, length, liars = map(int, sys.argv[1:])
    print(json.dumps(measure_memory(n=count, d=length, faulty=liars)))
