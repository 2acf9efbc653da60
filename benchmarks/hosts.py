"""Child processes, one a package, that are asked over a pipe; see ``child``."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from properties.adapters.peers import PEERS

__all__ = ["Host", "HostFailed", "installed_peers", "start_hosts"]

ROOT = Path(__file__).resolve().parents[1]
ANSWER_WITHIN_S = 600.0
LEAVE_WITHIN_S = 5.0


class HostFailed(Exception):
    """A child did not start, ended, or took too long; its text is the whole sentence."""


class Host:
    """A child process that times one package's functions, on a given number of threads."""

    def __init__(self, name: str, python: str, *, threads: int) -> None:
        self.name = name
        # A short command line and a clean path: the environment decides the threads of every library in it.
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        environment |= {key: str(threads) for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.child", name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def wait(self) -> None:
        """Wait until it can be asked; one that cannot is ended.

        Raises:
            HostFailed: it did not start, for the reason said.
        """
        try:
            self._answer()
        except HostFailed:
            self.stop()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request, one reply.

        Raises:
            HostFailed: the child ended, or said that this failed, or said nothing for ten minutes.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise HostFailed(f"{self.name} has ended ({error})") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_WITHIN_S)
        if not ready:
            self._process.kill()
            raise HostFailed(f"{self.name} said nothing for {ANSWER_WITHIN_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise HostFailed(f"{self.name} has ended with exit code {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "failed" in reply:
            raise HostFailed(f"{self.name}: {reply['failed']}")
        return reply

    def stop(self) -> None:
        """End the child."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(LEAVE_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def installed_peers() -> tuple[dict[str, str], list[str]]:
    """The interpreters of the peers that are installed, and the names of those that are not."""
    found = {name: str(peer.python()) for name, peer in PEERS.items() if peer.python().exists()}
    return found, [name for name in PEERS if name not in found]


def start_hosts(*, threads: int) -> tuple[list[Host], list[str]]:
    """Ours first, then the peers; and a line for each that cannot take part."""
    peers, missing = installed_peers()
    lines = [f"{name}: not installed (make peers); the rest goes on without it" for name in missing]
    names = {"hqde_ref": sys.executable, **peers}
    started = [Host(name, python, threads=threads) for name, python in names.items()]
    hosts = []
    for host in started:
        try:
            host.wait()
            hosts.append(host)
        except HostFailed as error:
            if host is started[0]:
                for other in started[1:]:
                    other.stop()
                raise
            lines.append(f"{error}; the rest goes on without it")
    return hosts, lines
