"""What a liar works with, and what it takes the aggregation for.

Pure: randomness comes as a generator. Nothing here imports an aggregation rule: an adversary that aims at one brings it
along as a function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

import torch
from torch import Tensor

from hqde_ref.errors import ConfigurationError, LayoutError
from hqde_ref.messages import message

__all__ = [
    "Aggregation",
    "Knowledge",
    "checked_knowledge",
    "guess_result",
    "honest_mean",
    "honest_rows",
    "honest_spread",
]

# From all contributions (float64 rows) to the result.
Aggregation: TypeAlias = Callable[[Sequence[Tensor]], Tensor]


@message
class Knowledge:
    """What an omniscient adversary works with.

    Attributes:
        honest: contributions of the honest in this round, at least one; float rows (d,) of one dtype, d at least 1, or
            one (h, d) tensor.
        base: the state that the round started from, a float row of that length.
        generator: the attack's own random stream.
        colluders: how many will send what is forged.
        rule: the aggregation that a searching attack aims at; None for a coordinate-wise median of its own.
    """

    honest: Sequence[Tensor] | Tensor
    base: Tensor
    generator: torch.Generator
    colluders: int = 1
    rule: Aggregation | None = None


def checked_knowledge(known: Knowledge, *, attack: str) -> Knowledge:
    """Return what is known with the honest contributions as a sequence of rows.

    Raises:
        ConfigurationError: nobody is honest, or nobody lies.
        LayoutError: the honest contributions and the base are not float rows of one length and dtype.
    """
    honest = known.honest
    if isinstance(honest, Tensor) and honest.dim() == 2 and honest.layout == torch.strided and not honest.is_nested:
        honest = honest.unbind(0)
    if isinstance(honest, Tensor) or not isinstance(honest, Sequence):
        _misfit(attack, _kind(honest))
    if not honest or known.colluders < 1:
        raise ConfigurationError(
            setting=f"knowledge of {attack}",
            wanted="at least one honest contribution and one colluder",
            got=(len(honest), known.colluders),
            do="attack a round in which somebody is honest and somebody lies",
        )
    for index, row in enumerate(honest):
        if not _is_row(row):
            _misfit(attack, f"{_kind(row)} in row {index}")
        if (row.shape, row.dtype) != (honest[0].shape, honest[0].dtype):
            _misfit(attack, f"{_kind(row)} in row {index}, and {_kind(honest[0])} in row 0")
    if not _is_row(known.base) or known.base.shape != honest[0].shape:
        raise LayoutError(
            what=f"base of {attack}",
            wanted=f"a float row of {len(honest[0])}, as the honest contributions",
            got=_kind(known.base),
            do="give the state that the round started from",
        )
    return dataclasses.replace(known, honest=honest)


def _is_row(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and not value.is_nested
        and value.layout == torch.strided
        and not value.is_meta
        and value.dim() == 1
        and value.numel() > 0
        and value.is_floating_point()
    )


def _kind(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.is_nested:
        return "a nested tensor"
    layout = "" if value.layout == torch.strided else f" ({value.layout})"
    return f"{value.dtype} of shape {tuple(value.shape)}" + layout + (" without data" if value.is_meta else "")


def _misfit(attack: str, got: str) -> NoReturn:
    raise LayoutError(
        what=f"honest contributions of {attack}",
        wanted="dense float rows (d,) of one length d >= 1 and one dtype, in a sequence or an (h, d) tensor",
        got=got,
        do="give one row per honest member",
    )


def honest_rows(known: Knowledge) -> Tensor:
    """The honest contributions, (h, d) float64."""
    return torch.stack([row.double() for row in known.honest])


def honest_mean(known: Knowledge) -> Tensor:
    """Their mean, (d,) float64."""
    return honest_rows(known).mean(dim=0)


def honest_spread(known: Knowledge) -> float:
    """Root mean square distance of the honest from their mean."""
    rows = honest_rows(known)
    return float((rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def guess_result(known: Knowledge, lie: Tensor) -> Tensor:
    """What the rule gives, (d,) float64, if every colluder sends ``lie``."""
    contributions = [*(row.double() for row in known.honest), *[lie] * known.colluders]
    if known.rule is not None:
        return known.rule(contributions).double()
    ordered = torch.stack(contributions).sort(dim=0).values
    count = len(contributions)
    middle: Tensor = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return middle
