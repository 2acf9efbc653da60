"""Requests and tensors as a person reads them: the smallest values of a failing example.

Source: docs/design.md: every failure prints the smallest values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from hqde_ref.messages import Aggregate, Aggregated, Failed, Misused, Reply, Request, Update

__all__ = ["name_request", "show_reply", "show_request", "show_tensor"]

_MANY = 12
_LINE = 300


def show_tensor(tensor: Tensor) -> str:
    """``float32(2, 2) [1.0, 2.0, 3.0, 4.0]``; long ones are cut."""
    values = tensor.detach().cpu().reshape(-1)
    listed = ", ".join(repr(value) for value in values[:_MANY].tolist())
    more = f", ... {values.numel()} values" if values.numel() > _MANY else ""
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)} [{listed}{more}]"


def name_request(request: Request) -> str:
    """A request in one line, without its values."""
    if isinstance(request, Aggregate):
        branching = f", branching={request.branching!r}" if request.topology == "tree" else ""
        updates = f"{len(request.updates)} update{'' if len(request.updates) == 1 else 's'}"
        return f"Aggregate({request.rule}, {request.topology}, {updates}, faulty_max={request.faulty_max!r}{branching})"
    fields = ", ".join(f"{f.name}={_short(getattr(request, f.name))}" for f in dataclasses.fields(request))
    return f"{type(request).__name__}({fields})"


def show_request(request: Request) -> str:
    """A request with its values, on several lines."""
    if not isinstance(request, Aggregate):
        return name_request(request)
    lines = [name_request(request)]
    if request.members is not None:
        lines.append(f"  members: {', '.join(request.members)}")
    if request.layout is not None:
        entries = ", ".join(f"{e.name!r} {e.dtype}{e.shape}" for e in request.layout.entries)
        lines.append(f"  layout: {entries}")
    return "\n".join(lines + [f"  {_show_update(update)}" for update in request.updates])


def _show_update(update: Update) -> str:
    mass = f" mass={update.mass!r}" if update.mass != 1.0 else ""
    tensors = "; ".join(f"{name!r} = {show_tensor(tensor)}" for name, tensor in update.tensors.items())
    return f"{update.worker}{mass}: {tensors}"


def show_reply(reply: Reply | None) -> str:
    """A reply in a line or two."""
    match reply:
        case None:
            return "no reply"
        case Misused(error=error, sentence=sentence):
            return f"refused: {error}: {sentence}"
        case Failed(reason=reason):
            return f"no answer: {reason}"
        case Aggregated(result=None, refused=reason):
            return f"refused: {reason}"
        case Aggregated(result=dict() as result) as found:
            tensors = "; ".join(f"{name!r} = {show_tensor(tensor)}" for name, tensor in result.items())
            parts = [
                f"{what} {list(value)}"
                for what, value in (("used", found.used), ("rejected", found.rejected), ("missing", found.missing))
                if value
            ]
            return "; ".join([tensors, *parts])
        case _:
            return name_request(reply)


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return show_tensor(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > _MANY:
        return f"{list(value[:_MANY])!r}... ({len(value)})"
    return repr(value)[:_LINE]
