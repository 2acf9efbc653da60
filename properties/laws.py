"""Asking an implementation, and worded claims about its answers: what came, what was wanted, in which call.

Source: docs/style of array-api-tests: one helper for each kind of claim. A helper that returns has held; one that does
not raises an ``AssertionError`` whose text a person can read without the code, or ``CannotTell``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import reject
from torch import Tensor

from hqde_ref.messages import Aggregate, Aggregated, Failed, Layout, Misused, Request, Update
from properties.declaring import Way
from properties.oracles import exact_mean
from properties.showing import name_request, show_tensor
from properties.subject import CannotTell, Fell, Subject, WatchedNode, was_stopped_by_wire
from properties.tolerances import ROUNDOFF, coarser, mean_tolerance

__all__ = [
    "aggregate",
    "ask",
    "flat_row",
    "largest",
    "require_bits",
    "require_close",
    "require_layout",
    "require_mean",
    "require_refusal",
    "result_of",
    "said",
]

T = TypeVar("T")
INEXPRESSIBLE = "Inexpressible"  # an adapter's word: the package has no way to be asked this
MOST_TINY = 2  # contributions; among two nobody can say who is the outlier


def ask(subject: Subject, request: Request, wanted: type[T], *, node: WatchedNode | None = None) -> T:
    """The reply to a sensible request; a refusal, a crash or another reply breaks the law."""
    match (node or subject.start()).perform(request):
        case Misused(error=error) if error == INEXPRESSIBLE:
            return reject()  # nothing is learnt from this example
        case Misused() if _is_tiny(request):
            return reject()  # a declared floor on members; whether refusals are right, refusals' own laws ask
        case Misused(error=error, sentence=sentence):
            raise AssertionError(f"{name_request(request)} makes sense, but it was refused: {error}: {sentence}")
        case Failed(reason=reason):
            raise Fell(f"{name_request(request)} got no answer: {reason}")
        case reply if isinstance(reply, wanted):
            return reply
        case other:
            raise AssertionError(
                f"{name_request(request)} was answered by {type(other).__name__}, wanted {wanted.__name__}"
            )


def _is_tiny(request: Request) -> bool:
    """Whether these are so few contributions that a rule may decline to judge among them."""
    return isinstance(request, Aggregate) and len(request.updates) <= MOST_TINY


def aggregate(
    subject: Subject,
    way: Way,
    updates: Sequence[Update],
    *,
    layout: Layout | None = None,
    faulty_max: int = 0,
    branching: int | None = None,
    members: Sequence[str] | None = None,
    node: WatchedNode | None = None,
) -> Aggregated:
    """The reply to one aggregation; it may still be a refusal (``refused``)."""
    request = Aggregate(
        rule=way.rule,
        topology=way.topology,
        updates=tuple(updates),
        faulty_max=faulty_max,
        branching=branching if branching is not None or way.topology != "tree" else 3,
        layout=layout,
        members=None if members is None else tuple(members),
    )
    return ask(subject, request, Aggregated, node=node)


def result_of(subject: Subject, way: Way, updates: Sequence[Update], **options: Any) -> Mapping[str, Tensor]:
    """The result of an aggregation that has to give one."""
    reply = aggregate(subject, way, updates, **options)
    return result_in(reply, subject)


def result_in(reply: Aggregated, subject: Subject) -> Mapping[str, Tensor]:
    """The result in a reply that has to hold one."""
    if reply.result is None:
        call = name_request(subject.asked[-1].request)
        raise AssertionError(f"{call} must give a result, but was refused: {reply.refused or 'without a reason'}")
    return reply.result


def said(value: T | None, what: str) -> T:
    """A part of a reply that the clause is about; None means that the implementation does not say."""
    if value is None:
        raise CannotTell(f"it does not say {what}")
    return value


def require_refusal(subject: Subject, request: Request, *, why: str) -> str:
    """A nonsensical or hopeless request must be refused in a sentence; the sentence."""
    match subject.start().perform(request):
        case Misused(error=error) if error == INEXPRESSIBLE:
            return reject()
        case Misused(sentence=sentence) if sentence.strip():
            return sentence
        case Aggregated(result=None, refused=str(sentence)) if sentence.strip():
            return sentence
        case Failed(reason=reason) as reply:
            if was_stopped_by_wire(reply):
                return reason
            raise Fell(f"{name_request(request)} must be refused ({why}), but it got no answer: {reason}")
        case Misused() | Aggregated(result=None):
            raise AssertionError(f"{name_request(request)} was refused ({why}), but without a sentence that says why")
        case reply:
            got = f"{type(reply).__name__}: {reply!r}"[:160]
            raise AssertionError(f"{name_request(request)} must be refused ({why}), but it was answered by {got}")


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor; ``torch.equal`` would call NaN unequal to itself and 0.0 equal to -0.0."""
    if tensor.numel() == 0:
        return torch.empty(0, dtype=torch.uint8)  # an empty tensor may have strides that cannot be viewed
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def have_same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal dtype, shape and bytes."""
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))


def require_bits(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Both hold the same bits under the same names; zeros of either sign are equal, since a sum may give either."""
    if set(got) != set(wanted):
        raise AssertionError(f"{what}: got the names {list(got)}, wanted {list(wanted)}")
    for name, tensor in got.items():
        if not have_same_bits(_unsigned(tensor), _unsigned(wanted[name])):
            raise AssertionError(
                f"{what}: {name!r} differs: got {show_tensor(tensor)}, wanted {show_tensor(wanted[name])}"
            )


