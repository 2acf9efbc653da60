"""Ends from outside (SIGINT, SIGTERM, SIGHUP) and the exit code of an interruption. Imports nothing heavy.

While commands are still being imported, which takes a second, nothing has been started, so there is nothing to put in
order: one line, and the process ends. ``simulator.terminal.run_app`` takes over.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn, TypeAlias

__all__ = ["INTERRUPTED", "end_early", "take_ends"]

INTERRUPTED: Final = 130
Handler: TypeAlias = Callable[[int, FrameType | None], NoReturn]


def end_early(name: str) -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end the process at once: an exception could be lost in an import."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        try:
            os.write(2, f"{name}: interrupted before anything was run.\n".encode())  # no buffer that may be in use
        finally:
            os._exit(INTERRUPTED)

    take_ends(end, end)


def take_ends(on_interrupt: Handler, on_terminate: Handler) -> None:
    """Handle SIGINT, SIGTERM and SIGHUP, but for what is ignored, as SIGINT is where a script starts this with &."""
    ends = ((signal.SIGINT, on_interrupt), (signal.SIGTERM, on_terminate), (signal.SIGHUP, on_terminate))
    for number, handler in ends:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
