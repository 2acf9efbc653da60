"""JSON objects from outside, as a report reads them: a wrong value is one sentence that names its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hqde_ref.errors import WireError

__all__ = ["Fields"]


class Fields:
    """A JSON object from outside; each question says what was wanted when the answer is something else."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values, self._where = values, where

    def text(self, key: str, default: str | None = None) -> str:
        return str(self._get(key, str, "a text", default))

    def whole(self, key: str) -> int:
        return int(self._get(key, int, "a whole number", None))

    def number(self, key: str) -> float:
        return self._float(key, self._values.get(key))

    def maybe(self, key: str) -> float | None:
        return None if self._values.get(key) is None else self.number(key)

    def names(self, key: str) -> tuple[str, ...]:
        return tuple(str(item) for item in self._get(key, list, "a list", []))

    def flag(self, key: str) -> bool:
        value = self._values.get(key)
        return value if isinstance(value, bool) else bool(self._refuse(key, "true or false", value))

    def version(self, key: str) -> int | None:
        """The number of a version; None where there is none."""
        value = self._values.get(key)
        if value is None:
            return None
        whole = isinstance(value, list) and len(value) == 2 and type(value[0]) is int
        return int(value[0]) if whole else int(self._refuse(key, "a number and a writer", value))

    def reasons(self, key: str) -> dict[str, str]:
        return {str(name): str(reason) for name, reason in self._get(key, dict, "a mapping", {}).items()}

    def numbers(self, key: str) -> dict[str, float]:
        return {name: self._float(key, value) for name, value in self._get(key, dict, "a mapping", {}).items()}

    def _get(self, key: str, kind: type, wanted: str, default: Any) -> Any:
        value = self._values.get(key, default)
        return value if isinstance(value, kind) and not isinstance(value, bool) else self._refuse(key, wanted, value)

    def _float(self, key: str, value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        return float(value) if value in ("inf", "-inf", "nan") else self._refuse(key, "a number", value)

    def _refuse(self, key: str, wanted: str, value: object) -> Any:
        raise WireError(what=f"{self._where}: {key}", wanted=wanted, got=repr(value), do="run the scenario again")
