"""From the word on the command line to an implementation.

``reference``, ``hqde``, ... (the entry points of group ``hqde_ref.implementations``, and the peers by name),
``module:attribute``, or ``cmd:./program --args``. A foreign implementation runs in a guarded child process; ours runs
in this one.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points

from hqde_ref.errors import ForeignError
from hqde_ref.messages import Implementation
from hqde_ref.runtimes.child_main import CannotLoad, load
from hqde_ref.runtimes.in_child import ForeignImplementation, Limits, python_command
from properties.adapters.peers import PEERS, Peer

__all__ = ["names", "resolve"]

GROUP = "hqde_ref.implementations"
COMMAND = "cmd:"
OURS = {"reference": "hqde_ref.reference:Reference"}  # an uninstalled checkout has no entry points


def names() -> Mapping[str, str]:
    """The registered names, and the ``module:attribute`` that each stands for."""
    registered = {point.name: point.value for point in entry_points(group=GROUP)}
    return OURS | {name: peer.target for name, peer in PEERS.items()} | registered


def resolve(
    text: str, *, python: str | None = None, in_process: bool = False, limits: Limits | None = None
) -> Implementation:
    """The implementation that a word names.

    Args:
        text: a registered name, ``module:attribute``, or ``cmd:`` and a command line.
        python: the interpreter of the child; a peer has its own.
        in_process: load it here, without a guard: for debugging, and for code that is trusted.
        limits: of the child; a peer has its own.
    Raises:
        ForeignError: when there is no such implementation or it does not start; one line.
    """
    if text.startswith(COMMAND):
        return _program(text, limits)
    target = text if ":" in text else names().get(text)
    if target is None:
        known = ", ".join(sorted(names()))
        problem = f"no implementation has this name (known: {known})"
        raise ForeignError(implementation=text, problem=problem, do="or name a module:attribute, or cmd:./program")
    if in_process or (text in OURS and python is None):
        return _here(text, target)
    peer = PEERS.get(text)
    if peer is not None and python is None:
        python = _python_of(peer)
    limits = limits or (peer.limits if peer is not None else None)
    return ForeignImplementation(python_command(target, python=python), label=text, limits=limits)


def _program(text: str, limits: Limits | None) -> Implementation:
    try:
        command = shlex.split(text.removeprefix(COMMAND))
    except ValueError as error:
        raise ForeignError(implementation=text, problem=f"cannot be split ({error})", do="mend the quotes") from error
    if not command:
        raise ForeignError(implementation=text, problem="no program", do="write cmd:./program --args")
    return ForeignImplementation(command, label=text, limits=limits)


def _here(text: str, target: str) -> Implementation:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as in the child: a module of the folder one stands in is found
    try:
        implementation: Implementation = load(target)
    except CannotLoad as error:
        raise ForeignError(implementation=text, problem=error.problem, do=error.do) from error
    return implementation


def _python_of(peer: Peer) -> str:
    if not peer.python().exists():
        problem = "it is not installed: it has an environment of its own, which is not there yet"
        raise ForeignError(implementation=peer.name, problem=problem, do="run make peers")
    return str(peer.python())
