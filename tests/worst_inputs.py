"""Climb towards each rule's proven bound and keep the inputs that came nearest: ``python -m tests.worst_inputs``.

An input is n rows in the plane, the last f of them liars. From inputs that are bad by design the climber moves a row,
the liars or all rows at a time, and keeps what raises |result - honest mean|^2 / (kappa * V). What it finds is written
beside this module and tried again by every run of the tests: a change of a rule that loosens it shows there first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from hqde_ref.core.rules import RULES, Rule

KEPT = Path(__file__).with_suffix(".json")
SIZES = ((5, 2), (7, 1), (7, 2), (7, 3), (9, 4), (10, 3), (11, 3))  # f up to n / 3 and up to n / 2
STEPS = 1500


def ratio_of(rule: Rule, rows: Tensor, faulty: int) -> float:
    """|result - honest mean|^2 over kappa times the honest variance: at most 1 if the bound holds."""
    assert rule.kappa is not None
    honest = rows[: len(rows) - faulty]
    mean = honest.mean(dim=0)
    variance = float(((honest - mean) ** 2).sum()) / len(honest)
    error = float(((rule.aggregate(rows, faulty_max=faulty) - mean) ** 2).sum())
    return error / (rule.kappa(len(rows), faulty) * variance) if variance > 1e-12 else 0.0


def kept_inputs() -> Iterator[tuple[str, int, Tensor, float]]:
    """What was found: rule, f, rows (n, 2) float64, ratio."""
    for name, found in json.loads(KEPT.read_text()).items():
        for one in found:
            yield name, one["faulty"], torch.tensor(one["rows"], dtype=torch.float64), one["ratio"]


def _starts(count: int, faulty: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Two honest groups of every size, the liars with one of them, beside it, or far off; and noise."""
    honest = count - faulty
    for far in range(1, honest):
        for place in (0.0, 1.0, 1.5, 1e3):
            rows = torch.zeros(count, 2, dtype=torch.float64)
            rows[:far, 0] = 1.0
            rows[honest:, 0] = place
            yield rows
    yield torch.randn(count, 2, dtype=torch.float64, generator=generator)


def _moved(rows: Tensor, length: float, faulty: int, generator: torch.Generator) -> Tensor:
    after, count = rows.clone(), len(rows)
    kind = int(torch.randint(3, (), generator=generator))
    step = length * torch.randn(2, dtype=torch.float64, generator=generator)
    if kind == 0:
        after[int(torch.randint(count, (), generator=generator))] += step
    elif kind == 1:
        after[count - faulty :] += step
    else:
        after += length * torch.randn(count, 2, dtype=torch.float64, generator=generator)
    return after


def climb(rule: Rule, count: int, faulty: int, *, steps: int = STEPS, seed: int = 0) -> tuple[Tensor, float]:
    """The worst input found, and its ratio; the same seed finds the same."""
    generator = torch.Generator().manual_seed(seed)
    started = [(ratio_of(rule, rows, faulty), rows) for rows in _starts(count, faulty, generator)]
    highest, best = max(started, key=lambda one: one[0])
    length = 0.3
    for _ in range(steps):
        rows = _moved(best, length, faulty, generator)
        ratio = ratio_of(rule, rows, faulty)
        if ratio > highest:
            highest, best, length = ratio, rows, min(1.0, 2.0 * length)
        else:
            length = max(0.95 * length, 1e-4)
    return best, highest


def main() -> int:
    found: dict[str, list[dict[str, object]]] = {}
    for name, rule in RULES.items():
        for count, faulty in SIZES:
            if rule.kappa is None or rule.least_contributions(faulty) > count:
                continue
            rows, ratio = climb(rule, count, faulty)
            found.setdefault(name, []).append({"faulty": faulty, "ratio": ratio, "rows": rows.tolist()})
            print(f"{name} n={count} f={faulty}: {ratio:.3f}", file=sys.stderr, flush=True)
    KEPT.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
