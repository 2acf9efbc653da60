"""A foreign implementation behind the child protocol, in one guarded child process.

Source: HQDE clauses 0.7 and 0.12; the protocol is written down at the head of ``protocol.py``.
Nothing that foreign code does hangs or harms the caller: a crash, an endless loop or a breach of the protocol is the
reply ``Failed``, and the next call finds a new process.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

from hqde_ref import messages
from hqde_ref.errors import ForeignError
from hqde_ref.messages import Reply, Request
from hqde_ref.runtimes.child import Limits
from hqde_ref.runtimes.child_host import Command, Host, wait_until
from hqde_ref.runtimes.protocol import Hello


class ForeignNode:
    """A node in the child; when it is no longer referred to, the child forgets it."""

    def __init__(self, name: str, perform: Callable[[str, Request], Reply]) -> None:
        self.name, self._perform = name, perform

    def perform(self, request: Request, /) -> Reply:
        """The child's reply, or ``Failed`` with what happened to it."""
        return self._perform(self.name, request)


class ForeignImplementation:
    """An implementation behind the protocol, in one guarded child process.

    Raises:
        ForeignError: when it does not start; the text is one line.
    """

    def __init__(self, command: Command, *, label: str, limits: Limits | None = None) -> None:
        self._label, self._limits = label, limits or Limits()
        self._host = Host(command, self._limits)
        self._lock = threading.RLock()
        self._nodes = 0
        self._unwanted: list[str] = []
        try:
            self._hello = self._start()
            self.supports: frozenset[type] = frozenset(map(self._kind, self._hello.supports))
        except BaseException:
            self._host.close()
            raise

    @property
    def name(self) -> str:
        """As the child says."""
        return self._hello.name

    @property
    def version(self) -> str:
        """As the child says."""
        return self._hello.version

    @property
    def rules(self) -> frozenset[tuple[str, str]] | None:
        """The (rule, topology) pairs that its ``Aggregate`` knows; None when it does not say."""
        return None if self._hello.rules is None else frozenset(self._hello.rules)

    @property
    def starts(self) -> int:
        """How many child processes there were: one more after every crash and breach of a limit."""
        return self._host.starts

    def last_words(self) -> str:
        """The tail of what the running child wrote to standard error."""
        return "\n".join(child.tail() for child in self._host.running)

    def start(self) -> ForeignNode:
        """A node in a fresh state."""
        self._nodes += 1
        node = ForeignNode(f"n{self._nodes}", self._perform)
        weakref.finalize(node, self._unwanted.append, node.name).atexit = False
        return node

    def stop(self) -> None:
        """End the child and everything that it started."""
        with self._lock:
            self._host.close()

    def __enter__(self) -> ForeignImplementation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> Hello:
        host = self._host
        host.start()
        wait_until((host,), math.inf, lambda: host.hello is not None or host.trouble is not None)
        if host.hello is None:
            do = host.advice or "run it by hand to see why it does not say hello"
            raise ForeignError(implementation=self._label, problem=host.trouble or "no hello", do=do)
        return host.hello

    def _kind(self, name: str) -> type:
        kind = getattr(messages, name, None)
        if not isinstance(kind, type):
            problem = f"it says that it supports {name!r}, which is no request"
            raise ForeignError(implementation=self._label, problem=problem, do="see hqde_ref/messages")
        return kind

    def _perform(self, node: str, request: Request) -> Reply:
        with self._lock:
            while self._unwanted:
                self._host.forget(self._unwanted.pop())
            posted = self._host.post([(node, request)])
            wait_until((self._host,), math.inf, lambda: posted.replies is not None)
            assert posted.replies is not None
            return posted.replies[0]
