"""What this project set out to reach, and whether rows of one run reach it: judged on one thread, as medians."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.data import FAR, HARD, NEAR, PLAIN
from benchmarks.measure import Row, kind_of

__all__ = ["Verdict", "judge_targets"]

_EXACT = 1e-3
_SAME_ACCURACY = 2.0
_ROUNDING = 6e-8
_ROUND_TIMES = 2.5
_CROWD_SECONDS = {"crowded mean": 0.4, "crowded geometric median": 2.0}
_ABOUT = 1.25


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A target at a size: what was wanted, what was measured, and whether that is enough."""

    target: str
    size: str
    wanted: str
    measured: str
    is_reached: bool


def judge_targets(rows: Sequence[Row]) -> list[Verdict]:
    """All targets that the rows allow to judge."""
    one = [row for row in rows if row["threads"] == 1]
    found: list[Verdict] = []
    for judge in (_mean, _exact_mean, _columns, _geometric, _krum, _scores, _large, _memory, _rounds):
        found += judge(one)
    return found


def _variant(row: Row) -> str:
    return str(row["note"]).split("; ")[0]


def _ours(rows: Sequence[Row], variant: str) -> Row | None:
    return next((r for r in rows if r["who"] == "hqde_ref" and _variant(r) == variant and r["seconds"]), None)


