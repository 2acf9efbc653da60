"""Messages to JSON and back, tensors beside them as safetensors. No pickle.

Used for traces, regressions and foreign processes in any language. A message is ``{"$type": NAME, field: value}``; a
mapping is ``{"$map": {...}}``, a tensor ``{"$tensor": KEY}`` with KEY in the safetensors file beside it, a float that
JSON cannot hold ``{"$float": "nan" | "inf" | "-inf"}``. Everything else is plain JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import safetensors.torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from hqde_ref import messages
from hqde_ref.errors import WireError

__all__ = ["decode", "dumps", "encode", "loads", "read_tensors", "write_tensors"]


@cache
def _kinds() -> dict[str, type]:
    """Every message by name."""
    return {
        name: kind for name, kind in vars(messages).items() if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }


@cache
def _checkers(name: str) -> dict[str, TypeAdapter[Any]]:
    """A strict checker for each field of a message."""
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    hints = get_type_hints(_kinds()[name])
    return {
        field: TypeAdapter(hint) if dataclasses.is_dataclass(hint) else TypeAdapter(hint, config=config)
        for field, hint in hints.items()
    }


def encode(value: Any, tensors: dict[str, Tensor] | None = None) -> Any:
    """Turn a message into JSON values; its tensors are put into ``tensors`` under the keys that the JSON names.

    Raises:
        WireError: for a tensor where no ``tensors`` is given, and for values that no message holds.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case Tensor():
            if tensors is None:
                raise WireError(what="a message", wanted="no tensors here", got="a tensor", do="pass tensors={}")
            key = f"t{len(tensors)}"
            tensors[key] = value.detach().cpu().contiguous().clone()
            return {"$tensor": key}
        case tuple() | list():
            return [encode(item, tensors) for item in value]
        case Mapping():
            return {"$map": {str(key): encode(item, tensors) for key, item in value.items()}}
        case _ if dataclasses.is_dataclass(value) and type(value).__name__ in _kinds():
            fields = {f.name: encode(getattr(value, f.name), tensors) for f in dataclasses.fields(value)}
            return {"$type": type(value).__name__, **fields}
        case _:
            raise WireError(
                what="a message",
                wanted="messages, mappings, tuples, tensors and plain values",
                got=type(value).__name__,
                do="send its parts",
            )


def decode(document: Any, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """Turn JSON values back into a message, checking every field.

    Raises:
        WireError: for an unknown type, a missing, unknown or ill-typed field, or a tensor that is not there.
    """
    match document:
        case {"$type": str(name)}:
            if name not in _kinds():
                raise WireError(
                    what="$type", wanted="a message of this version", got=repr(name), do="see hqde_ref.messages"
                )
            values = {str(key): decode(item, tensors) for key, item in document.items() if key != "$type"}
            return _checked(name, values)
        case {"$tensor": str(key)}:
            if tensors is None or key not in tensors:
                raise WireError(
                    what="$tensor", wanted="a key of the tensors beside it", got=repr(key), do="send it along"
                )
            return tensors[key]
        case {"$float": ("nan" | "inf" | "-inf") as text}:
            return float(text)
        case {"$map": dict() as items}:
            return {key: decode(item, tensors) for key, item in items.items()}
        case list():
            return tuple(decode(item, tensors) for item in document)
        case None | bool() | int() | float() | str():
            return document
        case _:
            raise WireError(
                what="a message",
                wanted="an object with $type, $map, $tensor or $float",
                got=json.dumps(document, default=str)[:80],
                do="see the head of hqde_ref/wire.py",
            )


def _checked(name: str, values: dict[str, Any]) -> Any:
    checkers = _checkers(name)
    unknown = [field for field in values if field not in checkers]
    if unknown:
        raise WireError(what=name, wanted=f"fields {', '.join(checkers)}", got=repr(unknown[0]), do="mend the message")
    for field, value in values.items():
        try:
            checkers[field].validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, (name, field, *first["loc"])))
            got = repr(first.get("input"))[:80]
            raise WireError(
                what=place, wanted=first["msg"].removeprefix("Input should be "), got=got, do="mend the message"
            ) from error
    try:
        return _kinds()[name](**values)
    except TypeError as error:
        raise WireError(what=name, wanted="all its fields", got=str(error), do="mend the message") from error


def dumps(value: Any, tensors: dict[str, Tensor] | None = None) -> str:
    """One line of JSON; see ``encode``."""
    return json.dumps(encode(value, tensors), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def loads(line: str, tensors: Mapping[str, Tensor] | None = None) -> Any:
    """A message from one line of JSON; see ``decode``.

    Raises:
        WireError: also when the line is not JSON.
    """
    try:
        document = json.loads(line)
    except json.JSONDecodeError as error:
        raise WireError(what="a line", wanted="JSON", got=line[:80], do="send one JSON object a line") from error
    return decode(document, tensors)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as one safetensors file."""
    path.write_bytes(safetensors.torch.save(dict(tensors)))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        WireError: when it is not there or not a safetensors file.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise WireError(
            what=str(path), wanted="a safetensors file", got=str(error), do="write it with safetensors"
        ) from error
