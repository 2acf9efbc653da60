"""The program in the child process: ``python -m hqde_ref.runtimes.child_main MODULE:ATTRIBUTE``.

Source: the protocol at the head of ``protocol.py``, whose other end this is, for implementations written in Python.
It runs under the foreign package's own interpreter, so it needs no more than torch, pydantic and safetensors. Foreign
code gets a standard output that is really standard error, and an empty standard input: it cannot spoil the protocol.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from torch import Tensor

from hqde_ref import messages, wire
from hqde_ref.errors import HqdeError
from hqde_ref.messages import Failed, Node
from hqde_ref.runtimes.protocol import FOLDER, INCARNATION, PROTOCOL


class CannotLoad(Exception):
    """A target that names nothing usable: what is wrong, and what to do."""

    def __init__(self, problem: str, do: str) -> None:
        super().__init__(problem)
        self.problem, self.do = problem, do


def load(target: str) -> Any:
    """The implementation that ``module:attribute`` names: an object, or a class or function that makes one.

    Raises:
        CannotLoad: when there is no such thing.
    """
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise CannotLoad(f"{target!r} is not of the form module:attribute", "name both")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        what = " ".join(str(error).split())
        raise CannotLoad(
            f"module {module_name!r} does not import ({type(error).__name__}: {what})",
            "check its name and that it is installed for the interpreter that runs it",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise CannotLoad(f"module {module_name!r} has no {attribute!r}", "check the name after the colon")
        found = getattr(found, part)
    if isinstance(found, type) or not hasattr(found, "start"):
        found = _make(found, target)
    lacking = [name for name in ("name", "version", "supports", "start", "stop") if not hasattr(found, name)]
    if lacking:
        raise CannotLoad(
            f"{target!r} is no implementation: it lacks {', '.join(lacking)}", "see hqde_ref.messages.Implementation"
        )
    _check_said(found)
    return found


def _check_said(found: Any) -> None:
    """What an implementation says of itself is of the right kind: one sentence here, a traceback anywhere later."""
    for attribute in ("name", "version"):
        if not isinstance(said := getattr(found, attribute), str):
            raise CannotLoad(f"its {attribute}: wanted a text, got {said!r}", "put it in quotes")
    supports = found.supports
    is_set = isinstance(supports, set | frozenset | tuple | list)
    for kind in supports if is_set else [supports]:
        if not is_set or not isinstance(kind, type) or not _is_message(kind):
            raise CannotLoad(
                f"its supports: wanted a set of request types of hqde_ref, got {kind!r}",
                "import what it answers, such as Aggregate, and write supports = frozenset({Aggregate})",
            )
    rules = getattr(found, "rules", None)
    for pair in () if rules is None else rules if isinstance(rules, set | frozenset | tuple | list) else [rules]:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(word, str) for word in pair)):
            raise CannotLoad(
                f"its rules: wanted (rule, topology) pairs or None, got {pair!r}",
                'write rules = frozenset({("weighted_mean", "flat")})',
            )


def _is_message(kind: type) -> bool:
    return getattr(messages, kind.__name__, None) is kind


def _make(factory: Any, target: str) -> Any:
    if not callable(factory):
        raise CannotLoad(f"{target!r} is no implementation and makes none", "see hqde_ref.messages.Implementation")
    try:
        return factory()
    except Exception as error:
        raise CannotLoad(
            f"{target!r} does not start ({type(error).__name__}: {' '.join(str(error).split())})",
            "make it startable without arguments",
        ) from error


class Channel:
    """The protocol's own pair of streams, out of reach of everything that runs in this process."""

    def __init__(self) -> None:
        self._in: TextIO = os.fdopen(os.dup(0), "r", encoding="utf-8")
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def say(self, document: dict[str, Any]) -> None:
        """Write one line."""
        self._out.write(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n")
        self._out.flush()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._in:
            yield json.loads(line)


class Server:
    """Nodes by name, and the verbs."""

    def __init__(self, implementation: Any, folder: Path, incarnation: int) -> None:
        self._implementation, self._folder, self._incarnation = implementation, folder, incarnation
        self._nodes: dict[str, Node] = {}

    def answer(self, document: dict[str, Any]) -> dict[str, Any] | None:
        """What to say to one line of the parent's; None for verbs that have no answer."""
        match document:
            case {"verb": "forget", "node": str(node)}:
                close = getattr(self._nodes.pop(node, None), "close", None)
                if close is not None:
                    close()
                return None
            case {"verb": "perform", "id": number}:
                return self._perform(number, [document], document.get("tensors"))
            case {"verb": "batch", "id": number, "calls": list(calls)}:
                return self._perform(number, calls, document.get("tensors"))
            case _:
                return {"id": document.get("id"), "error": {"type": "ValueError", "text": "unknown verb"}}

    def _perform(self, number: int, calls: list[dict[str, Any]], file: str | None) -> dict[str, Any]:
        given = wire.read_tensors(self._folder / file) if file else {}
        tensors: dict[str, Tensor] = {}
        replies = [self._reply(call, given, tensors) for call in calls]
        name = f"{number}.reply.safetensors" if tensors else None
        if name:
            wire.write_tensors(self._folder / name, tensors)
        body = replies[0] if len(calls) == 1 else {"replies": replies}
        return {"id": number, **body, "tensors": name}

    def _reply(self, call: dict[str, Any], given: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Any]:
        try:
            request = wire.decode(call["request"], given)
            node = self._node(call["node"])
            if node is None:
                return {"reply": wire.encode(Failed(reason=f"there is no node {call['node']!r}", definite=True))}
            return {"reply": wire.encode(node.perform(request), tensors)}
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            return {"error": describe(error)}

    def _node(self, name: str) -> Node | None:
        if name not in self._nodes:
            build = getattr(self._implementation, "node", None)
            made = self._implementation.start() if build is None else build(name, self._incarnation)
            if made is None:
                return None
            self._nodes[name] = made
        return self._nodes[name]


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as the protocol's error: its type, its text, where it was raised, and the whole traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    place = getattr(error, "place", None)  # set where an exception came from another process
    if frames and place is None and not isinstance(error, HqdeError):  # whose sentences are complete
        last = frames[-1]
        place = f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno} in {last.name}"
    return {
        "type": type(error).__name__,
        "text": str(error),
        "place": place,
        "traceback": "".join(traceback.format_exception(error))[-8000:],
    }


def main(arguments: list[str]) -> int:
    """Say hello, answer until the parent stops or is gone."""
    channel = Channel()
    try:
        implementation = load(arguments[0] if arguments else "")
    except CannotLoad as error:
        channel.say({"error": {"type": "CannotLoad", "text": error.problem, "do": error.do}})
        return 1
    rules = getattr(implementation, "rules", None)
    hello = {
        "protocol": PROTOCOL,
        "name": implementation.name,
        "version": implementation.version,
        "supports": sorted(kind.__name__ for kind in implementation.supports),
        "rules": None if rules is None else sorted(rules),
    }
    channel.say({"hello": hello})
    server = Server(implementation, Path(os.environ[FOLDER]), int(os.environ.get(INCARNATION, "0")))
    for document in channel:
        if document.get("verb") == "stop":
            break
        answer = server.answer(document)
        if answer is not None:
            channel.say(answer)
    implementation.stop()
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # taking torch down in order takes longer than some tests
