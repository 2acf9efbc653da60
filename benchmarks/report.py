"""``python -m benchmarks.report FILE``: a table of targets and times, and a plot, beside the rows.

Writes ``benchmarks.md`` and ``benchmarks.svg`` into the folder of FILE. Whatever is missed is said first.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks.data import PLAIN
from benchmarks.measure import Row, kind_of
from benchmarks.targets import Verdict, judge_targets

__all__ = ["main", "plot", "write_report"]

# Okabe and Ito: told apart by the colour-blind; the marker tells a second time.
_LOOKS = {
    "hqde_ref": ("#0072B2", "o"),
    "byzfl": ("#D55E00", "s"),
    "geom-median": ("#009E73", "^"),
    "flwr": ("#CC79A7", "D"),
    "hqde": ("#E69F00", "v"),
    "torch": ("#56B4E9", "P"),
    "numpy": ("#000000", "X"),
}
_ROUNDS = ("round", "crowd")
_HEAD = """# Benchmarks

Made by `make bench`. On one thread a time is processor time, on two it is time by the clock; both are medians over
rounds in which everybody is called in turn, on the same data: eleven of them, or fewer where they take seconds, three
at least on one thread. "Reads" is the time over that of one read of the same bytes in the same process, "error" the
distance to a float64 oracle over the scatter of the honest rows. n / 4 of the rows are outliers (three at most for the
minimum diameter). The rows are in `benchmarks.json`. The geometric median's own certificate comes with it for nothing,
from the inner products; "output certified" adds `certify_geometric_median`, which judges the rounded output alone, in
two more float64 passes over the rows.
"""


def write_report(rows: Sequence[Row]) -> str:
    """The Markdown text."""
    verdicts = judge_targets(rows)
    missed = [verdict for verdict in verdicts if not verdict.is_reached]
    parts = [
        _HEAD,
        f"torch {torch.__version__}, numpy {numpy.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores of {_processor()}.\n",
    ]
    parts.append(f"\n## Targets: {len(verdicts) - len(missed)} of {len(verdicts)} reached\n")
    if missed:
        parts.append("\nMissed:\n\n" + _target_table(missed))
    parts.append("\nReached:\n\n" + _target_table([verdict for verdict in verdicts if verdict.is_reached]))
    parts.append("\n![Time in reads, one thread](benchmarks.svg)\n")
    for threads in sorted({row["threads"] for row in rows}):
        timed = [row for row in rows if row["threads"] == threads and row["bench"] != "memory"]
        parts.append(f"\n## All rows, {threads} thread{'s' if threads > 1 else ''}\n\n" + _row_table(timed))
    return "".join(parts)


def _processor() -> str:
    """What the processor calls itself, with its caches: a ratio to memory speed means little without."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    caches = [
        f"L{(folder / 'level').read_text().strip()} {(folder / 'size').read_text().strip()}"
        for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index[2-9]"))
    ]
    return f"{name or platform.machine()} ({', '.join([platform.machine(), *caches])})"


def _target_table(verdicts: Sequence[Verdict]) -> str:
    lines = ["| target | size | wanted | measured |", "|---|---|---|---|"]
    lines += [f"| {v.target} | {v.size} | {v.wanted} | {v.measured} |" for v in verdicts]
    return "\n".join(lines) + "\n"


