"""How far a long command is, on standard error: a bar on a terminal, plain lines elsewhere, at a modest rate.

So that nobody thinks it hangs; a command that is done soon says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simulator.terminal import printable

__all__ = ["EVERY_S", "Teller", "telling"]

EVERY_S: Final = 5.0  # between two plain lines


class Teller(Protocol):
    """Says what is being done; ``done`` more steps are behind it. ``at_once``: it may take long, so say it now."""

    def __call__(self, text: str, *, done: int = 0, at_once: bool = False) -> None: ...


@contextmanager
def telling(console: Console, total: int, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Teller]:
    """Tell of so many steps until the block ends."""
    if not console.is_terminal:
        yield _Lines(console, total, clock)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        def tell(text: str, *, done: int = 0, at_once: bool = False) -> None:
            bar.update(task, advance=done, description=escape(printable(text)))

        yield tell


class _Lines:
    """``[3/18] sim, as written, round 4``: the first that comes after each pause."""

    def __init__(self, console: Console, total: int, clock: Callable[[], float]) -> None:
        self._console = console
        self._total = total
        self._clock = clock
        self._done = 0
        self._last = clock()

    def __call__(self, text: str, *, done: int = 0, at_once: bool = False) -> None:
        self._done += done
        if at_once or self._clock() - self._last >= EVERY_S:
            self._last = self._clock()
            line = f"[{self._done}/{self._total}] {printable(text)}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
