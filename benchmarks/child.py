"""The process in which one package is timed: ``python -m benchmarks.child NAME``; requests and replies are JSON lines.

The time of a read (the sum of all rows, from the same memory) is taken in the same process just before each timed call,
so that a ratio does not depend on what else the machine is doing, nor on what the call before left in the cache. Runs
under the peers' interpreters: torch and the standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Contender, Contenders
from benchmarks.data import Case, Rows, make_rows

_WARM = 256


def _contenders(name: str) -> Contenders:
    if name == "hqde_ref":
        from benchmarks.ours import CONTENDERS

        return CONTENDERS
    from benchmarks.theirs import load

    return load(name)


def _seconds(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock, seconds of processor time, and what came of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


class Child:
    """Holds the rows of one case and the contenders that run on them."""

    def __init__(self, offered: Contenders) -> None:
        self._offered = offered
        self._rows: Rows | None = None
        self._calls: dict[int, Callable[[], Any]] = {}
        self._results: dict[int, Any] = {}
        self._chosen: tuple[Contender, ...] = ()

    def begin(self, case: dict[str, Any], skip: list[str]) -> dict[str, Any]:
        """Make the rows; say who takes part. ``skip`` names variants."""
        wanted = Case(**case)
        self._chosen = tuple(
            one
            for one in self._offered.get(wanted.bench, ())
            if one.takes(wanted.n, wanted.d) and one.variant not in skip
        )
        failed = self._warm_up(wanted)
        if not self._chosen:
            return {"contenders": [], "refused": failed}
        self._rows = make_rows(wanted)
        self._calls = {place: one.make(self._rows) for place, one in enumerate(self._chosen)}
        taking_part = [{"who": c.who, "variant": c.variant, "oracle": c.oracle} for c in self._chosen]
        return {"contenders": taking_part, "refused": failed}

    def _warm_up(self, wanted: Case) -> list[dict[str, str]]:
        """Call all once on few columns: what is loaded, allocated or compiled once. Those that fail are left out."""
        small = make_rows(dataclasses.replace(wanted, d=_WARM))
        working, failed = [], []
        for one in self._chosen:
            try:
                one.make(small)()
                working.append(one)
            except Exception as error:
                failed.append({"who": one.who, "variant": one.variant, "why": _sentence(error)})
        self._chosen = tuple(working)
        return failed

    def time(self, place: int) -> dict[str, Any]:
        """One call, and the read it is compared with: the middle one of three."""
        assert self._rows is not None
        rows = self._chosen[place].reads(self._rows)
        reads = [_seconds(lambda: [row.sum() for row in rows])[:2] for _ in range(3)]
        self._results.pop(place, None)
        wall, cpu, self._results[place] = _seconds(self._calls[place])
        read_wall, read_cpu = (sorted(times)[1] for times in zip(*reads, strict=True))
        return {"wall": wall, "cpu": cpu, "read_wall": read_wall, "read_cpu": read_cpu}

    def judge(self, place: int, oracle: str, scatter: float) -> dict[str, Any]:
        """How far the last result is from the oracle's, over the scatter."""
        found, wanted = torch.as_tensor(self._results.pop(place)), torch.load(oracle)
        error = float((found.double() - wanted).norm()) / scatter
        return {"error": error if error == error and error != float("inf") else None}

    def oracle(self, name: str, path: str) -> dict[str, Any]:
        """Write what a definition gives to a file; return the honest scatter, or for scores their norm."""
        from benchmarks.oracles import ORACLES, honest_scatter

        assert self._rows is not None
        value: Tensor = ORACLES[name](self._rows)
        torch.save(value, path)
        return {"scatter": float(value.norm()) if "scores" in name else honest_scatter(self._rows)}

    def end(self) -> dict[str, Any]:
        self._rows, self._calls, self._results, self._chosen = None, {}, {}, ()
        return {}


def main(name: str, threads: int) -> int:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a package prints must not reach the replies
    torch.set_num_threads(threads)
    try:
        child = Child(_contenders(name))
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), file=replies, flush=True)
        return 1
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with torch.no_grad():
                reply = getattr(child, request.pop("do"))(**request)
        except Exception as error:
            reply = {"failed": _sentence(error)}
        print(json.dumps(reply), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
