"""The parent's half of the child protocol: post calls to a guarded child, and settle what became of them.

Source: HQDE clauses 0.7 and 0.12. The protocol itself is written down at the head of ``protocol.py``.
A child that is gone (a crash, a limit, a breach of the protocol) settles everything that was posted to it as
``Failed``; the next post starts a new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from hqde_ref import wire
from hqde_ref.errors import WireError
from hqde_ref.messages import Failed, Reply, Request
from hqde_ref.runtimes.child import Child, Limits, wait_for
from hqde_ref.runtimes.protocol import FOLDER, INCARNATION, Hello, parse_hello, parse_reply, with_last_words

Command: TypeAlias = Sequence[str]

OURS = ("hqde_ref", "simulator", "properties")  # what a child may import of this project, under any interpreter


@dataclasses.dataclass(slots=True, eq=False)
class Posted:
    """A message on its way: its calls, and their replies once they are known."""

    id: int
    calls: tuple[tuple[str, Request], ...]
    due: float = math.inf
    replies: tuple[Reply, ...] | None = None


class Host:
    """A program that answers calls, started when needed and again after every loss."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        self._command, self._limits = tuple(command), limits
        self.folder = Path(tempfile.mkdtemp(prefix="hqde-child-"))
        _link_ourselves(self.folder / "path")
        self._running: list[Child] = []  # at most one; a list, so that the finalizer can see it
        self._finalizer = weakref.finalize(self, _clean_up, self._running, self.folder, os.getpid())
        self._start_due = math.inf
        self._posted: dict[int, Posted] = {}
        self._ids = 0
        self._stopping = False
        self._starts = 0
        self.hello: Hello | None = None
        self.trouble: str | None = None  # why the last child is gone
        self.advice = ""  # what that child said should be done about it

    @property
    def running(self) -> tuple[Child, ...]:
        """The child, if there is one."""
        return tuple(self._running)

    @property
    def in_flight(self) -> tuple[Posted, ...]:
        """Messages without an answer yet, in the order in which they were posted."""
        return tuple(self._posted.values())

    @property
    def starts(self) -> int:
        """How many times a child was started."""
        return self._starts

    def start(self) -> None:
        """Start a child unless one runs; ``hello`` is there when it has said so."""
        if self._running:
            return
        self.hello, self.trouble, self.advice = None, None, ""
        environment = dict(os.environ)
        places = [str(self.folder / "path"), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(places)
        environment |= {FOLDER: str(self.folder), INCARNATION: str(self._starts)}
        self._starts += 1
        self._running.append(Child(self._command, self._limits, environment))
        self._start_due = time.monotonic() + self._limits.start_within_s

    def post(self, calls: Sequence[tuple[str, Request]]) -> Posted:
        """Send calls as one message, to be performed in their order."""
        self.start()
        self._ids += 1
        posted = Posted(id=self._ids, calls=tuple(calls))
        tensors: dict[str, Tensor] = {}
        items = [{"node": node, "request": wire.encode(request, tensors)} for node, request in posted.calls]
        body = {"verb": "perform", **items[0]} if len(items) == 1 else {"verb": "batch", "calls": items}
        name = f"{posted.id}.request.safetensors" if tensors else None
        if name:
            wire.write_tensors(self.folder / name, tensors)
        self._say({"id": posted.id, **body, "tensors": name})
        self._posted[posted.id] = posted
        self._hasten()
        return posted

    def forget(self, node: str) -> None:
        """Let the child drop a node."""
        if self._running:
            self._say({"verb": "forget", "node": node})

    def due(self) -> float:
        """When the next limit is reached, on the monotonic clock."""
        if not self._running:
            return math.inf
        if self.hello is None:
            return self._start_due
        return min((posted.due for posted in self._posted.values()), default=math.inf)

    def settle(self) -> None:
        """Take what the child said, hold it to its limits, and settle everything if it is gone."""
        if not self._running:
            return
        child = self._running[0]
        while child.lines and self.trouble is None:
            try:
                self._take(child.lines.popleft())
            except WireError as error:
                self.trouble = f"broke the protocol: {error}"
        if self.trouble is not None:
            child.end(self.trouble)
        elif child.gone is None and time.monotonic() >= self.due():
            limits = self._limits
            within = (
                f"start limit of {limits.start_within_s:g} s"
                if self.hello is None
                else f"time limit of {limits.call_within_s:g} s a call"
            )
            child.end(f"ended by the guard: {within} exceeded")
        if child.gone is not None:
            self._lose(child)

    def close(self, *, within_s: float = 5.0) -> None:
        """Ask the child to stop, then end it with all that it started; nothing survives."""
        self.ask_to_stop()
        until = time.monotonic() + within_s
        while self._stopping and self._running and self._running[0].gone is None and time.monotonic() < until:
            self._running[0].wait(until)
        self._finalizer()

    def ask_to_stop(self) -> None:
        """Let an idle child stop in its own way; ``close`` waits for it."""
        if self._running and self.hello is not None and not self._posted and not self._stopping:
            self._stopping = True
            self._say({"verb": "stop"})
            self._running[0].wait(time.monotonic())

    def _say(self, document: dict[str, Any]) -> None:
        self._running[0].send(json.dumps(document, allow_nan=False, separators=(",", ":")).encode())

    def _take(self, line: bytes) -> None:
        try:
            document = json.loads(line)
        except ValueError:
            document = None
        match document:
            case {"hello": dict() as said} if self.hello is None:
                self.hello = parse_hello(said)
                self._hasten()
            case {"error": dict() as error} if self.hello is None:
                self.trouble, self.advice = str(error.get("text")), str(error.get("do", ""))
            case {"id": int(number)} if self.hello is not None and number in self._posted:
                posted = self._posted.pop(number)
                (self.folder / f"{number}.request.safetensors").unlink(missing_ok=True)
                posted.replies = self._replies(posted, document)
                self._hasten()
            case _:
                wanted = "a hello" if self.hello is None else "an answer with the id of a call"
                got = line[:80].decode(errors="replace")
                raise WireError(what="a line", wanted=wanted, got=repr(got), do="print to standard error")

    def _replies(self, posted: Posted, answer: dict[str, Any]) -> tuple[Reply, ...]:
        many = answer.get("replies")
        if len(posted.calls) == 1 or "error" in answer:
            many = [answer] * len(posted.calls)
        if not isinstance(many, list) or len(many) != len(posted.calls):
            got = f"{len(many)}" if isinstance(many, list) else "none"
            raise WireError(what="replies", wanted=f"{len(posted.calls)}", got=got, do="answer every call of a batch")
        try:
            tensors = self._tensors(answer.get("tensors"))
        except WireError as error:
            return tuple(Failed(reason=f"broke the protocol: {error}", definite=True) for _ in posted.calls)
        return tuple(parse_reply(item, tensors) for item in many)

    def _tensors(self, name: object) -> dict[str, Tensor]:
        if name is None:
            return {}
        if not isinstance(name, str) or Path(name).name != name:
            raise WireError(what="tensors", wanted=f"a file name in ${FOLDER}", got=repr(name), do="write it there")
        tensors = wire.read_tensors(self.folder / name)
        (self.folder / name).unlink(missing_ok=True)
        return tensors

    def _hasten(self) -> None:
        """The child works on the oldest message now: its time runs from here."""
        oldest = next(iter(self._posted.values()), None)
        if self.hello is not None and oldest is not None and oldest.due == math.inf:
            oldest.due = time.monotonic() + self._limits.call_within_s * len(oldest.calls)

    def _lose(self, child: Child) -> None:
        child.end(child.gone or "")
        self._running.clear()
        self.trouble = with_last_words(child.gone or "ended", child.tail())
        failed = Failed(reason=self.trouble, definite=True)
        for posted in self._posted.values():
            posted.replies = (failed,) * len(posted.calls)
            (self.folder / f"{posted.id}.request.safetensors").unlink(missing_ok=True)
        self._posted.clear()


def python_command(target: str, *, python: str | None = None) -> tuple[str, ...]:
    """The command that serves ``module:attribute`` under this interpreter or another."""
    return (python or sys.executable, "-m", "hqde_ref.runtimes.child_main", target)


def _link_ourselves(folder: Path) -> None:
    """A folder with nothing but this project's packages: beside another interpreter's own, it shadows none of them."""
    folder.mkdir()
    beside = Path(__file__).resolve().parents[2]
    for name in OURS:
        if (beside / name).is_dir():
            (folder / name).symlink_to(beside / name, target_is_directory=True)


def _clean_up(running: list[Child], folder: Path, owner: int) -> None:
    if os.getpid() != owner:
        return
    for child in running:
        child.end("closed")
    running.clear()
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)


def wait_until(hosts: Sequence[Host], until: float, done: Callable[[], bool]) -> None:
    """Let hosts work until ``done`` or ``until``; limits are kept meanwhile."""
    while True:
        for host in hosts:
            host.settle()
        if done() or time.monotonic() >= until:
            return
        running = [child for host in hosts for child in host.running]
        next_limit = min((host.due() for host in hosts), default=math.inf)
        wait_for(running, min(until, next_limit, time.monotonic() + 60.0))
