"""What a parent and its child say to each other: JSON lines, with tensors in safetensors files beside them.

Source: HQDE clauses 0.7 and 0.12; docs/design.md, "Foreign implementations". No pickle.

The protocol (what a ``cmd:`` program speaks)
---------------------------------------------
One JSON object a line, from the parent on standard input, to the parent on standard output. Whatever else the program
prints belongs on standard error. Messages are those of ``hqde_ref/messages``
(``components`` and ``systems``), in the form of ``hqde_ref/wire.py``.
Their tensors lie beside them, in safetensors files in the folder that the environment variable HQDE_CHILD_FOLDER names;
FILE is the plain name of such a file. The program speaks first:

    {"hello": {"protocol": 1, "name": "mine", "version": "1.0", "supports": ["Aggregate"],
               "rules": [["median", "flat"], ...] or null}}
    {"error": {"text": "what is wrong", "do": "what to do"}}                 instead, if it cannot start

then it answers, in the order of the lines:

    {"id": 7, "verb": "perform", "node": "n1", "request": {"$type": "Aggregate", ...}, "tensors": FILE or null}
    -> {"id": 7, "reply": {"$type": "Aggregated", ...}, "tensors": FILE or null}
    or {"id": 7, "error": {"type": "ValueError", "text": "...", "place": "file:line", "traceback": "..."}}

    {"id": 8, "verb": "batch", "calls": [{"node": ..., "request": ...}, ...], "tensors": FILE or null}
    -> {"id": 8, "replies": [{"reply": ...} or {"error": ...}, ...], "tensors": FILE or null}
                                                                             only to hosts of ``InChild``
    {"verb": "forget", "node": "n1"}                                         no answer; that node is not used again
    {"verb": "stop"}                                                         no answer; end

A node name that was not seen before means a node in a fresh state. ``RunRound`` to the same node is the next round
of one system; its faults come with it, and the reply says which took effect. The reply ``Misused`` refuses a
nonsensical request; an ``error`` says that the program fell over. The parent removes the files.

The guard ends the program and everything it started when together they hold too much memory, when a call or the start
takes too long, and when the parent is done or gone. The call is answered ``Failed``, and the next one starts afresh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hqde_ref import wire
from hqde_ref.errors import WireError
from hqde_ref.messages import Failed, Reply, message

PROTOCOL = 1
FOLDER, INCARNATION = "HQDE_CHILD_FOLDER", "HQDE_INCARNATION"
LAST_WORDS = 400


@message
class Hello:
    """What a child says of itself: names of request types, and (rule, topology) pairs; None when it did not say."""

    name: str
    version: str
    supports: tuple[str, ...]
    rules: tuple[tuple[str, str], ...] | None = None


def with_last_words(reason: str, tail: str) -> str:
    """A reason and, where a program fell over, what it said last, on one line."""
    words = " | ".join(line.strip() for line in tail.splitlines() if line.strip())[-LAST_WORDS:]
    told = words and (reason.startswith(("crashed", "exited", "broke")))
    return f"{reason}; last words: {words}" if told else reason


def parse_reply(item: object, tensors: Mapping[str, Tensor]) -> Reply:
    match item:
        case {"error": dict() as error}:
            return Failed(reason=_text(error), definite=True)
        case {"reply": document}:
            try:
                reply = wire.decode(document, tensors)
            except WireError as error:
                return Failed(reason=f"broke the protocol: {error}", definite=True)
            if dataclasses.is_dataclass(reply):
                return reply
            return Failed(reason=f"broke the protocol: a reply that is no message: {reply!r:.80}", definite=True)
        case _:
            return Failed(reason="broke the protocol: an answer without reply and error", definite=True)


def _text(error: Mapping[str, Any]) -> str:
    kind, text = str(error.get("type", "Error")), " ".join(str(error.get("text", "")).split())
    place = error.get("place")
    return f"{kind}: {text}" + (f" ({place})" if place else "")


def parse_hello(said: Mapping[str, Any]) -> Hello:
    match said:
        case {"protocol": 1, "name": str(name), "version": str(version), "supports": list(supports)}:
            match said.get("rules"):
                case None:
                    rules = None
                case [*pairs] if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
                    rules = tuple((str(rule), str(topology)) for rule, topology in pairs)
                case other:
                    raise WireError(what="rules", wanted="[rule, topology] pairs", got=repr(other)[:80], do="list them")
            return Hello(name=name, version=version, supports=tuple(map(str, supports)), rules=rules)
        case _:
            wanted = f"protocol {PROTOCOL}, name, version and supports"
            raise WireError(what="hello", wanted=wanted, got=repr(said)[:120], do="see hqde_ref/runtimes/protocol.py")
