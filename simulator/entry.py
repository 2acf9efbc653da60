"""Where ``hqde-sim`` begins: an end from outside counts from the first moment on, while the rest is still imported."""

from __future__ import annotations

from simulator.ends import end_early

__all__ = ["main"]


def main() -> None:
    """Entry point of ``hqde-sim``."""
    end_early("hqde-sim")
    from simulator.cli import main as run

    run()
