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
        where, problem = _explain(error, document)
        raise ScenarioError(file=file, where=where, problem=problem) from None


def _explain(error: ValidationError, document: dict[str, Any]) -> tuple[str, str]:
    """The first problem: its place as the file spells it, and a sentence."""
    found = [e for e in error.errors() if _is_meant(e["loc"], document)] or error.errors()
    first = min(found, key=lambda e: (e["type"] != "extra_forbidden", len(e["loc"])))
    parts = _written(first["loc"], document, is_missing=first["type"] == "missing")
    path = _path(parts)
    match first["type"]:
        case "extra_forbidden":
            name = str(first["loc"][-1])
            near = difflib.get_close_matches(name, sorted(_all_keys() - {name}), n=1)
            return path, f"unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else "; remove it")
        case "missing":
            return path, "is required and missing"
        case "union_tag_invalid":
            tag = str(first.get("ctx", {}).get("tag"))
            near = difflib.get_close_matches(tag, _ACTIONS, n=1)
            listed = f"there are {', '.join(_ACTIONS[:-1])} and {_ACTIONS[-1]}"
            return f"{path}.action", f"unknown action {tag!r}; " + (f"did you mean {near[0]!r}?" if near else listed)
        case "union_tag_not_found":
            return f"{path}.action", "is required and missing"
        case "value_error":
            return path, str(first["msg"]).removeprefix("Value error, ")
        case _ if parts and parts[-1] == "target":
            return path, f"wanted {_TARGETS}, got {first['input']!r}"
        case _:
            wanted = str(first["msg"]).removeprefix("Input should be ")
            return path, f"wanted {wanted[0].lower()}{wanted[1:]}, got {first['input']!r}"


_ACTIONS = ("byzantine", "corrupt", "crash", "damage", "duplicate", "lose", "pause", "remove", "slow")
_TARGETS = (
    "one, all, minority, majority, minority-third, {fixed: N}, {fixed-percent: P}, the name of a host or member, "
    "or a list of names"
)


def _written(loc: tuple[int | str, ...], document: Any, *, is_missing: bool) -> list[int | str]:
    """The place without what pydantic adds to it, the names of types and choices: only what stands in the file."""
    parts: list[int | str] = []
    at = document
    for part in loc:
        is_key = isinstance(at, dict) and part in at
        is_place = isinstance(at, list) and isinstance(part, int) and part < len(at)
        if is_key or is_place:
            parts.append(part)
            at = at[part]
    return [*parts, loc[-1]] if is_missing else parts


def _is_meant(loc: tuple[int | str, ...], document: Any) -> bool:
    """A target may be one of several things, and pydantic tells why it is none of them: keep the one it looks like."""
    if "target" not in loc[:-1]:
        return True
    at, place = document, loc.index("target")
    for part in _written(loc[: place + 1], document, is_missing=False):
        at = at[part]
    looks = {"fixed": "Fixed", "fixed-percent": "FixedPercent"}
    kinds = [kind for key, kind in looks.items() if isinstance(at, dict) and key in at]
    kinds += ["tuple[str, ...]"] if isinstance(at, list) else []
    return not kinds or loc[place + 1] in kinds


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
