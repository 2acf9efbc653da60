"""Where ``hqde-sim`` begins: an end from outside counts from the first moment on, while the rest is still imported.

That takes a second. Nothing has been started by then, so there is nothing to put in order: one line, and the exit code
of an interruption. ``simulator.terminal.run_app`` takes over. Imports nothing heavy itself.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

__all__ = ["INTERRUPTED", "end_early", "main"]

INTERRUPTED: Final = 130


def end_early(name: str) -> None:
    """From now on SIGINT and SIGTERM end the process at once: an exception could be lost in somebody's import."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        print(f"{name}: interrupted before anything was run.", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGINT is where a script starts this with &
            signal.signal(number, end)


def main() -> None:
    """Entry point of ``hqde-sim``."""
    end_early("hqde-sim")
    from simulator.cli import main as run

    run()
