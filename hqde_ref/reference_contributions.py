"""Updates as they come from outside, as contributions that the stories take: the reference's way in.

Source: HQDE clauses 0.3, 0.4, 0.6, 6.2 and 6.6. What cannot be a contribution is rejected here; the rest is judged by
the stories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hqde_ref.core.judging import EQUIVOCATION, Gathered, gather
from hqde_ref.core.packing import find_misfit, fingerprint, layout_of, pack
from hqde_ref.core.screening import MISSHAPEN
from hqde_ref.core.sharding import cut, name_pieces
from hqde_ref.core.weighting import EFFICIENCY_START
from hqde_ref.errors import ConfigurationError, LayoutError
from hqde_ref.messages import Contribution, Failed, Layout, Policy, Reply, Update

__all__ = ["contribution_of", "first_layout", "gather_updates", "members_of", "updates_by_worker"]


def members_of(members: Sequence[str] | None, updates: Sequence[Update]) -> tuple[str, ...]:
    """Everyone who is expected, by id; those who sent something, unless members are named.

    Raises:
        ConfigurationError: for a member that is named twice.
    """
    if members is None:
        return tuple(sorted({update.worker for update in updates}))
    if len(set(members)) != len(members):
        raise ConfigurationError(setting="members", wanted="distinct ids", got=members, do="name every member once")
    return tuple(sorted(members))


def updates_by_worker(updates: Sequence[Update]) -> dict[str, list[Update]]:
    """Each worker's updates without exact repetitions, by worker id: the order of listing leaves no trace."""
    found: dict[str, list[Update]] = {}
    for update in sorted(updates, key=lambda update: update.worker):
        mine = found.setdefault(update.worker, [])
        if not any(_is_same(update, other) for other in mine):
            mine.append(update)
    return found


def _is_same(one: Update, other: Update) -> bool:
    if one.mass != other.mass or repr(one.accuracy) != repr(other.accuracy):
        return False
    if one.tensors.keys() != other.tensors.keys():
        return False
    return all(
        tensor.dtype == other.tensors[name].dtype
        and tensor.shape == other.tensors[name].shape
        and torch.equal(_bits(tensor), _bits(other.tensors[name]))
        for name, tensor in one.tensors.items()
    )


def _bits(tensor: Tensor) -> Tensor:
    if tensor.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)  # an empty tensor may have strides that cannot be viewed
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def first_layout(by_worker: Mapping[str, Sequence[Update]]) -> Layout:
    """The layout of the first worker, by id, that sent one thing only, of dtypes that can be aggregated."""
    for mine in by_worker.values():
        if len(mine) == 1:
            try:
                return layout_of(mine[0].tensors)
            except LayoutError:
                continue
    return Layout(entries=())


def gather_updates(
    by_worker: Mapping[str, Sequence[Update]], *, members: Sequence[str], layout: Layout, policy: Policy
) -> Gathered:
    """Contributions as the stories take them; what cannot be one is rejected here."""
    replies: dict[str, Reply] = {}
    rejected: dict[str, str] = {}
    for member in members:
        mine = by_worker.get(member, ())
        misfits = [misfit for update in mine if (misfit := find_misfit(update.tensors, layout)) is not None]
        if not mine:
            replies[member] = Failed(reason="nothing arrived", definite=True)
        elif misfits:
            rejected[member] = f"{MISSHAPEN}: {misfits[0]}"
        elif len(mine) > 1:
            rejected[member] = f"{EQUIVOCATION}: it sent {len(mine)} different contributions"
        else:
            replies[member] = contribution_of(mine[0], layout, policy.shards)
    asked = [member for member in members if member not in rejected]
    gathered = gather(replies, members=asked, round_number=0, weighting=policy.weighting, shards=policy.shards)
    return Gathered(
        contributions=gathered.contributions,
        rejected={**gathered.rejected, **rejected},
        missing=gathered.missing,
    )


def contribution_of(update: Update, layout: Layout, shards: int) -> Contribution:
    """An update that fits the layout, packed and cut, as of round 0."""
    payloads, digests = name_pieces(update.worker, cut(pack(update.tensors, layout), layout, shards))
    return Contribution(
        round=0,
        worker=update.worker,
        incarnation=0,
        payloads=payloads,
        layout=fingerprint(layout),
        digests=digests,
        mass=update.mass,
        samples=0,
        loss=None,
        efficiency=EFFICIENCY_START,
        accuracy=update.accuracy,
    )
