"""Peak extra memory of every kernel, each in a process of its own: what it allocates beyond its input.

The peak is the kernel's resident set as the system counts it (reset before the call), so nothing is missed that a
library allocates on its own.
"""

from __future__ import annotations

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


def memory_rows(*, n: int, d: int, faulty: int) -> list[Row]:
    """One row a kernel and form: its note says the peak, and what part of the input that is."""
    rows = []
    for bench in _BENCHES:
        for form in _FORMS:
            try:
                note = _note(bench, form, n=n, d=d, faulty=faulty)
            except (subprocess.SubprocessError, OSError, ValueError) as error:
                note = f"{bench}, {form}; failed: {error}".splitlines()[0]
            rows.append(
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
            )
    return rows


def _note(bench: str, form: str, *, n: int, d: int, faulty: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", bench, form, str(n), str(d), str(faulty)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[1],
    )
    extra = json.loads(done.stdout.splitlines()[-1])
    return f"{bench}, {form}; peak extra {extra / 1e6:.1f} MB, {extra / (4 * n * d):.2f} of the input"


def measure_memory(bench: str, form: str, case: Case) -> int:
    """Bytes by which the peak exceeds what was resident before the call."""
    from benchmarks.ours import CONTENDERS

    (one,) = [c for c in CONTENDERS[bench] if c.who == "hqde_ref" and c.variant == form]
    one.make(make_rows(Case(bench=bench, n=case.n, d=256, faulty=case.faulty)))()
    call = one.make(make_rows(case))
    before = _resident("VmRSS")
    _RESET.write_text("5")
    call()
    return max(0, _resident("VmHWM") - before)


def _resident(what: str) -> int:
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    bench, form, *numbers = sys.argv[1:]
    count, length, faulty = map(int, numbers)
    print(json.dumps(measure_memory(bench, form, Case(bench=bench, n=count, d=length, faulty=faulty))))
