"""Tables that lose nothing in a narrow terminal: numbers, ids and statuses are never cut, sentences wrap.

Where a sentence would get too little room, each row becomes a line of its short cells with the sentences beneath.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulator.terminal import printable

__all__ = ["print_table"]

_ROOM: Final = 16  # characters that a sentence wants
_INDENT: Final = "    "

Cell = str | Text


def print_table(
    console: Console,
    heads: Sequence[str],
    rows: Sequence[Sequence[Cell] | str],
    *,
    wraps: Sequence[str] = (),
    title: str | None = None,
    box: Box | None = None,
) -> None:
    """Print a table.

    Args:
        rows: cells, or one string that heads the rows beneath it.
        wraps: the heads of those columns whose cells are sentences.
    """
    cells = [row if isinstance(row, str) else [_text(cell) for cell in row] for row in rows]
    widths = [
        max(len(head), *(row[place].cell_len for row in cells if not isinstance(row, str)), 0)
        for place, head in enumerate(heads)
    ]
    least = sum(min(width, _ROOM) if head in wraps else width for head, width in zip(heads, widths, strict=True))
    least += (2 if box is None else 3) * len(heads) + 1  # gaps and frame
    if title is not None:
        console.print(Text(printable(title), style="italic"), soft_wrap=True)
    if least <= console.width or not wraps:
        table = _table(heads, widths, cells, wraps=wraps, box=box)
        console.print(table, width=max(console.width, least), crop=False)
    else:
        _print_stacked(console, heads, widths, cells, wraps=wraps)


def _text(cell: Cell) -> Text:
    return Text(printable(cell)) if isinstance(cell, str) else cell


def _table(
    heads: Sequence[str],
    widths: Sequence[int],
    cells: Sequence[Sequence[Text] | str],
    *,
    wraps: Sequence[str],
    box: Box | None,
) -> Table:
    table = Table(box=box, header_style="bold")
    for head, width in zip(heads, widths, strict=True):
        if head in wraps:
            table.add_column(head, overflow="fold")
        else:
            table.add_column(head, no_wrap=True, min_width=width)
    for row in cells:
        if isinstance(row, str):
            table.add_section()
            table.add_row(*(Text(row, style="bold") if head == wraps[0] else "" for head in heads))
        else:
            table.add_row(*row)
    return table


def _print_stacked(
    console: Console,
    heads: Sequence[str],
    widths: Sequence[int],
    cells: Sequence[Sequence[Text] | str],
    *,
    wraps: Sequence[str],
) -> None:
    short = [place for place, head in enumerate(heads) if head not in wraps]
    _print_line(console, Text("  ").join(Text(heads[place].ljust(widths[place]), style="bold") for place in short))
    for row in cells:
        if isinstance(row, str):
            _print_line(console, Text(row, style="bold"))
            continue
        padded = [row[place] + Text(" " * (widths[place] - row[place].cell_len)) for place in short]
        _print_line(console, Text("  ").join(padded))
        for place, head in enumerate(heads):
            if head in wraps and row[place].plain not in ("", "-"):
                told = row[place].plain if len(wraps) == 1 else f"{head}: {row[place].plain}"
                for line in textwrap.wrap(told, max(console.width - len(_INDENT), 8), break_on_hyphens=False):
                    _print_line(console, Text(_INDENT + line))


def _print_line(console: Console, line: Text) -> None:
    line.rstrip()
    console.print(line, soft_wrap=True, highlight=False)