def _unsigned(tensor: Tensor) -> Tensor:
    return tensor + 0 if tensor.is_floating_point() else tensor


def require_layout(got: Mapping[str, Tensor], layout: Layout, what: str) -> None:
    """The names in order, the shapes and the dtypes are the layout's."""
    names = [entry.name for entry in layout.entries]
    if list(got) != names:
        raise AssertionError(f"{what}: got the names {list(got)}, wanted {names}")
    for entry in layout.entries:
        tensor = got[entry.name]
        found = (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        if found != (entry.shape, entry.dtype):
            raise AssertionError(
                f"{what}: {entry.name!r} is {found[1]} of shape {found[0]}, wanted {entry.dtype} of {entry.shape}"
            )


def require_close(got: Tensor, wanted: Sequence[Fraction], tolerance: Fraction, what: str) -> None:
    """Each value is within ``tolerance`` of the exact one."""
    for index, (value, exact) in enumerate(zip(got.double().reshape(-1).tolist(), wanted, strict=True)):
        if not math.isfinite(value) or abs(Fraction(value) - exact) > tolerance:
            raise AssertionError(
                f"{what}: value {index} is {value!r}, wanted {float(exact)!r} within {float(tolerance):.3g}"
            )


def largest(tensors: Iterable[Tensor]) -> float:
    """The largest magnitude among some tensors, 0.0 when they hold nothing."""
    return max((float(tensor.abs().max()) for tensor in tensors if tensor.numel()), default=0.0)


def require_mean(result: Mapping[str, Tensor], updates: Sequence[Update], layout: Layout) -> None:
    """Every float entry is the weighted mean of these contributions, within the rounding of any sensible summation."""
    require_names(result, layout)
    for entry in layout.entries:
        dtype = coarser(entry.dtype, dtype_of(result[entry.name]))
        top = largest(update.tensors[entry.name] for update in updates)
        tolerance = mean_tolerance(dtype, count=len(updates), top=top)
        require_close(result[entry.name], exact_mean(updates, entry.name), tolerance, f"the mean of {entry.name!r}")


def require_names(result: Mapping[str, Tensor], layout: Layout) -> None:
    """Every entry of the layout is there, as large as declared; whether in its dtype is clause 0.2."""
    for entry in layout.entries:
        if entry.name not in result:
            raise AssertionError(f"the result lacks {entry.name!r}")
        if result[entry.name].numel() != math.prod(entry.shape):
            shape = tuple(result[entry.name].shape)
            raise AssertionError(f"{entry.name!r} of the result has shape {shape}, wanted {entry.shape}")


def dtype_of(tensor: Tensor) -> str:
    """``"float32"``; float64 for what is no floating type, which rounds nothing away."""
    name = str(tensor.dtype).removeprefix("torch.")
    return name if name in ROUNDOFF else "float64"


def coarsest(result: Mapping[str, Tensor], layout: Layout) -> str:
    """The dtype whose rounding shows in a result: the layout's, or a coarser one that came instead."""
    kinds = [dtype_of(tensor) for tensor in result.values()] + [entry.dtype for entry in layout.entries]
    return functools.reduce(coarser, kinds)


def flat_row(result: Mapping[str, Tensor], layout: Layout) -> npt.NDArray[np.float64]:
    """All float values of a result in the layout's order, float64."""
    require_names(result, layout)
    return np.concatenate([result[entry.name].detach().double().reshape(-1).numpy() for entry in layout.entries])
