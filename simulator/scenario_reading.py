"""Reading scenario files: YAML (safe loader), every error one line that says where and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from hqde_ref.errors import HqdeError, ScenarioError
from simulator.faults import AttackModel
from simulator.scenario import Scenario
from simulator.targets import Strict

__all__ = ["load_scenario", "parse_scenario"]


class _Loader(yaml.SafeLoader):
    """The safe loader, which here also refuses a key that stands twice: the last would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: list[str] = []
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} stands twice", key.start_mark
                    )
                seen.append(key.value)
        return super().construct_mapping(node, deep=deep)


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario file.

    Raises:
        ScenarioError: one line that names the file, the place and what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")], n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else "; `hqde-sim list` shows those that come along"
        raise ScenarioError(file=str(path), where="", problem=f"there is no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(file=str(path), where="", problem=f"cannot be read: {error}") from None
    return parse_scenario(text, file=str(path))


def parse_scenario(text: str, *, file: str) -> Scenario:
    """Check a scenario given as text; ``file`` is what errors call it.

    Raises:
        ScenarioError: one line.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ScenarioError(file=file, where="", problem="is nested too deeply; a scenario has a few levels") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number with too many digits
        raise ScenarioError(file=file, where="", problem="is not YAML: " + " ".join(str(error).split())) from None
    if not isinstance(document, dict):
        kind = type(document).__name__
        raise ScenarioError(file=file, where="", problem=f"wanted a mapping with apiVersion, metadata, ..., got {kind}")
    try:
        return Scenario.model_validate(document)
    except HqdeError as error:
        raise ScenarioError(file=file, where="system", problem=str(error)) from None
    except ValidationError as error:
        where, problem = _explain(error)
        raise ScenarioError(file=file, where=where, problem=problem) from None


def _explain(error: ValidationError) -> tuple[str, str]:
    """The first problem: its place as a path, and a sentence."""
    first = min(error.errors(), key=lambda e: (e["type"] != "extra_forbidden", len(e["loc"])))
    path = _path([part for part in first["loc"] if part not in _TAGS])
    match first["type"]:
        case "extra_forbidden":
            name = str(first["loc"][-1])
            near = difflib.get_close_matches(name, sorted(_all_keys()), n=1)
            return path, f"unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else "; remove it")
        case "missing":
            return path, "is required and missing"
        case "union_tag_invalid":
            tag = str(first.get("ctx", {}).get("tag"))
            near = difflib.get_close_matches(tag, sorted(_TAGS), n=1)
            return f"{path}.action", f"unknown action {tag!r}; " + (f"did you mean {near[0]!r}?" if near else _ACTIONS)
        case "value_error":
            return path, str(first["msg"]).removeprefix("Value error, ")
        case _:
            wanted = str(first["msg"]).removeprefix("Input should be ")
            return path, f"wanted {wanted[0].lower()}{wanted[1:]}, got {first['input']!r}"


_ACTIONS = "there are byzantine, corrupt, crash, duplicate, lose, pause and slow"
_TAGS = frozenset(
    {"byzantine", "corrupt", "crash", "duplicate", "lose", "pause", "slow"}
    | {"Fixed", "FixedPercent", "tuple[str, ...]", "str"}
)


def _path(parts: list[int | str]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _all_keys() -> set[str]:
    keys: set[str] = set()
    models: list[type[BaseModel]] = [Strict, AttackModel]
    while models:
        model = models.pop()
        models += model.__subclasses__()
        keys |= {field.alias or name for name, field in model.model_fields.items()}
    return keys
