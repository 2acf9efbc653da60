"""The coordinate-wise kernels through torch.compile: one pass over memory instead of one per step.

The first use of a kernel for a number of rows compiles it (seconds to half a minute) and tries it on a sample; where
there is no compiler, or it fails, the builder returns None and callers run the eager kernel. Results are the eager
kernels' bits (0.0 and -0.0 counted as equal), except that leave-one-out scores are summed in another order and products
of a plain weighted mean are not rounded before they are added.

Networks compare integers that are ordered as the numbers are: one instruction each, where a minimum of numbers that
carries NaN takes three. As integers, NaN lies beyond the infinities at either end, so the span still tells of it.

Source: HQDE clauses 0.10, 4.3 and 4.5.
Pure but for what torch.compile does: it writes generated code to torch's cache directory and runs the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hqde_ref.core.kernels.networks import selection_program
from hqde_ref.errors import ConfigurationError

__all__ = [
    "Backend",
    "bits_of",
    "build_exact_mean",
    "build_leave_one_out",
    "build_middle_mean",
    "build_weighted_mean",
    "is_compiled",
]

Backend: TypeAlias = Literal["eager", "compiled"]
Kernel: TypeAlias = Callable[..., Any]

# Shorter rows would be compiled for one thread.
_SAMPLE = (1 << 16) + 1
_ROWS_MAX = 48
# Without a large fusion size a long network is cut into loops that pass whole rows through memory.
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"max_fusion_size": 4096, "cpp.dynamic_threads": True}
_KEYS = {torch.float32: (torch.int32, 31), torch.float64: (torch.int64, 63)}


def is_compiled(backend: str, rows: Sequence[Tensor], *, rule: str) -> bool:
    """Ask whether a compiled kernel is wanted and exists for such rows: float32 or float64, at most 48, not empty.

    Raises:
        ConfigurationError: the backend is neither "eager" nor "compiled".
    """
    if backend not in ("eager", "compiled"):
        raise ConfigurationError(
            setting=f"backend of {rule}",
            wanted="'eager' or 'compiled'",
            got=backend,
            do="take 'compiled' for large rows that are aggregated often",
        )
    fits = rows[0].dtype in (torch.float32, torch.float64) and len(rows) <= _ROWS_MAX and rows[0].numel() > 0
    return backend == "compiled" and fits and not rows[0].is_meta


@lru_cache(maxsize=256)
def build_middle_mean(count: int, low: int, high: int, dtype: torch.dtype, device: torch.device) -> Kernel | None:
    """Return (bits, out) -> greatest span, or None; it writes the mean of ranks low..high-1 as the eager kernels do.

    ``bits`` are the rows seen as integers, ``bits_of``: seen so inside, every value would pass through memory.
    """
    program = selection_program(count, tuple(sorted({0, *range(low, high), count - 1})))
    halving = 2.0 ** -(high - low).bit_length()
    share = 1.0 / ((high - low) * halving)

    def kernel(bits: Sequence[Tensor], out: Tensor) -> Tensor:
        s = _select(bits, program.steps, program.places, dtype)
        if high - low == 1:
            out.copy_(s[low])
        elif high - low == 2:
            out.copy_(s[low] * 0.5 + s[low + 1] * 0.5)
        else:
            total = s[low] * halving
            for rank in range(low + 1, high):
                total = total + s[rank] * halving
            out.copy_(torch.minimum(torch.maximum(total * share, s[low]), s[high - 1]))
        return (s[count - 1] - s[0]).amax()

    samples = _samples(count, dtype, device)
    return _build(kernel, f"middle_{count}_{low}_{high}", bits_of(samples), torch.empty_like(samples[0]))


@lru_cache(maxsize=64)
def build_exact_mean(count: int, dtype: torch.dtype, device: torch.device) -> Kernel | None:
    """Return (rows, masses, magnet, mass, out), which writes the order-free mean of the rows; see ``exact_sums``."""

    def kernel(rows: Sequence[Tensor], masses: Tensor, magnet: Tensor, mass: Tensor, out: Tensor) -> None:
        total = (rows[0].to(torch.float64) * masses[0] + magnet) - magnet
        for place in range(1, count):
            total = total + ((rows[place].to(torch.float64) * masses[place] + magnet) - magnet)
        out.copy_(total / mass)

    samples, ones = _samples(count, dtype, device), torch.ones(count, dtype=torch.float64, device=device)
    return _build(kernel, f"exact_{count}", samples, ones, ones.sum() * 1.5, ones.sum(), torch.empty_like(samples[0]))


@lru_cache(maxsize=64)
def build_weighted_mean(count: int, dtype: torch.dtype, device: torch.device) -> Kernel | None:
    """Return (rows, shares, out), which writes sum_i shares[i] * rows[i] in one pass over the rows."""

    def kernel(rows: Sequence[Tensor], shares: Tensor, out: Tensor) -> None:
        total = rows[0] * shares[0]
        for place in range(1, count):
            total = total + rows[place] * shares[place]
        out.copy_(total)

    samples = _samples(count, dtype, device)
    return _build(
        kernel, f"mean_{count}", samples, torch.ones(count, dtype=dtype, device=device), torch.empty_like(samples[0])
    )


@lru_cache(maxsize=64)
def build_leave_one_out(count: int, dtype: torch.dtype, device: torch.device) -> Kernel | None:
    """Return (rows, floor) -> (sum of deviation / (spread + floor) per row, greatest span); see ``leave_one_out``."""
    program = selection_program(count, tuple(range(count)))
    k = (count - 2) // 2

    def kernel(rows: Sequence[Tensor], floor: Tensor) -> tuple[list[Tensor], Tensor]:
        s = _select(bits_of(rows), program.steps, program.places, dtype)
        low0, low1 = _spread_pair(s, k, k, count)
        high0, high1 = _spread_pair(s, k + 1, k, count)
        sums = []
        for x in rows:
            above, below = x - s[k], s[k + 1] - x
            spread = torch.where(
                above > 0, torch.where(above > low0, low0, low1), torch.where(below > high0, high0, high1)
            )
            sums.append((torch.maximum(above, below) / (spread + floor)).sum(dtype=torch.float64))
        return sums, (s[count - 1] - s[0]).amax()

    return _build(
        kernel, f"leave_one_out_{count}", _samples(count, dtype, device), torch.tensor(1e-8, dtype=dtype, device=device)
    )


def bits_of(rows: Sequence[Tensor]) -> list[Tensor]:
    """Return float32 or float64 rows seen as integers of their size."""
    integer, _ = _KEYS[rows[0].dtype]
    return [row.view(integer) for row in rows]


def _select(
    bits: Sequence[Tensor],
    steps: Sequence[tuple[bool, int, int, int]],
    places: dict[int, int],
    dtype: torch.dtype,
) -> dict[int, Tensor]:
    registers = {place: _flip(row, dtype) for place, row in enumerate(bits)}
    for is_maximum, first, second, target in steps:
        operation = torch.maximum if is_maximum else torch.minimum
        registers[target] = operation(registers[first], registers[second])
    return {rank: _flip(registers[place], dtype).view(dtype) for rank, place in places.items()}


def _flip(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn bits of numbers into integers in the order of the numbers, or back: negative ones are inverted but for the
    sign."""
    integer, sign = _KEYS[dtype]
    return bits ^ ((bits >> sign) & torch.iinfo(integer).max)


