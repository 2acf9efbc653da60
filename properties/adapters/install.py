"""Build the environments of the peers: ``python -m properties.adapters.install [NAME ...]`` (``make peers``).

One line a peer says whether it works. A peer that does not is no reason to stop; only without hqde is the exit code 1.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence

from hqde_ref.errors import ForeignError
from hqde_ref.runtimes.in_child import ForeignImplementation, python_command
from properties.adapters.peers import PEERS, Peer

NEEDED = "hqde"
INSTALL_WITHIN_S = 900


def install(peer: Peer) -> None:
    """Make the environment, install what it needs, and let it borrow the rest from the one that runs this.

    Raises:
        ForeignError: with what the installer said last.
    """
    environment = peer.environment()
    stamp = environment / "installed.txt"
    wanted = "\n".join((sys.version, *peer.requirements))
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    _run(peer, [sys.executable, "-m", "venv", "--clear", "--without-pip", str(environment)])
    # --no-deps: their pins conflict with what they borrow; the lists in peers.py are complete for what is used here.
    pip = [sys.executable, "-m", "pip", "--python", str(peer.python()), "--disable-pip-version-check"]
    _run(peer, [*pip, "install", "--quiet", "--no-deps", *peer.requirements])
    (site,) = environment.glob("lib/python*/site-packages")
    borrowed = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    stamp.write_text(wanted)


def check(peer: Peer) -> str:
    """Start the peer in the guarded child and say its version.

    Raises:
        ForeignError: when it does not start.
    """
    command = python_command(peer.target, python=str(peer.python()))
    with ForeignImplementation(command, label=peer.name, limits=peer.limits) as implementation:
        return implementation.version


def _run(peer: Peer, command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ForeignError(implementation=peer.name, problem=str(error), do="see above and try again") from error
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        said = errors[-1] if errors else f"exit code {done.returncode}"
        raise ForeignError(implementation=peer.name, problem=said, do="check the network and try again")


def main(names: Sequence[str]) -> int:
    """Install and check the named peers, or all."""
    works = {}
    for name in names or list(PEERS):
        peer = PEERS.get(name)
        if peer is None:
            print(f"{name}: no such peer; there are {', '.join(PEERS)}")
            return 4
        try:
            install(peer)
            print(f"{name} {check(peer)}: works", flush=True)
            works[name] = True
        except ForeignError as error:
            print(f"{name}: does not work ({error})", flush=True)
            works[name] = False
    return 0 if works.get(NEEDED, all(works.values())) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
