"""The foreign packages that are verified and measured: where each lives, what it needs, what it may use.

Each has an environment of its own, ``.peers/NAME``, since their pins conflict with ours and with each other's. It
borrows torch, NumPy, Ray and what else the environment of this project has; what it installs itself comes first.
"""

from __future__ import annotations

import os
from pathlib import Path

from hqde_ref.messages import message
from hqde_ref.runtimes.child import Limits

PLACE = "HQDE_PEERS"  # names another folder for the environments


@message
class Peer:
    """A foreign package.

    Attributes:
        target: its adapter, as ``module:attribute``.
        requirements: what its environment installs, exact and without their own dependencies.
    """

    name: str
    target: str
    requirements: tuple[str, ...]
    limits: Limits

    def environment(self) -> Path:
        """The folder of its virtual environment."""
        beside = Path(__file__).resolve().parents[2] / ".peers"
        return Path(os.environ.get(PLACE, beside)) / self.name

    def python(self) -> Path:
        """Its interpreter."""
        return self.environment() / "bin" / "python"


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="hqde",
            target="properties.adapters.hqde:Hqde",
            requirements=("hqde==0.1.12",),
            limits=Limits(memory_mib=6144, call_within_s=120),
        ),
        Peer(
            name="byzfl",
            target="properties.adapters.byzfl:implementation",
            requirements=("byzfl==0.0.11", "seaborn==0.13.2", "pandas==3.1.1"),
            limits=Limits(),
        ),
        Peer(
            name="geom-median",
            target="properties.adapters.geom_median:implementation",
            requirements=("geom-median==0.1.0",),
            limits=Limits(),
        ),
        Peer(
            name="flwr",
            target="properties.adapters.flwr:implementation",
            requirements=(
                "flwr==1.42.0",
                "grpcio==1.85.1",
                "httpx==0.28.1",
                "httpcore==1.0.9",
                "h11==0.16.0",
                "anyio==4.16.0",
                "cryptography==50.0.2",
                "cffi==2.1.1",
                "pycparser==3.12",
                "pycryptodome==3.23.0",
                "iterators==0.0.2",
            ),
            limits=Limits(),
        ),
    )
}