def _spread_pair(s: dict[int, Tensor], centre: int, k: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the k-th and (k+1)-th smallest of |s[r] - s[centre]|, from the two lists that ascend from the centre."""
    down = [s[centre] - s[rank] for rank in range(centre, -1, -1)]
    up = [s[rank] - s[centre] for rank in range(centre + 1, count)]
    found = []
    for rank in (k, k + 1):
        least: Tensor | None = None
        for taken in range(max(0, rank + 1 - len(up)), min(len(down), rank + 1) + 1):
            ends = ([down[taken - 1]] if taken else []) + ([up[rank - taken]] if taken <= rank else [])
            greatest = ends[0] if len(ends) == 1 else torch.maximum(ends[0], ends[1])
            least = greatest if least is None else torch.minimum(least, greatest)
        assert least is not None
        found.append(least)
    return found[0], found[1]


def _samples(count: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    return [torch.arange(_SAMPLE, dtype=dtype, device=device) + place for place in range(count)]


def _build(kernel: Kernel, name: str, *sample: Any) -> Kernel | None:
    # torch counts recompilations per code object; without one of its own, the ninth kernel would run uncompiled.
    kernel.__code__ = kernel.__code__.replace(co_name=name)
    compiled: Kernel = torch.compile(kernel, dynamic=True, options=_OPTIONS)
    try:
        compiled(*sample)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ImportError, OSError):
        return None
    return compiled
