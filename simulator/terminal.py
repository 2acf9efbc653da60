"""What both commands share: exit codes, and errors as one line instead of a traceback."""

from __future__ import annotations

import sys
from typing import Any, Final, NoReturn

import typer

from hqde_ref.errors import ConfigurationError, ForeignError, HqdeError, LayoutError, ScenarioError, WireError

__all__ = [
    "BAD_INPUT",
    "BROKEN",
    "CANNOT_TELL",
    "HARNESS_FAILED",
    "INTERRUPTED",
    "NOT_DETERMINISTIC",
    "run_app",
]

BROKEN: Final = 1
CANNOT_TELL: Final = 2
NOT_DETERMINISTIC: Final = 3
BAD_INPUT: Final = 4
HARNESS_FAILED: Final = 5
INTERRUPTED: Final = 130

_MISUSE = (ConfigurationError, ForeignError, LayoutError, ScenarioError, WireError)
_USAGE: Any = typer.BadParameter.__base__  # UsageError, which typer does not export


def run_app(app: typer.Typer, *, name: str) -> NoReturn:
    """Run a command and exit: bad input with 4 and one line, our own failure with 5, Ctrl-C with 130."""
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except _USAGE as error:
        print(f"{name}: {error.format_message()} Try '{name} --help'.", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except _MISUSE as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except HqdeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(HARNESS_FAILED)
