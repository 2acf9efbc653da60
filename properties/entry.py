"""Where ``hqde-verify`` begins: see ``simulator.entry``."""

from __future__ import annotations

from simulator.ends import end_early

__all__ = ["main"]


def main() -> None:
    """Entry point of ``hqde-verify``."""
    end_early("hqde-verify")
    from properties.cli import main as run

    run()
