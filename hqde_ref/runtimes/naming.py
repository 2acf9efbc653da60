"""Which host carries which node: every runtime finds a node by its name alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hqde_ref.errors import ConfigurationError
from hqde_ref.messages import NodeSpec

__all__ = ["hosts_of_nodes"]


def hosts_of_nodes(hosts: Mapping[str, Sequence[NodeSpec]]) -> dict[str, str]:
    """Return the host of every node, by the node's name.

    Raises:
        ConfigurationError: two nodes have the same name.
    """
    found: dict[str, str] = {}
    for host, specs in hosts.items():
        for spec in specs:
            if spec.name in found:
                raise ConfigurationError(
                    setting=f"nodes of {found[spec.name]} and {host}",
                    wanted="a name for each node",
                    got=f"{spec.name!r} twice",
                    do="name every node once",
                )
            found[spec.name] = host
    return found
