"""Payloads inside messages: found, replaced, counted.

Source: docs/design.md, Payloads.
Pure: a message is never changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from hqde_ref.messages.calls import Request
from hqde_ref.messages.combining import Combine, Condense, Map, Reduce, Subtotal
from hqde_ref.messages.sharding import AddGrams, Arrange, Assemble, Blend, Finish, PartialGram, Resolve
from hqde_ref.messages.storing import Get
from hqde_ref.messages.training import Begin, Forge, Muster, Train
from hqde_ref.messages.vectors import Layout, Payload
from hqde_ref.messages.verdicts import Evidence

__all__ = ["payloads_in_reply", "payloads_of", "replace_payloads"]


def payloads_of(value: Any) -> Iterator[Payload]:
    """Every payload inside a message, in field order."""
    match value:
        case Payload():
            yield value
        case tuple():
            for item in value:
                yield from payloads_of(item)
        case Layout() | Evidence():
            return
        case _ if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield from payloads_of(getattr(value, field.name))


def replace_payloads(value: Any, change: Callable[[Payload], Payload]) -> Any:
    """The same message with every payload changed; messages without payloads come back as they are."""
    match value:
        case Payload():
            return change(value)
        case tuple():
            return tuple(replace_payloads(item, change) for item in value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type) and any(payloads_of(value)):
            changed = {f.name: replace_payloads(getattr(value, f.name), change) for f in dataclasses.fields(value)}
            return dataclasses.replace(value, **changed)
        case _:
            return value


def payloads_in_reply(request: Request) -> int:
    """How many payloads the reply to this request carries (a host declares them before it runs)."""
    match request:
        case Train(shards=shards) | Begin(shards=shards):
            return shards
        case Forge(base=base):
            return len(base)
        case Muster(arenas=True, shards=shards):
            return shards
        case Map(parts=parts):
            return len(parts)
        case Reduce() | Assemble() | Combine() | Condense() | Subtotal() | Resolve() | Get():
            return 1
        case PartialGram() | AddGrams() | Blend() | Arrange() | Finish():
            return 1
        case _:
            return 0
