"""Weight stores spread over the nodes of a Ray cluster, with the plan that keeps copies of a key apart.

Source: HQDE clauses 2.6 and 2.7; ``docs/design.md``, failure domains.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hqde_ref.core.quorums import StorePlan, plan_store
from hqde_ref.errors import ConfigurationError
from hqde_ref.nodes.store import StoreSpec
from hqde_ref.runtimes.on_ray import OnRay

__all__ = ["TooFewNodes", "domains_of", "spread_stores"]


class TooFewNodes(UserWarning):
    """Copies of a key share a node, so losing that node loses more than one of them."""


@contextmanager
def spread_stores(
    names: Sequence[str], *, copies: int = 3, address: str | None = None, start_within_s: float = 120.0
) -> Iterator[tuple[OnRay, StorePlan]]:
    """Start a store of each name, spread over the cluster's nodes; the runtime, and the plan with its failure domains.

    Args:
        names: of the stores, each on a host of the same name.
        copies: R. On fewer nodes than that copies share a node: that is allowed, and told with ``TooFewNodes``.
        address: of a running cluster; None starts a private one on this machine.

    Raises:
        ConfigurationError: for more copies than stores or a name given twice, before anything is started.
        RuntimeFault: as ``OnRay``.
    """
    if isinstance(names, str):
        raise ConfigurationError(
            setting="names of stores",
            wanted="a sequence of names",
            got=names,
            do=f"pass [{names!r}] for a store of that name",
        )
    plan_store(names, copies=copies)
    hosts = {name: (StoreSpec(name=name),) for name in names}
    with OnRay(hosts, address=address, spread=True, start_within_s=start_within_s) as runtime:
        domains = domains_of(runtime, names)
        nodes = len(set(domains))
        if nodes < copies:
            warnings.warn(
                f"wanted {copies} nodes for {copies} copies of a key, got {nodes}: losing one node may lose several "
                "copies; add nodes or keep fewer copies.",
                TooFewNodes,
                stacklevel=3,
            )
        yield runtime, plan_store(names, copies=copies, domains=domains)


def domains_of(runtime: OnRay, names: Sequence[str]) -> tuple[str, ...]:
    """The Ray node of each of these hosts, as ``plan_store`` takes them; hosts must have been started spread."""
    found = [runtime.node_of(name) for name in names]
    assert all(node is not None for node in found), "these hosts were not started with spread"
    return tuple(node for node in found if node is not None)
