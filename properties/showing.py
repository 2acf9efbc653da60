"""Requests and tensors as a person reads them: the smallest values of a failing example.

Source: docs/design.md: every failure prints the smallest values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from hqde_ref.messages import (
    Aggregate,
    Aggregated,
    Failed,
    Layout,
    MapShuffle,
    Misused,
    Predict,
    Predicted,
    Reply,
    Request,
    RoundEnded,
    RoundFault,
    RunRound,
    Shuffled,
    Update,
)

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
    if isinstance(request, RunRound):
        return _name_round(request)
    if isinstance(request, Predict):
        return f"Predict({len(request.voices)} voices, weighted={request.weighted!r})"
    if isinstance(request, MapShuffle):
        return f"MapShuffle({len(request.items)} items, mappers={request.mappers!r}, reducers={request.reducers!r})"
    fields = ", ".join(f"{f.name}={_short(getattr(request, f.name))}" for f in dataclasses.fields(request))
    return f"{type(request).__name__}({fields})"


def _name_round(request: RunRound) -> str:
    work = {
        "flat": "",
        "tree": f", branching={request.branching!r}",
        "mapreduce": f", mappers={request.mappers!r}, reducers={request.reducers!r}",
    }
    return (
        f"RunRound({request.number!r}, {request.rule}, {request.topology}, {len(request.updates)} updates, "
        f"faulty_max={request.faulty_max!r}{work.get(request.topology, '')}, hosts={request.hosts!r}, "
        f"weighting={request.weighting}, within_s={request.within_s!r})"
    )


def show_request(request: Request) -> str:
    """A request with its values, on several lines."""
    match request:
        case Aggregate(updates=updates, layout=layout, members=members):
            faults: tuple[str, ...] = ()
        case RunRound(updates=updates, layout=layout, members=members):
            faults = tuple(_show_fault(fault) for fault in request.faults)
        case MapShuffle(items=updates, layout=layout):
            faults, members = (), None
        case Predict(voices=voices):
            told = [f"  {v.worker} efficiency={v.efficiency!r}: {_show_outputs(v.outputs)}" for v in voices]
            return "\n".join([name_request(request), *told])
        case _:
            return name_request(request)
    lines = [name_request(request), *(f"  fault: {fault}" for fault in faults)]
    if members is not None:
        lines.append(f"  members: {', '.join(members)}")
    if layout is not None:
        lines.append(f"  layout: {_show_layout(layout)}")
    return "\n".join(lines + [f"  {_show_update(update)}" for update in updates])


def _show_outputs(outputs: Tensor | None) -> str:
    return "dead" if outputs is None else show_tensor(outputs)


def _show_layout(layout: Layout) -> str:
    return ", ".join(f"{e.name!r} {e.dtype}{e.shape}" for e in layout.entries)


def _show_fault(fault: RoundFault) -> str:
    """``inner 0 is slow by 2.0 s, after 1 piece(s) of work``."""
    more = {"is slow": f" by {fault.seconds!r} s", "flips a bit": f" ({fault.bit})"}.get(fault.kind, "")
    later = f", after {fault.after} piece(s) of work" if fault.after else ""
    return f"{fault.role} {fault.index} {fault.kind}{more}{later}"


def _show_update(update: Update) -> str:
    mass = f" mass={update.mass!r}" if update.mass != 1.0 else ""
    mass += f" accuracy={update.accuracy!r}" if update.accuracy is not None else ""
    return f"{update.worker}{mass}: {_show_tensors(update.tensors)}"


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
            return "; ".join([_show_tensors(result), *_show_accounts(found)])
        case RoundEnded(result=result) as ended:
            how = f"refused: {ended.refused}" if result is None else _show_tensors(result)
            said = [f"{what}={value!r}" for what, value in _of_the_round(ended) if value is not None]
            return "; ".join([how, *_show_accounts(ended), *said])
        case Shuffled(groups=groups, unmapped=unmapped):
            told = [f"{name!r}: {', '.join(pair.source for pair in pairs)}" for name, pairs in groups.items()]
            return "; ".join([*told, f"unmapped {dict(unmapped)!r}"])
        case Predicted(outputs=outputs, used=used, left_out=left_out, refused=reason):
            how = f"refused: {reason}" if outputs is None else show_tensor(outputs)
            return f"{how}; used {list(used or ())}; left out {dict(left_out or {})!r}"
        case _:
            return name_request(reply)


def _show_tensors(tensors: Mapping[str, Tensor]) -> str:
    return "; ".join(f"{name!r} = {show_tensor(tensor)}" for name, tensor in tensors.items())


def _show_accounts(found: Aggregated | RoundEnded) -> list[str]:
    accounts = (("used", found.used), ("rejected", found.rejected), ("missing", found.missing))
    return [f"{what} {list(value)}" for what, value in accounts if value]


def _of_the_round(ended: RoundEnded) -> tuple[tuple[str, object], ...]:
    """What is said about the round itself."""
    return (
        ("seconds", ended.seconds),
        ("most_received", ended.most_received),
        ("most_sent", ended.most_sent),
        ("coordinator_bytes", ended.coordinator_bytes),
    )


def _short(value: object) -> str:
    if isinstance(value, Tensor):
        return show_tensor(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > _MANY:
        return f"{list(value[:_MANY])!r}... ({len(value)})"
    return repr(value)[:_LINE]