def _peers(rows: Sequence[Row], accepts: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    return [row for row in rows if row["who"] != "hqde_ref" and row["seconds"] and accepts(row)]


def _cases(rows: Sequence[Row], bench: str, kind: str = PLAIN) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each size, in order; of one kind of data."""
    wanted = [row for row in rows if row["bench"] == bench and kind_of(row) == kind]
    for n, d in dict.fromkeys((row["n"], row["d"]) for row in wanted):
        yield f"n={n}, d={d:.0e}", [row for row in wanted if (row["n"], row["d"]) == (n, d)]


def _at_most(target: str, size: str, limit: float, row: Row | None) -> Iterator[Verdict]:
    if row is not None:
        reads = row["reads"]
        yield Verdict(
            target=target,
            size=size,
            wanted=f"at most {limit:g} reads",
            measured=f"{reads:.2f}",
            is_reached=reads <= limit,
        )


def _times(target: str, size: str, limit: float, ours: Row | None, peers: Sequence[Row]) -> Iterator[Verdict]:
    """Ours against the fastest of some others."""
    if ours is None or not peers:
        return
    fastest = min(peers, key=lambda row: row["seconds"])
    ratio = fastest["seconds"] / ours["seconds"]
    yield Verdict(
        target=target,
        size=size,
        wanted=f"at least {limit:g} times {fastest['who']}",
        measured=f"{ratio:.1f}",
        is_reached=ratio >= limit,
    )


def _mean(rows: Sequence[Row]) -> Iterator[Verdict]:
    for size, case in _cases(rows, "mean"):
        yield from _at_most("weighted mean, arena", size, 1.2, _ours(case, "arena"))
        yield from _at_most("weighted mean, list", size, 2.3, _ours(case, "list"))


def _exact_mean(rows: Sequence[Row]) -> Iterator[Verdict]:
    for size, case in _cases(rows, "exact_mean"):
        plain = _ours(case, "plain blocked")
        for variant, limit in (("list", 5.0), ("compiled", 2.5)):
            ours = _ours(case, variant)
            if ours is not None and plain is not None:
                ratio = ours["seconds"] / plain["seconds"]
                yield Verdict(
                    target=f"exact mean, {variant}",
                    size=size,
                    wanted=f"at most {limit:g} plain means",
                    measured=f"{ratio:.2f}",
                    is_reached=ratio <= limit,
                )


def _columns(rows: Sequence[Row]) -> Iterator[Verdict]:
    for bench, name in (("median", "median"), ("trimmed_mean", "trimmed mean")):
        for size, case in _cases(rows, bench):
            limit = 10.0 if case[0]["n"] <= 16 else 7.0
            yield from _times(f"{name}, list", size, limit, _ours(case, "list"), _peers(case))
            yield from _at_most(f"{name}, compiled", size, 2.0, _ours(case, "compiled"))


def _geometric(rows: Sequence[Row]) -> Iterator[Verdict]:
    target = "geometric median"
    for size, case in _cases(rows, "geometric_median"):
        byzfl = _peers(case, lambda row: row["who"] == "byzfl")
        for variant in ("list", "list, output certified"):
            yield from _times(f"{target} with certificate, {variant}", size, 7.0, _ours(case, variant), byzfl)
        if case[0]["n"] <= 16:
            for variant in ("list", "arena", "list, output certified"):
                yield from _times(
                    f"{target} with certificate, {variant}",
                    size,
                    10.0,
                    _ours(case, variant),
                    _peers(case, lambda row: row["who"] == "geom-median"),
                )
    for kind, limit in ((PLAIN, _ROUNDING), (HARD, _ROUNDING * 1e3), (FAR, _ROUNDING * 1e3)):
        for size, case in _cases(rows, "geometric_median", kind):
            ours = _ours(case, "list")
            if ours is not None:
                error = ours["error"]
                yield Verdict(
                    target=f"error of the {target}, {kind}",
                    size=size,
                    wanted=f"error at most {limit:.0e} scatters",
                    measured="not finite" if error is None else f"{error:.1e}",
                    is_reached=error is not None and error <= limit,
                )


def _krum(rows: Sequence[Row]) -> Iterator[Verdict]:
    for size, case in _cases(rows, "krum"):
        yield from _times("Multi-Krum, list", size, 3.0, _ours(case, "list"), _peers(case))
    for size, case in _cases(rows, "krum", NEAR):
        ours = _ours(case, "list")
        if ours is not None:
            wrong = [row["who"] for row in _peers(case) if row["error"] is None or row["error"] > _EXACT]
            error = ours["error"]
            yield Verdict(
                target=f"Multi-Krum selects exactly ({NEAR})",
                size=size,
                wanted="the oracle's rows",
                measured=f"error {error:.0e}; wrong rows: {', '.join(wrong) or 'nobody'}",
                is_reached=error is not None and error <= _EXACT,
            )


def _scores(rows: Sequence[Row]) -> Iterator[Verdict]:
    for size, case in _cases(rows, "leave_one_out"):
        limit = 30.0 if case[0]["n"] < 16 else 80.0
        loop = _peers(case, lambda row: row["who"] == "torch")
        yield from _times("leave-one-out deviations, list", size, limit, _ours(case, "list"), loop)


def _large(rows: Sequence[Row]) -> Iterator[Verdict]:
    for bench in dict.fromkeys(row["bench"] for row in rows if row["bench"].startswith("large_n ")):
        for size, case in _cases(rows, bench):
            for variant in ("list", "arena"):
                ours = _ours(case, variant)
                if ours is not None and ours["error"] is not None:
                    same = _equally_good(case, ours)
                    # A line on an arena is no peer of a list.
                    same = [row for row in same if variant == "arena" or not _variant(row).startswith("arena")]
                    yield from _times(f"{bench.removeprefix('large_n ')}, {variant}", size, 1.0, ours, same)


def _equally_good(case: Sequence[Row], ours: Row) -> list[Row]:
    limit = max(_SAME_ACCURACY * ours["error"], _ROUNDING)
    return _peers(case, lambda row: row["error"] is not None and row["error"] <= limit)


def _memory(rows: Sequence[Row]) -> Iterator[Verdict]:
    for row in rows:
        part = re.search(r"(\S+) of the input", row["note"]) if row["bench"] == "memory" else None
        if part:
            yield Verdict(
                target=f"memory of {_variant(row)}",
                size=f"n={row['n']}, d={row['d']:.0e}",
                wanted="less than the input again",
                measured=f"{part[1]} of it",
                is_reached=float(part[1]) < 1.0,
            )


def _rounds(rows: Sequence[Row]) -> Iterator[Verdict]:
    """Whole rounds on Ray against the document's own way, the sharded median against the flat one, and both crowds."""
    for size, case in _cases(rows, "round"):
        timed = {row["who"]: row for row in case if row["seconds"]}
        document = [row for name, row in timed.items() if name == "the document's way"]
        for way in ("tree", "flat", "sharded", "crowded"):
            yield from _times(f"round, {way}", size, _ROUND_TIMES, timed.get(way), document)
        flat = [row for name, row in timed.items() if name == "flat geometric median"]
        yield from _times("round, sharded geometric median", size, 1.0, timed.get("sharded geometric median"), flat)
    for size, case in _cases(rows, "crowd"):
        for row in case:
            limit = _CROWD_SECONDS.get(row["who"])
            if limit is not None:
                measured = f"{row['seconds']:.2f} s"
                yield Verdict(
                    target=f"round, {row['who']}",
                    size=size,
                    wanted=f"at most {limit:g} s",
                    measured=measured,
                    is_reached=row["seconds"] <= limit,
                )
    yield from _reducers(rows)


def _reducers(rows: Sequence[Row]) -> Iterator[Verdict]:
    for size, case in _cases(rows, "reducer memory"):
        flat = next((row["reads"] for row in case if row["who"].startswith("flat")), None)
        for row in case:
            shards = re.search(r"(\d+) shards", row["who"])
            if shards and flat:
                part = row["reads"] / flat
                yield Verdict(
                    target=f"memory of a reducer, {shards[0]}",
                    size=size,
                    wanted=f"about 1/{shards[1]} of the flat round's",
                    measured=f"{part:.2f} of it",
                    is_reached=part * int(shards[1]) <= _ABOUT,
                )
