"""A failing example as a program of its own, which needs the implementation and not this harness.

Source: docs/design.md: every failure prints a standalone snippet. Values are written out in full and exactly.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from torch import Tensor

from hqde_ref.messages import Aggregate, Layout, PlanTree, Request, Update

__all__ = ["write_snippet"]


def write_snippet(implementation: str, target: str, request: Request) -> str:
    """Python code that asks the same again.

    Args:
        implementation: its name; target: its ``module:attribute``, or a command.
    """
    package = _PACKAGES.get(implementation)
    own = package(request) if package is not None else None
    return own if own is not None else _in_messages(target, request)


# ------------------------------------------------------------------------------------------------ values


def write_tensor(tensor: Tensor) -> str:
    """``torch.tensor([...], dtype=...)``, exact."""
    values = ", ".join(_number(value) for value in tensor.detach().cpu().reshape(-1).tolist())
    shape = "" if tensor.dim() == 1 else f".reshape({tuple(tensor.shape)})"
    return f"torch.tensor([{values}], dtype={tensor.dtype}){shape}"


def _number(value: float | int | bool) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def write_tensors(tensors: Mapping[str, Tensor]) -> str:
    return "{" + ", ".join(f"{name!r}: {write_tensor(tensor)}" for name, tensor in tensors.items()) + "}"


def _listed(name: str, items: list[str]) -> str:
    return f"{name} = [\n" + "".join(f"    {item},\n" for item in items) + "]"


# ------------------------------------------------------------------------------------------------ our own messages


def _in_messages(target: str, request: Request) -> str:
    """For implementations that speak ``hqde_ref.messages`` themselves."""
    kinds = _kinds_in(request)
    modules = sorted({kind.__module__ for kind in kinds})
    if ":" not in target or target.startswith("cmd:"):
        return f"# one request of hqde_ref.messages, sent to {target}\n{_write(request)}"
    module, attribute = target.split(":", 1)
    return "\n".join(
        [
            "import torch",
            f"from {module} import {attribute.split('.')[0]}",
            *(
                f"from {where} import {', '.join(sorted(kind.__name__ for kind in kinds if kind.__module__ == where))}"
                for where in modules
            ),
            "",
            f"request = {_write(request)}",
            f"print({attribute}().start().perform(request))",
        ]
    )


def _kinds_in(value: object) -> set[type]:
    if isinstance(value, tuple):
        return set().union(*map(_kinds_in, value)) if value else set()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (getattr(value, field.name) for field in dataclasses.fields(value))
        return {type(value)}.union(*map(_kinds_in, fields))
    return set()


def _write(value: object) -> str:
    match value:
        case Tensor():
            return write_tensor(value)
        case float():
            return _number(value)
        case Mapping():
            return "{" + ", ".join(f"{key!r}: {_write(item)}" for key, item in value.items()) + "}"
        case tuple():
            return "(" + "".join(f"{_write(item)}, " for item in value) + ")"
        case Layout() | Update() | _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = ", ".join(f"{f.name}={_write(getattr(value, f.name))}" for f in dataclasses.fields(value))
            return f"{type(value).__name__}({fields})"
        case _:
            return repr(value)


# ------------------------------------------------------------------------------------------------ packages' own words


def _hqde(request: Request) -> str | None:
    """The PyPI package ``hqde``: plain torch, and its own classes."""
    match request:
        case PlanTree(workers=workers, branching=branching):
            return "\n".join(
                [
                    "import ray",
                    "from hqde.distributed.hierarchical_aggregator import HierarchicalAggregator",
                    "",
                    'ray.init(address="local")',
                    f"tree = HierarchicalAggregator({workers!r}, {branching!r})",
                    'print(tree.tree_structure, tree.aggregation_metrics["tree_depth"])',
                ]
            )
        case Aggregate(topology="tree"):
            importance = [f'{{"importance_score": {update.mass!r}}}' for update in request.updates]
            call = f"HierarchicalAggregator({len(request.updates)}, {request.branching or 4!r})"
            return _program(
                "from hqde.distributed.hierarchical_aggregator import HierarchicalAggregator",
                [_listed("updates", _rows(request)), _listed("importance", importance)],
                f"{call}.aggregate_ensemble_weights(updates, importance)",
            )
        case Aggregate(topology="mapreduce"):
            items = [
                f'{{"weights": {write_tensors(u.tensors)}, "source_id": {u.worker!r}, "accuracy": {u.accuracy!r}}}'
                for u in request.updates
            ]
            strategy = "flat" if request.rule == "weighted_mean" else "hierarchical"
            return _program(
                "from hqde.distributed.mapreduce_ensemble import MapReduceEnsembleManager",
                [_listed("items", items)],
                f'MapReduceEnsembleManager().mapreduce_ensemble_aggregation(items, "{strategy}")',
            )
        case Aggregate():
            names, masses = [u.worker for u in request.updates], [u.mass for u in request.updates]
            return _program(
                "from hqde.distributed.fault_tolerance import ByzantineFaultTolerantAggregator",
                [_listed("updates", _rows(request))],
                f"ByzantineFaultTolerantAggregator().robust_aggregation(updates, {names!r}, {masses!r})",
                ray=False,
            )
        case _:
            return None


def _rows(request: Aggregate) -> list[str]:
    return [write_tensors(update.tensors) for update in request.updates]


def _program(imports: str, values: list[str], call: str, *, ray: bool = True) -> str:
    start = ["import ray", "import torch", imports, "", 'ray.init(address="local")']
    return "\n".join([*(start if ray else ["import torch", imports, ""]), *values, f"print({call})"])


_PACKAGES: Mapping[str, Callable[[Request], str | None]] = {"hqde": _hqde}
