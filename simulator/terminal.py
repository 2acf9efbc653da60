"""What both commands share: exit codes, and errors as one line instead of a traceback."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import typer

from hqde_ref.errors import (
    ConfigurationError,
    ForeignError,
    HqdeError,
    LayoutError,
    RuntimeFault,
    ScenarioError,
    WireError,
)
from simulator.ends import INTERRUPTED, take_ends

__all__ = [
    "BAD_INPUT",
    "BROKEN",
    "CANNOT_TELL",
    "HARNESS_FAILED",
    "INTERRUPTED",
    "NOT_DETERMINISTIC",
    "complain",
    "count_of",
    "printable",
    "require_file",
    "require_folder",
    "run_app",
    "write_text",
]

BROKEN: Final = 1
CANNOT_TELL: Final = 2
NOT_DETERMINISTIC: Final = 3
BAD_INPUT: Final = 4
HARNESS_FAILED: Final = 5

_MISUSE = (ConfigurationError, ForeignError, LayoutError, ScenarioError, WireError)
_USAGE: Any = typer.BadParameter.__base__  # UsageError, which typer does not export


def count_of(number: int, noun: str) -> str:
    """``1 round``, ``6 rounds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Text of others with control characters as escapes (``\\x1b``): raw, they would steer the reader's terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def require_folder(setting: str, folder: Path | None) -> None:
    """Make a folder for output and see that it takes a file, before the work and not after it.

    Raises:
        ConfigurationError: when it cannot be written into.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or "it cannot be written"
        raise ConfigurationError(
            setting=setting, wanted="a folder that can be written", got=str(folder), do=f"name another ({why})"
        ) from None


def require_file(setting: str, path: Path | None) -> None:
    """See that a file for output can be written, before the work and not after it.

    Raises:
        ConfigurationError: when its folder is not there, it is a folder itself, or it cannot be opened.
    """
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir():
        do = "name a file in it" if path.is_dir() else "make the folder first"
        raise ConfigurationError(setting=setting, wanted="a file in a folder that exists", got=str(path), do=do)
    was_there = path.exists()
    try:
        with path.open("a", encoding="utf-8"):
            pass
        if not was_there:
            path.unlink()
    except OSError as error:
        why = error.strerror or "it cannot be opened"
        raise ConfigurationError(
            setting=setting, wanted="a file that can be written", got=str(path), do=f"name another ({why})"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a file of results.

    Raises:
        RuntimeFault: when that fails after all (a full disk).
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise RuntimeFault(what=str(path), problem=problem, do="free space or name another") from None


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A polite end from outside (``timeout``, CI, a terminal that closes) is treated as Ctrl-C: what is done is kept.

    CI sends it twice; the second must not keep the results of the first from being written.
    """
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, signal.SIG_IGN)
    raise KeyboardInterrupt


def run_app(app: typer.Typer, *, name: str) -> NoReturn:
    """Run a command and exit: bad input with 4 and one line, our own failure with 5, Ctrl-C with 130."""
    try:
        take_ends(signal.default_int_handler, _interrupt)
        code = app(standalone_mode=False, prog_name=name)
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(complain(f"{name}: interrupted.", INTERRUPTED))
    except _USAGE as error:
        sys.exit(_misused(error, name))
    except _MISUSE as error:
        sys.exit(complain(f"{name}: {error}", BAD_INPUT))
    except HqdeError as error:
        sys.exit(complain(f"{name}: {error}", HARNESS_FAILED))


def _misused(error: Any, name: str) -> int:
    """A command without words gets the help; a wrong word gets one line."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return complain(error.format_message(), BAD_INPUT)
    return complain(f"{name}: {error.format_message()} Try '{name} --help'.", BAD_INPUT)


def complain(text: str, code: int) -> int:
    """Print an error; return the exit code it comes with."""
    print(printable(text), file=sys.stderr)
    return code
