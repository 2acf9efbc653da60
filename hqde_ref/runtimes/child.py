"""A guarded child process, seen from the parent: lines in, lines out, and a reason when it is gone.

Source: HQDE clauses 0.7, 0.12 and 1.2; ``guard.py`` beside it is the program in between.
No threads: whoever waits calls ``wait_for`` with all the children it is interested in. Nothing blocks longer than told.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from hqde_ref.errors import RuntimeFault
from hqde_ref.messages import message

TAIL_BYTES = 16_384
LINE_BYTES = 64 << 20
REPORT_WITHIN_S = 15.0
STDOUT, STDERR, REPORT = "stdout", "stderr", "report"


@message
class Limits:
    """What a child and all its descendants together may use.

    Attributes:
        memory_mib: held by all of its processes together; pages that they share count once.
        call_within_s: for one call.
        start_within_s: from the start of the process to its hello.
    """

    memory_mib: int = 4096
    call_within_s: float = 60.0
    start_within_s: float = 60.0


class Child:
    """One run of a program under the guard."""

    def __init__(self, command: Sequence[str], limits: Limits, environment: Mapping[str, str]) -> None:
        self._limits = limits
        self.lines: deque[bytes] = deque()
        self.gone: str | None = None
        self._to_write = bytearray()
        self._partial = bytearray()
        self._tail = bytearray()
        self._report = bytearray()
        self._owner = os.getpid()
        self._process, self._leash, report = _spawn(command, limits, environment)
        self._streams: dict[str, int] = {
            STDOUT: _descriptor(self._process.stdout),
            STDERR: _descriptor(self._process.stderr),
            REPORT: report,
        }
        self._stdin = _descriptor(self._process.stdin)
        for descriptor in (*self._streams.values(), self._stdin):
            os.set_blocking(descriptor, False)

    def program(self) -> int:
        """The process id of the program itself, once the guard has started it."""
        while self.gone is None:
            with contextlib.suppress(psutil.Error):
                started = psutil.Process(self._process.pid).children()
                if started:
                    return min(started, key=psutil.Process.create_time).pid
            self.wait(time.monotonic() + 0.01)
        raise RuntimeFault(what="a child", problem=self.gone, do="ask for its process while it runs")

    def tail(self) -> str:
        """The last words on standard error."""
        return self._tail.decode(errors="replace").strip()

    def send(self, line: bytes) -> None:
        """Write a line as soon as the child reads."""
        self._to_write += line + b"\n"

    def register(self, selector: selectors.BaseSelector) -> None:
        """Say what this child waits for."""
        for name, descriptor in self._streams.items():
            selector.register(descriptor, selectors.EVENT_READ, (self, name))
        if self._to_write and self.gone is None:
            selector.register(self._stdin, selectors.EVENT_WRITE, (self, "stdin"))

    def on_ready(self, stream: str) -> None:
        """Move bytes; find out that the child is gone."""
        if stream == "stdin":
            self._write()
            return
        if stream not in self._streams:
            return
        data = _read(self._streams[stream])
        if data is None:
            return
        if not data:
            os.close(self._streams.pop(stream)) if stream == REPORT else self._streams.pop(stream)
        match stream:
            case "stdout" if data:
                self._take(data)
            case "stderr":
                self._tail = (self._tail + data)[-TAIL_BYTES:]
            case "report":
                self._report += data
                if not data:
                    self._conclude(_why_gone(bytes(self._report), self._limits))

    def wait(self, until: float) -> None:
        """Let bytes flow until something came or ``until`` has passed."""
        wait_for((self,), until)

    def end(self, why: str) -> None:
        """End the child and everything it started; returns when nothing of it is alive."""
        if self.gone is not None and not self._streams:
            return
        if os.getpid() != self._owner:  # a fork of the owner has no business here
            return
        self.gone = self.gone or why
        self._cut_leash()
        wait_for((self,), time.monotonic() + REPORT_WITHIN_S, until_gone=True)
        if REPORT in self._streams:  # the guard itself hangs: its child dies with it (see guard.py)
            self._process.kill()
            os.close(self._streams.pop(REPORT))
            self._conclude(why)

    def _write(self) -> None:
        try:
            written = os.write(self._stdin, self._to_write[: 1 << 20])
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more; the report will say why
            self._to_write.clear()
            return
        del self._to_write[:written]

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._partial + data).split(b"\n")
        self.lines.extend(bytes(line) for line in lines if line.strip())
        self._partial = rest
        if len(rest) > LINE_BYTES:
            self._partial = bytearray()
            self.gone = self.gone or f"broke the protocol: a line of more than {LINE_BYTES >> 20} MiB"
            self._cut_leash()

    def _cut_leash(self) -> None:
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def _conclude(self, why: str) -> None:
        """Nothing is alive any more: collect last words, close everything."""
        for name in (STDOUT, STDERR):
            descriptor = self._streams.get(name)
            while descriptor is not None and (data := _read(descriptor)):
                self._take(data) if name == STDOUT else self._tail.extend(data)
        self._tail = self._tail[-TAIL_BYTES:]
        self.gone = self.gone or why
        self._cut_leash()
        self._streams.clear()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        self._process.wait()


def wait_for(children: Iterable[Child], until: float, *, until_gone: bool = False) -> None:
    """Let bytes flow until something came (or, with ``until_gone``, until all are gone) or ``until`` has passed."""
    children = tuple(children)
    while True:
        with selectors.DefaultSelector() as selector:
            for child in children:
                child.register(selector)
            if not selector.get_map():
                return
            ready = selector.select(max(0.0, until - time.monotonic()))
        for key, _ in ready:
            child, stream = key.data
            child.on_ready(stream)
        if time.monotonic() >= until or (ready and not until_gone):
            return


def _spawn(
    command: Sequence[str], limits: Limits, environment: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], int, int]:
    leash_end, leash = os.pipe()
    report, report_end = os.pipe()
    guard = [sys.executable, str(Path(__file__).with_name("guard.py"))]
    try:
        process = subprocess.Popen(
            [*guard, str(leash_end), str(report_end), str(limits.memory_mib), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=(leash_end, report_end),
            env=dict(environment),
            start_new_session=True,  # an interrupt at the terminal is ours to handle
        )
    except OSError:
        os.close(leash)
        os.close(report)
        raise
    finally:
        os.close(leash_end)
        os.close(report_end)
    return process, leash, report


def _descriptor(stream: IO[bytes] | None) -> int:
    assert stream is not None
    return stream.fileno()


def _read(descriptor: int) -> bytes | None:
    """What is there to read; None when nothing is there yet, nothing at the end."""
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _why_gone(report: bytes, limits: Limits) -> str:
    """The guard's report in a sentence."""
    if not report:
        return "the guard itself was killed"
    match json.loads(report):
        case {"exit": int(code)} if code < 0:
            with contextlib.suppress(ValueError):
                return f"crashed: killed by {signal.Signals(-code).name}"
            return f"crashed: killed by signal {-code}"
        case {"exit": int(code)}:
            return f"exited with code {code}"
        case {"ended": "memory", "held_mib": held, "processes": processes}:
            return (
                f"ended by the guard: memory limit of {limits.memory_mib} MiB exceeded "
                f"({held} MiB in {processes} process{'es' if processes != 1 else ''})"
            )
        case {"ended": "start", "text": text}:
            return f"could not be started: {text}"
        case _:
            return "ended"
