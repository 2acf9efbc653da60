"""Climb towards each proven bound and keep the inputs that came nearest: ``python -m tests.worst_inputs [RULE ...]``.

An input is n rows in the plane, the last f of them liars, and one row more for a bound that holds around every point z.
From inputs that are bad by design the climber moves a row, the liars or all rows at a time, and keeps what raises the
share of the bound that is used up. What it finds is written beside this module and tried again by every run of the
tests: a change of a rule that loosens it shows there first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track
from torch import Tensor

from hqde_ref.core.rules import RULES, Bound, Rule, ratio_to_bound
from hqde_ref.core.rules.bound import AROUND_A_POINT

KEPT = Path(__file__).with_suffix(".json")
SIZES = ((5, 2), (7, 1), (7, 2), (7, 3), (9, 4), (10, 3), (11, 3))  # f up to n / 3 and up to n / 2
STEPS = 1500


class Kept(NamedTuple):
    """The worst input found for one bound of one rule with n rows of which ``faulty`` lie."""

    rule: str
    measure: str
    faulty: int
    rows: Tensor
    ratio: float

    @property
    def count(self) -> int:
        """n."""
        return len(self.rows) - (self.measure in AROUND_A_POINT)


def ratio_of(rule: Rule, bound: Bound, rows: Tensor, faulty: int) -> float:
    """The share of the bound that the result uses up.

    Args:
        rows: n rows, the last f of them liars; and then the point z, of a bound around every point.
    """
    point = None
    if bound.measure in AROUND_A_POINT:
        rows, point = rows[:-1], rows[-1]
    result = rule.aggregate(rows, faulty_max=faulty)
    return ratio_to_bound(bound, result, rows[: len(rows) - faulty], faulty=faulty, point=point)


def kept_inputs() -> Iterator[Kept]:
    """What was found."""
    for name, found in json.loads(KEPT.read_text()).items():
        for one in found:
            rows = torch.tensor(one["rows"], dtype=torch.float64)
            yield Kept(name, one["measure"], one["faulty"], rows, one["ratio"])


def wanted() -> Iterator[tuple[Rule, Bound, int, int]]:
    """Every bound of every rule, with every n and f that the rule takes."""
    for rule in RULES.values():
        for bound in rule.bounds:
            for count, faulty in SIZES:
                if rule.least_contributions(faulty) <= count:
                    yield rule, bound, count, faulty


def _starts(count: int, faulty: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Two honest groups of every size, the liars with one, beside it, or far off; three; a circle; and noise."""
    honest = count - faulty
    for far in range(1, honest):
        for place in (0.0, 1.0, 1.5, 1e3):
            rows = torch.zeros(count, 2, dtype=torch.float64)
            rows[:far, 0] = 1.0
            rows[honest:, 0] = place
            yield rows
    mirrored = torch.zeros(count, 2, dtype=torch.float64)
    mirrored[:faulty, 0], mirrored[honest:, 0] = -1.0, 1.0 - 2.0**-24  # nearer to most than the honest opposite
    yield mirrored
    yield _on_a_circle(count, faulty)
    yield torch.randn(count, 2, dtype=torch.float64, generator=generator)


def _on_a_circle(count: int, faulty: int) -> Tensor:
    """Honest rows in pairs on the unit circle, seen from the median under one angle, and the liars behind that."""
    rows, pull = torch.zeros(count, 2, dtype=torch.float64), faulty / (count - faulty)
    rows[: count - faulty, 0] = (1 - pull * pull) ** 0.5
    rows[: count - faulty, 1] = pull
    rows[: count - faulty : 2, 1] = -pull
    rows[count - faulty :, 0] = 1e6
    return rows


def _moved(rows: Tensor, length: float, liars: slice, generator: torch.Generator) -> Tensor:
    after, count = rows.clone(), len(rows)
    kind = int(torch.randint(3, (), generator=generator))
    step = length * torch.randn(2, dtype=torch.float64, generator=generator)
    if kind == 0:
        after[int(torch.randint(count, (), generator=generator))] += step
    elif kind == 1:
        after[liars] += step
    else:
        after += length * torch.randn(count, 2, dtype=torch.float64, generator=generator)
    return after


def climb(
    rule: Rule, bound: Bound, count: int, faulty: int, *, steps: int = STEPS, seed: int = 0
) -> tuple[Tensor, float]:
    """The worst input found, and its ratio; the same seed finds the same."""
    generator = torch.Generator().manual_seed(seed)
    starts = list(_starts(count, faulty, generator))
    if bound.measure in AROUND_A_POINT:
        starts = [torch.cat([rows, torch.zeros(1, 2, dtype=torch.float64)]) for rows in starts]
    started = [(ratio_of(rule, bound, rows, faulty), rows) for rows in starts]
    highest, best = max(started, key=lambda one: one[0])
    length = 0.3
    for _ in range(steps):
        rows = _moved(best, length, slice(count - faulty, count), generator)
        ratio = ratio_of(rule, bound, rows, faulty)
        if ratio > highest:
            highest, best, length = ratio, rows, min(1.0, 2.0 * length)
        else:
            length = max(0.95 * length, 1e-4)
    return best, highest


def main(*names: str) -> int:
    """Climb for these rules, or for all."""
    found: dict[str, list[dict[str, object]]] = json.loads(KEPT.read_text()) if names else {}
    found = {name: kept for name, kept in found.items() if name not in names}
    chosen = [one for one in wanted() if not names or one[0].name in names]
    for rule, bound, count, faulty in track(chosen, description="climbing"):
        rows, ratio = climb(rule, bound, count, faulty)
        kept = {"measure": bound.measure, "faulty": faulty, "ratio": ratio, "rows": rows.tolist()}
        found.setdefault(rule.name, []).append(kept)
        print(f"{rule.name} {bound.measure} n={count} f={faulty}: {ratio:.3f}", file=sys.stderr, flush=True)
    found = {name: found[name] for name in RULES if name in found}
    KEPT.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