def _row_table(rows: Sequence[Row]) -> str:
    lines = [
        "| bench | n | d | who | ms | reads | times ours | error | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        case = [
            r for r in rows if all(r[key] == row[key] for key in ("bench", "n", "d")) and kind_of(r) == kind_of(row)
        ]
        base = next((r["seconds"] for r in case if r["who"] == "hqde_ref" and r["note"].startswith("list")), None)
        times = f"{row['seconds'] / base:.2f}" if row["seconds"] and base else ""
        ms = f"{row['seconds'] * 1e3:.2f}" if row["seconds"] else ""
        reads = f"{row['reads']:.2f}" if row["reads"] else ""
        error = f"{row['error']:.1e}" if row["error"] is not None else ""
        lines.append(
            f"| {row['bench']} | {row['n']} | {row['d']:.0e} | {row['who']} | {ms} | {reads} | {times} "
            f"| {error} | {str(row['note']).replace('|', '/')} |"
        )
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row], path: Path) -> None:
    """One panel a bench: everybody's time in reads on one thread, and the seconds of whole rounds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [r for r in rows if r["threads"] == 1 and r["seconds"] and r["reads"] and kind_of(r) == PLAIN]
    benches = list(dict.fromkeys(r["bench"] for r in shown if not r["bench"].startswith("large_n")))
    if not benches:
        return
    across = min(3, len(benches))
    down = -(-len(benches) // across)
    figure, axes = pyplot.subplots(down, across, figsize=(4.6 * across, 3.2 * down), squeeze=False)
    for panel in axes.flat[len(benches) :]:
        panel.set_visible(False)
    for bench, panel in zip(benches, axes.flat, strict=False):
        draw = _bars if bench in _ROUNDS else _points
        draw(panel, [row for row in shown if row["bench"] == bench])
        panel.set_title(bench.replace("_", " "), fontsize=10)
    handles: dict[str, Any] = {}
    for panel in axes.flat:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles), frameon=False)
    figure.suptitle("Time in reads of the input, one thread (lower is better; hollow: compiled)")
    figure.tight_layout(rect=(0, 0.05, 1, 0.98))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _points(panel: Any, rows: Sequence[Row]) -> None:
    """Everybody's reads at every size."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    sizes = list(dict.fromkeys((row["n"], row["d"]) for row in rows))
    for place, (who, (colour, marker)) in enumerate(_LOOKS.items()):
        for is_compiled in (False, True):
            points = [
                (sizes.index((r["n"], r["d"])) + 0.09 * (place - 3), r["reads"])
                for r in rows
                if r["who"] == who and str(r["note"]).startswith("compiled") == is_compiled
            ]
            if points:
                label, face = (None, "none") if is_compiled else (who, colour)
                panel.plot(
                    *zip(*points, strict=True), marker, color=colour, markerfacecolor=face, label=label, alpha=0.85
                )
    least, most = min(row["reads"] for row in rows), max(row["reads"] for row in rows)
    panel.set_yscale("log")
    panel.set_ylim(10 ** math.floor(math.log10(0.9 * least)), 10 ** math.ceil(math.log10(1.1 * most)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xlim(-0.5, len(sizes) - 0.5)
    panel.set_xticks(range(len(sizes)), [f"n={n}\nd={d:.0e}" for n, d in sizes], fontsize=8)
    panel.set_ylabel("reads", fontsize=8)
    panel.grid(axis="y", which="major", alpha=0.3)


def _bars(panel: Any, rows: Sequence[Row]) -> None:
    """Seconds of whole rounds, one bar a way."""
    timed = [row for row in rows if row["who"] != "one read"][::-1]
    bars = panel.barh([row["who"] for row in timed], [row["seconds"] for row in timed], color=_LOOKS["hqde_ref"][0])
    panel.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    panel.margins(x=0.2)
    panel.tick_params(axis="y", labelsize=7)
    panel.set_xlabel(f"seconds, n={timed[0]['n']}, d={timed[0]['d']:.0e}", fontsize=8)


def main(path: Path) -> int:
    """Write both files beside the rows."""
    try:
        rows: list[Row] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        print(f"{path}: no rows to report ({error}); run python -m benchmarks --json {path}", file=sys.stderr)
        return 4
    (path.parent / "benchmarks.md").write_text(write_report(rows))
    plot(rows, path.parent / "benchmarks.svg")
    print(f"{path.parent / 'benchmarks.md'}: {len(rows)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/benchmarks.json")))
