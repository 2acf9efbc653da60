"""Comparator networks cut down to the ranks that are wanted, as straight programs over registers.

A network sorts n values with a fixed list of (smaller, larger) exchanges, so the same exchanges sort whole blocks of
coordinates at once. Working backwards, every half of an exchange that no wanted rank depends on is dropped.

Source: Batcher 1968 and Knuth, The Art of Computer Programming 3, 5.2.2M; Parberry 1992 (pairwise networks).
Pure: no clock, no randomness, no input or output. It holds no tensor: ``order_statistics`` runs the programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Program", "selection_program"]

# (is_maximum, first operand, second operand, target), all of them registers.
Step = tuple[bool, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Steps that bring wanted ranks into registers.

    steps: in order; registers 0..n-1 hold the inputs and are never written, those from n on are scratch.
    scratch: how many scratch registers there are.
    places: rank -> register where it ends up.
    """

    steps: tuple[Step, ...]
    scratch: int
    places: dict[int, int]


@lru_cache(maxsize=256)
def selection_program(count: int, ranks: tuple[int, ...]) -> Program:
    """Return the shortest program known here that selects ``ranks`` (0 is the smallest) of ``count`` inputs."""
    pruned = [_prune(list(network(count)), count, ranks) for network in (_batcher, _pairwise)]
    halves = min(pruned, key=lambda steps: sum(low + high for _, _, low, high in steps))
    return _allocate(halves, count, ranks)


def _batcher(count: int) -> Iterator[tuple[int, int]]:
    """Yield the exchanges of Batcher's merge exchange for any count (Knuth 5.2.2M)."""
    top = 1
    while top < count:
        top *= 2
    p = top // 2
    while p > 0:
        q, r, distance = top // 2, 0, p
        while True:
            for i in range(count - distance):
                if i & p == r:
                    yield i, i + distance
            if q == p:
                break
            distance, q, r = q - p, q // 2, p
        p //= 2


def _pairwise(count: int) -> Iterator[tuple[int, int]]:
    """Yield the exchanges of Parberry's pairwise network for the next power of two, those beyond ``count`` left out."""
    width = 1
    while width < count:
        width *= 2
    a = 1
    while a < width:
        yield from _inside(_pairs(a, a, width), count)
        a *= 2
    a, e = a // 4, 1
    while a > 0:
        d = e
        while d > 0:
            yield from _inside(_pairs(a, d * a, width, start=(d + 1) * a), count)
            d //= 2
        a, e = a // 2, e * 2 + 1


def _pairs(a: int, distance: int, width: int, start: int | None = None) -> Iterator[tuple[int, int]]:
    b, c = a if start is None else start, 0
    while b < width:
        yield b - distance, b
        b, c = b + 1, (c + 1) % a
        if c == 0:
            b += a


def _inside(pairs: Iterator[tuple[int, int]], count: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i, j in pairs if j < count)


def _prune(network: list[tuple[int, int]], count: int, ranks: tuple[int, ...]) -> list[tuple[int, int, bool, bool]]:
    """Return (i, j, keep the minimum, keep the maximum) of the exchanges that some wanted rank depends on."""
    needed = [wire in ranks for wire in range(count)]
    kept = []
    for i, j in reversed(network):
        if needed[i] or needed[j]:
            kept.append((i, j, needed[i], needed[j]))
            needed[i] = needed[j] = True
    return kept[::-1]


def _allocate(halves: list[tuple[int, int, bool, bool]], count: int, ranks: tuple[int, ...]) -> Program:
    """Turn wires into values and values into registers, reusing a scratch register once its value is dead."""
    current, values, steps = list(range(count)), count, []
    for i, j, low, high in halves:
        first, second = current[i], current[j]
        for wanted, is_maximum, wire in ((low, False, i), (high, True, j)):
            if wanted:
                steps.append((is_maximum, first, second, values))
                current[wire], values = values, values + 1
    last_use = {value: time for time, (_, a, b, _) in enumerate(steps) for value in (a, b)}
    last_use.update({current[rank]: len(steps) for rank in ranks})
    register, free, used, result = {value: value for value in range(count)}, list[int](), count, list[Step]()
    for time, (is_maximum, a, b, target) in enumerate(steps):
        # A dying operand's register may take the result in place.
        free += [register[v] for v in dict.fromkeys((a, b)) if last_use[v] == time and register[v] >= count]
        if not free:
            free, used = [used], used + 1
        register[target] = free.pop()
        result.append((is_maximum, register[a], register[b], register[target]))
    return Program(steps=tuple(result), scratch=used - count, places={r: register[current[r]] for r in ranks})
